"""A master and its workers on machines that share neither disk nor clock: one run."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.machine_cluster import API, MASTER, Cluster, Ended, problems
from benchmarks.machine_network import Loopback, Network, why_impossible
from bltybench.runs.store import read_attempts
from bltybench.scenario.arrivals.arrivals import schedule
from bltybench.scenario.file.resolve import resolve
from bltybench.scenario.file.scenario_file import load_book

WORKERS = {"one": 0.25, "two": -0.25, "three": 0.0}
"""Seconds by which each worker's clock is ahead of the others'."""
BUDGET = 60


@pytest.mark.parametrize("place", ["namespaces" if why_impossible() is None else "loopback"])
def test_machines_without_a_shared_disk_or_clock_make_one_run(tmp_path: Path, place: str) -> None:
    names = [MASTER, API, *WORKERS]
    separate = place == "namespaces"
    with (
        Network(tmp_path, names) if separate else nullcontext(Loopback(tmp_path, names)) as network,
        Cluster(network, WORKERS, requests=BUDGET, seconds=10, rate_per_min=1500) as cluster,
    ):
        workers = [cluster.worker(name, ahead_s=ahead_s) for name, ahead_s in WORKERS.items()]
        ended = [Ended(process) for process in (cluster.master(), *workers)]
        run, served = cluster.run, cluster.served()
    output = "".join(process.output for process in ended)
    assert [process.code for process in ended] == [0, 0, 0, 0], output
    assert "Traceback" not in output
    # The records of all workers are the log of the API row by row, and their times are on one axis.
    assert problems(run, served) == []
    manifest = run.manifest()
    clocks = {clock.worker: clock for clock in manifest.worker_clocks}
    expected = [-0.25, 0.25] if separate else []
    assert sorted(round(clock.applied_ns / 1e9, 2) for clock in clocks.values()) == expected
    assert max((clock.uncertainty_ns for clock in clocks.values()), default=0) < 50e6
    # The budget is spent and not exceeded.
    rows = read_attempts(run).to_pylist()
    assert len(rows) == len(served) == BUDGET
    assert {row["worker"] for row in rows} == {"w0", "w1", "w2"}
    assert manifest.ended == "budget"
    # The schedule is that of a single process.
    resolved = resolve(load_book(network.directory(MASTER) / "scenarios.toml"))
    scenario = resolved.scenario
    drawn = list(
        islice(schedule(scenario.arrivals, scenario.duration_s, scenario.seed, resolved.base_dir), BUDGET)
    )
    for index, worker in enumerate(("w0", "w1", "w2")):
        due_ns = sorted(row["due_ns"] for row in rows if row["worker"] == worker)
        planned_ns = [round(arrival.at_s * 1e9) for arrival in drawn[index::3]]
        # The correction of a clock moves all times of its worker.
        moved_ns = 2 * clocks[worker].uncertainty_ns if worker in clocks else 0
        differences = [abs(due - planned) for due, planned in zip(due_ns, planned_ns, strict=True)]
        assert max(differences) <= moved_ns
    # Nothing is left where the workers ran.
    assert [path for name in WORKERS for path in network.directory(name).rglob("*.jsonl")] == []
