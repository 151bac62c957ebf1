"""The probe over sockets, as users run it: against the sandbox with short periods."""

from __future__ import annotations

import json
import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support_cli import bltybench
from support_locust import LOCUSTFILES, run_locust
from support_probe import write_scenario
from support_sandbox import running_sandbox

from bltybench.scenario.file.scenario_file import load_limits
from bltybench.scenario.target import RateLimit, SandboxLimits

PERIOD_S = 2.0
LIMIT = 8
OTHER_FAMILIES = (
    "first_hit_window",
    "sliding_log",
    "sliding_counter",
    "first_hit_counter",
    "interval_refill",
)
MIN_FOUND = 4
"""Minimum number of these that are identified. A busy machine can leave several candidates, and an interval
refill needs more periods."""
CONCURRENT_PROBES = 4

Document = dict[str, Any]


def probe(directory: Path, *args: str, **rule: Any) -> Document:
    """Run the probe for the request limit, and return its limits.json and its run's directory."""
    requests = RateLimit(**({"limit": LIMIT, "period_s": PERIOD_S} | rule))
    limits = SandboxLimits(requests=requests, tokens=None, concurrency=None)
    with running_sandbox(limits=limits) as sandbox:
        write_scenario(directory, sandbox.base_url)
        command = ["--probe-ask", "requests", *args]
        done = run_locust(LOCUSTFILES / "limits.py", *command, cwd=directory, BLTYBENCH_TEST_KEY="sk-sandbox")
    assert done.code == 0, done.output
    assert re.search(r"as documented it takes about \d+ min, until \d\d:\d\d", done.output)
    document: Document = json.loads((done.run.path / "limits.json").read_text())
    assert document["stopped"] is None
    assert document["refusal_status"] in {429, None}
    return document | {"directory": done.run.path}


def assert_candidate(document: Document, family: str) -> None:
    fits = {fit["family"]: fit for fit in document["consistent"]}
    assert family in fits, document["says"]
    assert fits[family]["limit"] == LIMIT
    assert fits[family]["period_s"] == pytest.approx(PERIOD_S, rel=0.02)


def assert_limits_toml(document: Document, family: str) -> None:
    path = document["directory"] / "limits.toml"
    assert tomllib.loads(path.read_text())["requests"]["algorithm"] == family
    written = load_limits(path)
    assert written.requests is not None
    assert written.requests.limit == LIMIT
    assert written.requests.period_s == pytest.approx(PERIOD_S, rel=0.02)


# Other refusal statuses and missing headers: interop/test_limits_others.py.
@pytest.mark.parametrize(
    ("family", "name"), [("fixed_window", "a fixed window"), ("token_bucket", "a token bucket")]
)
def test_probe_and_command_report_what_the_sandbox_enforces(family: str, name: str, tmp_path: Path) -> None:
    document = probe(tmp_path, algorithm=family)
    assert_candidate(document, family)
    assert document["announced"] == {"limit": LIMIT, "dialect": "x-ratelimit"}
    assert_limits_toml(document, family)
    done = bltybench("limits", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == {name: document[name] for name in told}
    assert f"The limiter is {name}" in bltybench("limits", cwd=tmp_path).stdout


def assert_other_family(document: Document, family: str) -> None:
    """Check that a family is a candidate, and that its headers are accurate or can't be judged."""
    if family != "interval_refill" or document["status"] == "found":
        assert_candidate(document, family)
    values = {answer["question"]: answer["value"] for answer in document["answers"]}
    for header in ("limit_header", "remaining_header", "retry_after"):
        assert values.get(header) in {"honest", None}, (family, header)
    assert document["announced"] == {"limit": LIMIT, "dialect": "x-ratelimit"}


def test_other_families_are_identified_and_none_wrongly(tmp_path: Path) -> None:
    directories = {family: tmp_path / family for family in OTHER_FAMILIES}
    for directory in directories.values():
        directory.mkdir()
    with ThreadPoolExecutor(CONCURRENT_PROBES) as pool:
        probes = {family: pool.submit(probe, path, algorithm=family) for family, path in directories.items()}
        documents = {family: probed.result() for family, probed in probes.items()}
    for family, document in documents.items():
        assert_other_family(document, family)
    found = {family: document for family, document in documents.items() if document["status"] == "found"}
    assert {family: document["observed"]["family"] for family, document in found.items()} == {
        family: family for family in found
    }
    assert len(found) >= MIN_FOUND, {family: document["says"] for family, document in documents.items()}
    for family, document in found.items():
        assert_limits_toml(document, family)


def test_budget_ends_a_probe_that_is_never_refused(tmp_path: Path) -> None:
    document = probe(tmp_path, "--probe-budget", "60", limit=10_000)
    assert document["status"] == "never_refused"
    assert document["attempts"] <= 60
    assert not (document["directory"] / "limits.toml").exists()
