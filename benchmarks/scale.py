"""Limits of one process on one core: many concurrent streams, long streams, and a long run.

python -m benchmarks.scale                     everything but soak, about six minutes
python -m benchmarks.scale soak                ten minutes
python -m benchmarks.scale 400x50 --seconds 60
python -m benchmarks.scale --workers 1 3 10    a run over several machines: CPU and traffic

python -m benchmarks.scale 100x50 --processes 1 2 4   one run on several cores, with as many streams for each

100x50, 400x50, 2000x10   concurrent streams x events per second in each, in an open loop
long              1,000 concurrent streams of 4,000 tokens each: memory
growth            200 users, unpaced: does memory grow with the number of finished attempts?
soak              1,000 streams for ten minutes: memory, descriptors, and schedule delay of each third
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks import scale_workers
from benchmarks.bench import CORES, REPO, ServerProcess, percentiles, stolen
from benchmarks.campaign import write_results
from benchmarks.machine_network import why_impossible
from benchmarks.work import CLOSED_LOOP, SCENARIO
from bltybench.runs.folder import list_runs
from bltybench.runs.store import read_attempts, read_generator


class ScaleLoad(NamedTuple):
    """A load of ``streams`` concurrent streams, set by the arrival rate (open loop) or the user count."""

    streams: int
    tokens: int
    rate: float
    burst: int = 1
    open_loop: bool = True
    seconds: float = 60.0


LOADS = {
    "100x50": ScaleLoad(100, 64, 50.0),
    "400x50": ScaleLoad(400, 64, 50.0),
    "2000x10": ScaleLoad(2000, 64, 10.0),
    "long": ScaleLoad(1000, 4000, 2.0, burst=50, open_loop=False),
    "growth": ScaleLoad(200, 64, 0.0, open_loop=False, seconds=120.0),
    "soak": ScaleLoad(1000, 64, 10.0, seconds=600.0),
}
USUAL = tuple(name for name in LOADS if name not in {"100x50", "soak"})
"""Loads that run if none is named."""


def run(name: str, load: ScaleLoad, seconds: float, processes: int) -> dict[str, Any]:
    """Run a load in each of ``processes`` and return the figures in the run's records."""
    load = load._replace(streams=load.streams * processes)
    with (
        tempfile.TemporaryDirectory(prefix="bltybench-") as folder,
        ServerProcess() as server,
        stolen() as steal,
    ):
        arrivals, users = CLOSED_LOOP, load.streams
        if load.open_loop:
            length_s = (load.tokens + 4) / load.rate
            per_min = 60 * load.streams / length_s
            arrivals = f'{{ kind = "constant", rate_per_min = {per_min:.0f} }}'
            users = round(load.streams * 1.3)  # a ceiling, not the number in use
        (Path(folder) / "scenarios.toml").write_text(
            SCENARIO.format(
                url=server.url(load.tokens, load.rate, load.burst),
                seconds=seconds,
                users=users,
                # A thousand users that start immediately are a burst, which a closed loop is not about.
                spawn_rate=users if load.open_loop else users / 5,
                arrivals=arrivals,
                tokens=load.tokens,
            )
        )
        output, descriptors = _locust(Path(folder), processes, timeout_s=seconds + 240)
        record = server.record()
        (run_folder,) = list_runs(Path(folder) / "reports")
        summary = json.loads(run_folder.summary_json.read_bytes())
        attempts, seconds_table = read_attempts(run_folder, without=["gaps_us"]), read_generator(run_folder)
        planned = run_folder.manifest().planned_calls
    figures = {"load": name, "processes": processes, "steal_share": steal[0]}
    figures |= _figures(attempts, seconds_table)
    figures["planned"] = planned
    figures["server_cpu_share"], figures["server_late_p99_us"] = record["cpu_share"], record["late_p99_us"]
    figures["descriptors_thirds"] = [int(part.max()) for part in _thirds(np.array(descriptors))]
    figures["valid"], figures["invalid_reasons"] = summary["valid"], summary["invalid_reasons"]
    if not len(attempts):
        raise RuntimeError(f"nothing was recorded:\n{output[-4000:]}")
    return figures


def _locust(folder: Path, processes: int, timeout_s: float) -> tuple[str, list[int]]:
    """Run Locust on a core per process, as far as there are. Return its output and its open descriptors.

    There is a number of descriptors for each second of the load. One core remains for the server.
    """
    locustfile = str(REPO / "locustfiles/stream.py")
    workers = ["--processes", str(processes)] if processes > 1 else []
    process = subprocess.Popen(
        [sys.executable, "-m", "locust", "-f", locustfile, "--headless", "--scenario", "bench", *workers],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.sched_setaffinity(process.pid, set(CORES[: max(1, min(processes, len(CORES) - 1))]))
    descriptors: list[int] = []
    loaded = Event()

    def sample() -> None:
        table = Path(f"/proc/{process.pid}/fd")
        while not loaded.wait(1.0):
            spools = list(folder.glob("reports/*/attempts/*.jsonl"))
            with suppress(FileNotFoundError):  # the process has ended
                if spools and spools[0].stat().st_size:
                    descriptors.append(len(list(table.iterdir())))

    sampler = Thread(target=sample)
    sampler.start()
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        loaded.set()
        sampler.join()
    return output, descriptors


def _figures(attempts: pa.Table, seconds: pa.Table) -> dict[str, Any]:
    columns = {name: attempts.column(name).to_numpy() for name in ("sent_ns", "due_ns", "coalesced_events")}
    ok = np.array([outcome == "ok" for outcome in attempts.column("outcome").to_pylist()])
    sent = ~np.isnan(columns["sent_ns"].astype(float))
    delay_ms = (columns["sent_ns"][sent] - columns["due_ns"][sent]) / 1e6
    lag_us = attempts.column("observer_lag_us").to_numpy().astype(float)
    rss_mb = seconds.column("rss_bytes").to_numpy() / 1e6
    events = seconds.column("events").to_numpy().sum()
    due_order = np.argsort(columns["due_ns"][sent])
    return {
        "attempts": len(attempts),
        "ok": int(ok.sum()),
        "streams_in_flight_max": int(seconds.column("in_flight").to_numpy().max()),
        "events_per_s": float(events / len(rss_mb)),
        "schedule_delay_ms": _rounded_percentiles(delay_ms),
        "observer_lag_ms": _rounded_percentiles(lag_us[~np.isnan(lag_us)] / 1000),
        "stall_ms_max": float(seconds.column("stall_us").to_numpy().max() / 1000),
        "cpu_us_per_event": float(seconds.column("cpu_share").to_numpy().sum() * 1e6 / max(1, events)),
        "cpu_share_mean": float(seconds.column("cpu_share").to_numpy().mean()),
        "coalesced_share": float(np.nansum(columns["coalesced_events"].astype(float)) / max(1, events)),
        "rss_mb_max": float(rss_mb.max()),
        "rss_mb_thirds": [round(float(part.max()), 1) for part in _thirds(rss_mb)],
        "rss_mb_per_min": _slope_per_min(rss_mb[len(rss_mb) // 3 :]),
        "schedule_delay_ms_thirds": [_rounded_percentiles(part) for part in _thirds(delay_ms[due_order])],
    }


def _thirds(values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return the first, middle, and last third of a series; nothing of a short one."""
    return list(np.array_split(values, 3)) if len(values) >= 3 else []


def _slope_per_min(values: np.ndarray[Any, Any]) -> float | None:
    """Return the growth per minute of a figure sampled each second, by least squares."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0] * 60) if len(values) >= 10 else None


def _rounded_percentiles(values: np.ndarray[Any, Any]) -> list[float]:
    return [round(value, 3) for value in percentiles(values)]


def main() -> None:
    """Run the requested loads and print their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "loads", nargs="*", help=f"loads to run: {', '.join(LOADS)} (default: {', '.join(USUAL)})"
    )
    parser.add_argument("--seconds", type=float, help="duration of each load (default: 60, growth: 120)")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1], metavar="N", help="processes of a run (default: 1)"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", metavar="N", help="numbers of workers on machines of their own"
    )
    rate_per_worker = scale_workers.RATE_PER_WORKER
    parser.add_argument(
        "--rate",
        type=float,
        default=rate_per_worker,
        help=f"streams per second of each worker (default: {rate_per_worker:g})",
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if unknown := set(options.loads) - set(LOADS):
        parser.error(f"no such load: {', '.join(sorted(unknown))}")
    if len(CORES) < 2:
        sys.exit("two cores are needed: one for the load, one for the server")
    figures = []
    if options.workers:
        if reason := why_impossible():
            sys.exit(f"this machine can't have several machines: {reason}")
        for workers in options.workers:
            figures.append(scale_workers.run(workers, options.rate))
            print(json.dumps(figures[-1], indent=1), flush=True)
        if options.json:
            write_results(options.json, {"workers": figures})
        return
    for name in options.loads or USUAL:
        for processes in options.processes:
            seconds = options.seconds or LOADS[name].seconds
            figures.append(run(name, LOADS[name], seconds, processes))
            print(json.dumps(figures[-1], indent=1), flush=True)
    if options.json:
        write_results(options.json, {"loads": figures})


if __name__ == "__main__":
    main()
