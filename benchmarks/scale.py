"""What one process on one core holds: many open streams, long ones, and a long run. The whole product.

python -m benchmarks.scale                     all of it, about six minutes
python -m benchmarks.scale 400x50 --seconds 60

400x50, 2000x10   so many streams open at a time, so many events a second in each, in an open loop
long              1,000 open streams of 4,000 tokens each: memory
growth            200 users, flooded: does memory grow with the number of finished attempts?
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.bench import CORES, REPO, Server, now, stolen
from bltybench.runs.folder import list_runs
from bltybench.runs.store import read_attempts, read_generator

SCENARIO = """
default_scenario = "bench"
[targets.server]
base_url = "{url}"
[scenarios.bench]
title = "Benchmark"
target = "server"
model = "deepseek-chat"
duration_s = {seconds}
users = {users}
spawn_rate = {spawn_rate}
arrivals = {arrivals}
[[scenarios.bench.mix]]
name = "stream"
stream = true
max_tokens = {{ kind = "fixed", tokens = {tokens} }}
"""


class Load(NamedTuple):
    """A load; with ``open_loop`` as many arrivals as keep ``streams`` open, else as many users."""

    streams: int
    tokens: int
    rate: float
    burst: int = 1
    open_loop: bool = True
    seconds: float = 60.0


LOADS = {
    "400x50": Load(400, 64, 50.0),
    "2000x10": Load(2000, 64, 10.0),
    "long": Load(1000, 4000, 2.0, burst=50, open_loop=False),
    "growth": Load(200, 64, 0.0, open_loop=False, seconds=120.0),
}


def run(name: str, load: Load, seconds: float) -> dict[str, Any]:
    """Run a load on one core and return what the run's own records say of it."""
    with tempfile.TemporaryDirectory(prefix="bltybench-") as folder, Server() as server, stolen() as steal:
        arrivals, users = '{ kind = "closed" }', load.streams
        if load.open_loop:
            length_s = (load.tokens + 4) / load.rate
            per_min = 60 * load.streams / length_s
            arrivals = f'{{ kind = "constant", rate_per_min = {per_min:.0f} }}'
            users = round(load.streams * 1.3)  # the ceiling, not the number
        (Path(folder) / "scenarios.toml").write_text(
            SCENARIO.format(
                url=server.url(load.tokens, load.rate, load.burst),
                seconds=seconds,
                users=users,
                # A thousand users who begin at once are a burst that is no part of a closed loop's question.
                spawn_rate=users if load.open_loop else users / 5,
                arrivals=arrivals,
                tokens=load.tokens,
            )
        )
        output = _locust(Path(folder), timeout_s=seconds + 240)
        record = server.record()
        (made,) = list_runs(Path(folder) / "reports")
        summary = json.loads(made.summary_json.read_bytes())
        attempts, seconds_table = read_attempts(made, without=["gaps_us"]), read_generator(made)
        planned = made.manifest().planned_calls
    found = {"load": name, "steal_share": steal[0], **_figures(attempts, seconds_table)}
    found["planned"] = planned
    found["server_cpu_share"], found["server_late_p99_us"] = record["cpu_share"], record["late_p99_us"]
    found["valid"], found["invalid_reasons"] = summary["valid"], summary["invalid_reasons"]
    if not len(attempts):
        raise RuntimeError(f"nothing was recorded:\n{output[-4000:]}")
    return found


def _locust(folder: Path, timeout_s: float) -> str:
    locustfile = str(REPO / "locustfiles/stream.py")
    process = subprocess.Popen(
        [sys.executable, "-m", "locust", "-f", locustfile, "--headless", "--scenario", "bench"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.sched_setaffinity(process.pid, {CORES[0]})
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return output


def _figures(attempts: pa.Table, seconds: pa.Table) -> dict[str, Any]:
    columns = {name: attempts.column(name).to_numpy() for name in ("sent_ns", "due_ns", "coalesced_events")}
    ok = np.array([outcome == "ok" for outcome in attempts.column("outcome").to_pylist()])
    sent = ~np.isnan(columns["sent_ns"].astype(float))
    delay_ms = (columns["sent_ns"][sent] - columns["due_ns"][sent]) / 1e6
    lag_us = attempts.column("observer_lag_us").to_numpy().astype(float)
    rss_mb = seconds.column("rss_bytes").to_numpy() / 1e6
    events = seconds.column("events").to_numpy().sum()
    third = max(1, len(rss_mb) // 3)
    return {
        "attempts": len(attempts),
        "ok": int(ok.sum()),
        "streams_in_flight_max": int(seconds.column("in_flight").to_numpy().max()),
        "events_per_s": float(events / len(rss_mb)),
        "schedule_delay_ms": _ranks(delay_ms),
        "observer_lag_ms": _ranks(lag_us[~np.isnan(lag_us)] / 1000),
        "stall_ms_max": float(seconds.column("stall_us").to_numpy().max() / 1000),
        "cpu_share_mean": float(seconds.column("cpu_share").to_numpy().mean()),
        "coalesced_share": float(np.nansum(columns["coalesced_events"].astype(float)) / max(1, events)),
        "rss_mb_max": float(rss_mb.max()),
        "rss_mb_thirds": [
            float(part.max()) for part in (rss_mb[:third], rss_mb[third:-third], rss_mb[-third:])
        ]
        if len(rss_mb) >= 3
        else [],
        "rss_mb_per_min": _slope_per_min(rss_mb[third:]),
    }


def _slope_per_min(values: np.ndarray[Any, Any]) -> float | None:
    """Return by how much a figure of each second grows in a minute, by least squares."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0] * 60) if len(values) >= 10 else None


def _ranks(values: np.ndarray[Any, Any]) -> list[float]:
    return [round(float(value), 3) for value in (*np.percentile(values, [50, 99]), values.max())]


def main() -> None:
    """Run the loads that were asked for and print what they came to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("loads", nargs="*", help=f"of: {', '.join(LOADS)} (default: all)")
    parser.add_argument("--seconds", type=float, help="how long the load lasts (60; growth: 120)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if unknown := set(options.loads) - set(LOADS):
        parser.error(f"no such load: {', '.join(sorted(unknown))}")
    if len(CORES) < 2:
        sys.exit("two cores are needed: one for the load, one for the server")
    found = []
    for name in options.loads or LOADS:
        found.append(run(name, LOADS[name], options.seconds or LOADS[name].seconds))
        print(json.dumps(found[-1], indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"when": now(), "loads": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
