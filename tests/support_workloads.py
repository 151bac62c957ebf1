"""Scenarios run against a sandbox, and the schedule compared with what the sandbox received."""

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

BLOCK = 4
"""Requests in a row of which only the fastest counts for the pace."""


def play(
    folder: Path,
    scenario: str,
    *args: str,
    target: str = "",
    mix: str | None = None,
    page: bool = False,
    **sandbox: Any,
) -> tuple[Finished, dict[str, TruthRow]]:
    """Run a scenario against a sandbox. Return the result and the sandbox's log.

    ``mix`` replaces the mix of plain and streamed calls. With ``page``, the whole report is written.
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
    """Try to start an invalid run. Check that nothing was sent or stored, and return the output."""
    write_scenarios(folder, "http://127.0.0.1:9/v1", scenario, target=target)
    done = run_locust(LOCUSTFILES / "mixed.py", cwd=folder, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    assert not done.reports.exists()
    return done.output


def summary(done: Finished) -> dict[str, Any]:
    """Return the run's summary.json."""
    result: dict[str, Any] = msgspec.json.decode(done.run.summary_json.read_bytes())
    return result


def arrivals(text: str, duration_s: float = 3) -> str:
    """Return the keys of an open-loop scenario."""
    return f"duration_s = {duration_s}\nusers = 60\narrivals = {{ {text} }}\n"


def scheduled(done: Finished) -> list[Arrival]:
    """Return the schedule of the run, drawn again."""
    scenario = Scenario.model_validate(done.run.manifest().resolved)
    return list(schedule(scenario.arrivals, scenario.duration_s, scenario.seed, done.reports.parent))


def as_scheduled(done: Finished, truth: dict[str, TruthRow]) -> list[dict[str, Any]]:
    """Check that the sandbox received the whole schedule at its rate. Return the attempts."""
    due = scheduled(done)
    attempts = sorted(done.attempts, key=lambda row: row["due_ns"])
    assert [row["due_ns"] for row in attempts] == [round(arrival.at_s * 1e9) for arrival in due]
    assert [row["stage"] for row in attempts] == [arrival.stage for arrival in due]
    assert truth.keys() == {row["request_id"] for row in attempts}
    assert len(truth) == len(due) > 30
    start_ns = done.run.manifest().clock.monotonic_ns
    received_ns = {name: row.received_ns - start_ns for name, row in truth.items()}
    for row in attempts:
        # No request is sent early, and the recorded times agree with the sandbox's.
        assert row["due_ns"] <= row["sent_ns"] <= received_ns[row["request_id"]] <= row["headers_ns"]
    result = summary(done)
    delay = result["timings_ms"]["schedule_delay"]
    assert delay["n"] == len(due) - result["warm_up"]["attempts"]
    if result["warm_up"]["attempts"] == 0:
        latest_ms = max(row["sent_ns"] - row["due_ns"] for row in attempts) / 1e6
        assert delay["max"] == pytest.approx(latest_ms, abs=0.001)
    assert pace(attempts, received_ns) == pytest.approx(1.0, abs=0.005)
    return attempts


def pace(attempts: list[dict[str, Any]], received_ns: dict[str, int]) -> float:
    """Return the rate at the sandbox divided by the scheduled rate.

    Recorded schedule delays are subtracted, because a busy machine can send late if it records that. A busy
    sandbox can also receive late, so only the fastest of every BLOCK requests in a row counts. The result is
    the median slope over pairs of them at least half the run apart (Theil-Sen).
    """
    span_ns = attempts[-1]["due_ns"] - attempts[0]["due_ns"]
    delays_ns = [(received_ns[row["request_id"]] - row["sent_ns"], row["due_ns"]) for row in attempts]
    fastest = [min(delays_ns[first : first + BLOCK]) for first in range(0, len(delays_ns), BLOCK)]
    points: list[tuple[int, int]] = [(due_ns, due_ns + delay_ns) for delay_ns, due_ns in fastest]
    slopes: list[float] = [
        (due_2 - due_1) / (received_2 - received_1)
        for (due_1, received_1), (due_2, received_2) in combinations(points, 2)
        if due_2 - due_1 >= span_ns / 2
    ]
    return median(slopes)
