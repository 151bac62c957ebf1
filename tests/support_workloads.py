"""Scenarios played against a sandbox of their own, and what it saw compared with what was asked for."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
from support_locust import LOCUSTFILES, REPO, WITH_PAGE, Finished, run_locust, truth_of, write_scenarios
from support_sandbox import running_sandbox

from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.arrivals.arrivals import Arrival, schedule
from bltybench.scenario.target import SANDBOX_KEY
from bltybench.scenario.workload import Scenario

TRACES = REPO.parent / "shared" / "traces"


def play(
    folder: Path,
    scenario: str,
    *args: str,
    target: str = "",
    mix: str | None = None,
    page: bool = False,
    **sandbox: Any,
) -> tuple[Finished, dict[str, TruthRow]]:
    """Run a scenario against a sandbox; return what it left and what the sandbox saw.

    ``mix`` replaces the mix of plain and streamed calls. With ``page`` the whole report is made.
    """
    log = folder / "truth.jsonl"
    log.unlink(missing_ok=True)
    with running_sandbox(log, **sandbox) as running:
        path = write_scenarios(folder, running.base_url, scenario, target=target)
        if mix is not None:
            text = path.read_text()
            head, rest = text[: text.index("[scenarios.quickstart]")], scenario
            path.write_text(
                f'{head}[scenarios.quickstart]\ntitle = "For a test"\nmodel = "deepseek-chat"\n'
                f'target = "here"\n{rest}\n[[scenarios.quickstart.mix]]\n{mix}'
            )
        changes = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY} | (WITH_PAGE if page else {})
        done = run_locust(LOCUSTFILES / "mixed.py", *args, cwd=folder, **changes)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    return done, truth_of(log)


def refused(folder: Path, scenario: str = "", *, target: str = "") -> str:
    """Try to run what cannot be run; return what was said. Nothing may have been sent or begun."""
    write_scenarios(folder, "http://127.0.0.1:9/v1", scenario, target=target)
    done = run_locust(LOCUSTFILES / "mixed.py", cwd=folder, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    assert not done.reports.exists()
    return done.output


def summary(done: Finished) -> dict[str, Any]:
    """The run's summary.json."""
    found: dict[str, Any] = msgspec.json.decode(done.run.summary_json.read_bytes())
    return found


def arrivals(text: str, duration_s: float = 3) -> str:
    """The keys of an open-loop scenario."""
    return f"duration_s = {duration_s}\nusers = 60\narrivals = {{ {text} }}\n"


def scheduled(done: Finished) -> list[Arrival]:
    """The schedule of the run, drawn again."""
    scenario = Scenario.model_validate(done.run.manifest().resolved)
    return list(schedule(scenario.arrivals, scenario.duration_s, scenario.seed, done.reports.parent))


def as_scheduled(done: Finished, truth: dict[str, TruthRow]) -> list[dict[str, Any]]:
    """Check that the sandbox saw the schedule, the whole of it and at its rate; return the attempts."""
    wanted = scheduled(done)
    attempts = sorted(done.attempts, key=lambda row: row["due_ns"])
    assert [row["due_ns"] for row in attempts] == [round(arrival.at_s * 1e9) for arrival in wanted]
    assert [row["stage"] for row in attempts] == [arrival.stage for arrival in wanted]
    assert truth.keys() == {row["request_id"] for row in attempts}
    assert len(truth) == len(wanted) > 30
    start_ns = done.run.manifest().clock.monotonic_ns
    seen_ns = {name: row.received_ns - start_ns for name, row in truth.items()}
    for row in attempts:
        # None is sent before its time, and what was recorded of the sending is what the sandbox saw.
        assert row["due_ns"] <= row["sent_ns"] <= seen_ns[row["request_id"]] <= row["headers_ns"]
    found = summary(done)
    told = found["timings_ms"]["schedule_delay"]
    assert told["n"] == len(wanted) - found["warm_up"]["attempts"]
    if found["warm_up"]["attempts"] == 0:
        latest_ms = max(row["sent_ns"] - row["due_ns"] for row in attempts) / 1e6
        assert told["max"] == pytest.approx(latest_ms, abs=0.001)
    assert pace(attempts, seen_ns) == pytest.approx(1.0, abs=0.005)
    return attempts


def pace(attempts: list[dict[str, Any]], seen_ns: dict[str, int]) -> float:
    """How fast the schedule went by at the sandbox: 1.01 is a rate 1% above the one asked for.

    What an arrival was sent late by its own record is taken off: a busy machine may be late, and must say so.
    Then the median, over pairs of arrivals at least half the run apart, of their distance in the schedule to
    that at the sandbox: a few that were held up on their way do not move it (Theil and Sen).
    """
    span_ns = attempts[-1]["due_ns"] - attempts[0]["due_ns"]
    points: list[tuple[int, int]] = [
        (row["due_ns"], seen_ns[row["request_id"]] - (row["sent_ns"] - row["due_ns"])) for row in attempts
    ]
    slopes: list[float] = [
        (later - due) / (seen_later - seen)
        for (due, seen), (later, seen_later) in combinations(points, 2)
        if later - due >= span_ns / 2
    ]
    return median(slopes)
