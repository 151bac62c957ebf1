"""The policy of docs/cli.md: each row gives the same verdict in exit code, JUnit, summary, and page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from support_cli import invoke
from support_runs import attempt, generator_seconds, manifest, write_run

from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.manifest import UnfinishedWorker

OK = [attempt(call_id=f"c{number}") for number in range(20)]
REFUSED = [attempt(call_id="r", outcome=Outcome.RATE_LIMITED, status=429)]
CUT_OFF = [attempt(call_id="x", outcome=Outcome.CANCELLED, status=None, headers_ns=None)]
LOST = {"workers": 2, "unfinished_workers": [UnfinishedWorker(name="w1", reason="was killed")]}
STALLED = {"stall_us": 280_000}
PASSES, FAILS, UNDECIDED = {"attempts.count": ">= 1"}, {"attempts.count": "< 1"}, {"latency.p99": "< 9 s"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run, and the verdict and exit codes that the policy gives it."""

    attempts: list[Attempt] = field(default_factory=lambda: OK)
    checks: dict[str, str] = field(default_factory=dict)
    generator: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    verdict: str
    code: int
    strict: int


ROWS = {
    "no checks": Row(verdict="pass", code=0, strict=0),
    "all pass": Row(checks=PASSES, verdict="pass", code=0, strict=0),
    "one fails": Row(checks=PASSES | {"refused.count": "> 0"}, verdict="fail", code=1, strict=1),
    "fails, and invalid": Row(checks=FAILS, generator=STALLED, verdict="fail", code=1, strict=1),
    "fails, and too few": Row(checks=FAILS | UNDECIDED, verdict="fail", code=1, strict=1),
    "lost worker": Row(checks=PASSES, about=LOST, verdict="fail", code=1, strict=1),
    "nothing succeeded": Row(attempts=REFUSED, verdict="nothing succeeded", code=1, strict=1),
    "nothing succeeded, too few": Row(
        attempts=REFUSED, checks=UNDECIDED, verdict="nothing succeeded", code=1, strict=1
    ),
    "failures as asked for": Row(
        attempts=REFUSED, checks={"refused.count": "> 0"}, verdict="pass", code=0, strict=0
    ),
    "nothing sent": Row(attempts=[], verdict="nothing succeeded", code=1, strict=1),
    "invalid": Row(generator=STALLED, verdict="invalid", code=0, strict=1),
    "invalid, checks pass": Row(checks=PASSES, generator=STALLED, verdict="invalid", code=0, strict=1),
    "too few": Row(checks=PASSES | UNDECIDED, verdict="not decided", code=0, strict=1),
    "all cut off": Row(attempts=CUT_OFF, verdict="not decided", code=0, strict=1),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_verdict_is_the_same_everywhere(row: Row, tmp_path: Path) -> None:
    resolved = manifest().resolved | {"arrivals": {"kind": "closed"}, "checks": row.checks}
    folder = write_run(
        tmp_path / "20261130-120000-made",
        row.attempts,
        seconds=generator_seconds(90, **row.generator),
        about=manifest(resolved=resolved, **row.about),
    )
    for options, expected in (((), row.code), (("--strict",), row.strict)):
        code, out = invoke("report", tmp_path, "--format", "json,junit,md", *options)
        assert code == expected, out
        summary = json.loads(folder.summary_json.read_bytes())
        assert (summary["verdict"], summary["failed"]) == (row.verdict, bool(expected))
        suite = ET.fromstring(folder.junit_xml.read_bytes())[0]  # noqa: S314  # our own file
        assert (int(suite.attrib["failures"]) > 0) == bool(expected)
        is_open = row.verdict in {"not decided", "invalid"}
        assert (int(suite.attrib["skipped"]) > 0) == is_open or expected
        assert len(suite) == int(suite.attrib["tests"])
        heading = folder.summary_md.read_text(encoding="utf-8").splitlines()[0]
        assert row.verdict.upper() in heading or not row.checks
