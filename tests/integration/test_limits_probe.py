"""The probe over sockets, as users run it: against the sandbox with short periods."""

from __future__ import annotations

import json
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support_cli import bltybench
from support_locust import LOCUSTFILES, run_locust
from support_probe import write_scenario
from support_sandbox import running_sandbox

from bltybench.scenario.file.limits_file import load_limits
from bltybench.scenario.target import RateLimit, SandboxLimits

PERIOD_S = 2.0
LIMIT = 8


def probe(folder: Path, *args: str, **rule: Any) -> dict[str, Any]:
    requests = RateLimit(**({"limit": LIMIT, "period_s": PERIOD_S} | rule))
    limits = SandboxLimits(requests=requests, tokens=None, concurrency=None)
    with running_sandbox(limits=limits) as sandbox:
        write_scenario(folder, sandbox.base_url)
        command = ["--probe-ask", "requests", *args]
        done = run_locust(LOCUSTFILES / "limits.py", *command, cwd=folder, BLTYBENCH_TEST_KEY="sk-sandbox")
    assert done.code == 0, done.output
    found: dict[str, Any] = json.loads((done.run.path / "limits.json").read_text())
    assert found["stopped"] is None
    found["folder"] = done.run.path
    return found


def assert_found(found: dict[str, Any], family: str, limit: int = LIMIT, period_s: float = PERIOD_S) -> None:
    families = {each["family"]: each for each in found["consistent"]}
    assert family in families, found["says"]
    observed = families[family]
    assert observed["limit"] == limit
    assert observed["period_s"] == pytest.approx(period_s, rel=0.02)


# Other statuses and no headers at all: interop/test_limits_others, of limiters not ours.
@pytest.mark.parametrize("family", ["fixed_window", "token_bucket"])
def test_the_probe_names_what_the_sandbox_enforces_and_the_verb_says_the_same(
    family: str, tmp_path: Path
) -> None:
    found = probe(tmp_path, algorithm=family)
    assert_found(found, family)
    assert found["announced"] == {"limit": LIMIT, "dialect": "x-ratelimit"}
    assert found["refusal_status"] == 429
    document = tomllib.loads((found["folder"] / "limits.toml").read_text())
    assert document["requests"]["algorithm"] == family
    written = load_limits(found["folder"] / "limits.toml")
    assert written.requests is not None
    assert written.requests.limit == LIMIT
    assert written.requests.period_s == pytest.approx(PERIOD_S, rel=0.02)
    done = bltybench("limits", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["observed"] == found["observed"]
    words = bltybench("limits", cwd=tmp_path)
    assert f"The limiter is a {family.replace('_', ' ')}: " in words.stdout


FAMILIES = (
    "first_hit_window",
    "sliding_log",
    "sliding_counter",
    "first_hit_counter",
    "interval_refill",
)
AT_ONCE = 4
"""Probes that run side by side: mostly they wait."""


@pytest.fixture(scope="module")
def found_of(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the probe found of a sandbox with each of the other families."""
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {family: pool.submit(probe, folder, algorithm=family) for family, folder in folders.items()}
        return {family: each.result() for family, each in running.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_other_families_are_named_too(family: str, found_of: dict[str, dict[str, Any]]) -> None:
    found = found_of[family]
    # A busy machine may leave more than one open; a refill in lumps needs many periods to be named.
    if family != "interval_refill":
        assert_found(found, family)
    elif found["status"] == "found":
        assert found["observed"]["family"] == family
    told = {each["question"]: each["value"] for each in found["answers"]}
    # What cannot be told of headers is left out where nothing but requests was asked for.
    assert told.get("limit_header") != "wrong"
    assert told.get("remaining_header") != "wrong"
    assert told.get("retry_after") in {"honest", None}
    assert found["announced"] == {"limit": LIMIT, "dialect": "x-ratelimit"}
    assert found["refusal_status"] == 429
    if found["status"] == "found":
        document = tomllib.loads((found["folder"] / "limits.toml").read_text())
        assert document["requests"]["algorithm"] == family
        written = load_limits(found["folder"] / "limits.toml")
        assert written.requests is not None
        assert written.requests.limit == LIMIT
        assert written.requests.period_s == pytest.approx(PERIOD_S, rel=0.02)


def test_the_budget_ends_a_probe_that_is_never_refused(tmp_path: Path) -> None:
    found = probe(tmp_path, "--probe-budget", "60", limit=10_000)
    assert found["status"] == "never_refused"
    assert found["attempts"] <= 60
    assert not (found["folder"] / "limits.toml").exists()
