"""The cost of distributing a run: what workers and master use, and what their connection carries.

Each worker is on a machine of its own (``benchmarks.machine_network``) and sends the same number of streams
per second, so the load grows with the number of workers. Called by ``benchmarks.scale --workers``.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.bench import stolen
from benchmarks.machine_cluster import API, MASTER, Cluster, Ended
from benchmarks.machine_network import Network
from bltybench.runs.store import read_attempts, read_generator

RATE_PER_WORKER = 8.0
"""Default of the streams per second of each worker. All machines share the cores of this one."""
SECONDS = 20.0
MARGIN_S = 2.0
"""Time after the begin and before the end of the load that is not measured, in seconds."""


def run(workers: int, rate_per_worker: float) -> dict[str, Any]:
    """Run a load of ``workers`` workers, each with this rate of streams per second. Return what it cost."""
    names = [f"w{number}" for number in range(workers)]
    rate_per_min = round(60 * rate_per_worker * workers)
    with (
        tempfile.TemporaryDirectory(prefix="bltybench-") as folder,
        Network(Path(folder), [MASTER, API, *names]) as network,
        Cluster(network, names, requests=10**6, seconds=SECONDS, rate_per_min=rate_per_min) as cluster,
        stolen() as steal,
    ):
        # Clocks that differ, as on other machines.
        processes = [cluster.worker(name, ahead_s=1.0) for name in names]
        master = cluster.master()
        before = network.transferred_bytes(MASTER)
        cluster.wait_for_requests(1)
        time.sleep(MARGIN_S)
        master_share = _cpu_share(master, SECONDS - 2 * MARGIN_S)
        ended = [Ended(process) for process in (master, *processes)]
        carried = network.transferred_bytes(MASTER) - before
        if any(process.code for process in ended):
            raise RuntimeError(ended[0].output[-4000:])
        attempts, seconds = read_attempts(cluster.run), read_generator(cluster.run)
        summary = json.loads(cluster.run.summary_json.read_bytes())
        clocks = cluster.run.manifest().worker_clocks
    sent = attempts.column("sent_ns").to_numpy()
    shares = seconds.column("cpu_share").to_numpy()
    return {
        "workers": workers,
        "rate_per_worker": rate_per_worker,
        "attempts": len(attempts),
        "streams_per_s": float(len(sent) / SECONDS),
        "worker_cpu_share_mean": float(np.mean(shares)),
        "master_cpu_share": master_share,
        "bytes_per_1000_attempts": round(1000 * carried / len(attempts)),
        "tokens_per_stream_mean": float(np.mean(attempts.column("completion_tokens").to_numpy())),
        "clock_uncertainty_ms": max(clock.uncertainty_ns for clock in clocks) / 1e6,
        "steal_share": steal[0],
        "valid": summary["valid"],
        "invalid_reasons": summary["invalid_reasons"],
    }


def _cpu_share(process: subprocess.Popen[str], seconds: float) -> float:
    """Return the fraction of a core that a process uses during the next seconds."""
    observed = psutil.Process(process.pid)
    begin_s, begin = time.monotonic(), observed.cpu_times()
    time.sleep(seconds)
    end_s, end = time.monotonic(), observed.cpu_times()
    return float((end.user + end.system - begin.user - begin.system) / (end_s - begin_s))
