"""Time and memory that a report takes, by the size of the run.

``python benchmarks/report.py [N …]``

Creates a run of N attempts with 100 gaps each (an hour long, a third refused, some retried). Then measures,
in separate processes, the whole report from the Parquet files and each of its parts. Prints Markdown: wall
time, CPU time in parentheses, and peak resident memory.
"""

import argparse
import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Clock, Host, Manifest, TargetInfo, package_versions
from bltybench.runs.store import ATTEMPT_SCHEMA, GENERATOR_SCHEMA
from bltybench.scenario.api.documented_limits import Limit

SIZES = [10_000, 100_000, 1_000_000, 5_000_000]
GAPS = 100
HOUR_NS = 3600 * 10**9
T = TypeVar("T")

ROWS = 20_000
"""Rows created and written in one batch. A sealed run has row groups of this size or smaller."""


def make(path: Path, attempts: int) -> None:
    """Write a sealed run of ``attempts`` attempts."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.write_manifest(manifest_of(path.name))
    rng = np.random.default_rng(1)
    with pq.ParquetWriter(folder.attempts_parquet, ATTEMPT_SCHEMA, compression="zstd") as writer:
        for first in range(0, attempts, ROWS):
            writer.write_table(_attempts(rng, first, min(ROWS, attempts - first), attempts))
    seconds = {
        "worker": ["w0"] * 3600,
        "at_ns": (np.arange(3600) + 1) * 10**9,
        "stall_us": rng.integers(200, 4000, 3600),
        "cpu_share": rng.uniform(0.1, 0.5, 3600),
        "steal_share": np.zeros(3600),
    }
    zeros = {name: np.zeros(3600, dtype=np.int64) for name in GENERATOR_SCHEMA.names}
    columns = [pa.array((zeros | seconds)[field.name], type=field.type) for field in GENERATOR_SCHEMA]
    pq.write_table(pa.table(columns, schema=GENERATOR_SCHEMA), folder.generator_parquet)


def manifest_of(run_id: str) -> Manifest:
    """Return the manifest of a run that lasted an hour."""
    return Manifest(
        run_id=run_id,
        created="2026-11-22T14:15:10Z",
        scenario="made",
        resolved={
            "title": "Made",
            "target": "made",
            "model": "deepseek-chat",
            "duration_s": 3600.0,
            "arrivals": {"kind": "closed"},
            "users": 50,
            "mix": [{"name": "stream", "stream": True}],
        },
        target=TargetInfo(
            name="made", base_url="http://127.0.0.1:8808/v1", limits=[Limit("requests", 60, 60.0)]
        ),
        command=["locust"],
        versions=package_versions(),
        host=Host.here(),
        clock=Clock(monotonic_ns=0, wall_ns=1_795_356_910_000_000_000),
        ended_ns=HOUR_NS,
        ended="completed",
    )


def _attempts(rng: np.random.Generator, first: int, rows: int, total: int) -> pa.Table:
    """Create attempts from number ``first`` on, in the order in which they end within the hour."""
    sent = np.sort(rng.integers(HOUR_NS * first // total, HOUR_NS * (first + rows) // total, rows))
    refused = rng.random(rows) < 0.33
    first_token = sent + rng.lognormal(19, 0.5, rows).astype(np.int64)
    gaps = rng.lognormal(9.6, 0.5, (rows, GAPS)).astype(np.int64)
    last = first_token + gaps.sum(axis=1) * 1000
    offsets = np.concatenate(([0], np.cumsum(np.where(refused, 0, GAPS)))).astype(np.int32)
    kept = gaps[~refused].reshape(-1)
    values: dict[str, pa.Array] = {
        "gaps_us": pa.ListArray.from_arrays(pa.array(offsets), pa.array(kept), mask=pa.array(refused))
    }

    def put(name: str, data: object, null: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None) -> None:
        values[name] = pa.array(data, type=ATTEMPT_SCHEMA.field(name).type, mask=null)

    numbers = np.arange(first, first + rows)
    # Every tenth attempt is the second of the previous call.
    again = (numbers % 10 == 9) & (numbers > first)
    for name, text in (("worker", "w0"), ("scenario", "made"), ("endpoint", "/chat/completions")):
        put(name, [text] * rows)
    put("call_id", [f"w0-{number:09d}" for number in numbers - again])
    put("attempt", again.astype(np.int64))
    put("request_id", [f"req-{number:032d}" for number in numbers])
    put("due_ns", sent - 200_000)
    put("sent_ns", sent)
    put("headers_ns", np.where(refused, sent + 4_000_000, first_token - 1000))
    for name in ("first_token_ns", "first_output_ns"):
        put(name, first_token, refused)
    put("last_token_ns", last, refused)
    put("end_ns", np.where(refused, sent + 5_000_000, last + 100_000))
    put("outcome", np.where(refused, "rate_limited", "ok"))
    put("status", np.where(refused, 429, 200))
    put("model", np.where(numbers % 3 == 0, "deepseek-reasoner", "deepseek-chat"))
    put("stream", np.ones(rows, dtype=np.bool_))
    put("prompt_tokens", rng.integers(10, 100, rows), refused)
    put("completion_tokens", np.full(rows, GAPS + 1), refused)
    put("tokens_source", np.full(rows, "usage"), refused)
    put("retry_after_s", rng.integers(1, 60, rows).astype(np.float64), ~refused)
    for name, number in (("limit_requests", 60), ("bytes_sent", 640), ("bytes_received", 900)):
        put(name, np.full(rows, number))
    put("remaining_requests", rng.integers(0, 60, rows))
    put("stamp", np.full(rows, "kernel"))
    put("observer_lag_us", rng.integers(20, 400, rows))
    put("coalesced_events", np.zeros(rows, dtype=np.int64), refused)
    for name in ("user", "in_flight"):
        put(name, rng.integers(1, 50, rows))
    columns = [values.get(field.name, pa.nulls(rows, field.type)) for field in ATTEMPT_SCHEMA]
    return pa.table(columns, schema=ATTEMPT_SCHEMA)


class PartCost(msgspec.Struct):
    """Time and memory of one part."""

    name: str
    seconds: float
    cpu_s: float
    """CPU time of all threads and processes: the time on one core."""
    peak_bytes: int


def peak_bytes(*, begin: bool = False) -> int:
    """Return the peak resident memory since the last call with ``begin`` (Linux records and resets it).

    Adds the peak of ended child processes, as if they shared nothing with this one.
    """
    if begin:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (int(status.split("VmHWM:")[1].split()[0]) + children) * 1024


def cpu_s() -> float:
    """Return the CPU time of this process and its ended child processes."""
    return sum(os.times()[:4])


def measured(name: str, parts: list[PartCost], work: Callable[[], T]) -> T:
    """Do some work and record its cost."""
    peak_bytes(begin=True)
    started, cpu = time.perf_counter(), cpu_s()
    result = work()
    spent = time.perf_counter() - started, cpu_s() - cpu
    parts.append(PartCost(name, *spent, peak_bytes()))
    return result


def whole(path: Path) -> list[PartCost]:
    """Measure ``bltybench report``, imports included."""
    parts: list[PartCost] = []

    def work() -> None:
        from bltybench.cli.app import app  # noqa: PLC0415 - the imports are part of the cost

        with contextlib.redirect_stdout(io.StringIO()):
            app(["report", str(path)], standalone_mode=False)

    measured("the whole report", parts, work)
    return parts


def in_tables(path: Path) -> list[PartCost]:
    """Measure loading and every table, with all results kept."""
    from bltybench.metrics import concurrency, frame, latency, outcomes, quota, rates, timeline  # noqa: PLC0415
    from bltybench.metrics.gaps import tally_gaps  # noqa: PLC0415
    from bltybench.metrics.spans import steady_spans  # noqa: PLC0415
    from bltybench.runs.manifest import read_scenario  # noqa: PLC0415
    from bltybench.runs.store import gap_batches, read_attempts  # noqa: PLC0415

    folder, parts = RunFolder(path), list[PartCost]()
    gaps = measured("load: gaps", parts, lambda: tally_gaps(gap_batches(folder)))
    table = measured("load: columns", parts, lambda: read_attempts(folder, without=frame.UNUSED_COLUMNS))
    attempts = measured("load: frame", parts, lambda: frame.attempts_frame(table))
    calls = measured("table: calls", parts, lambda: frame.calls_frame(attempts))
    steps = measured("table: in flight", parts, lambda: concurrency.steps(attempts))
    spans = steady_spans(calls, read_scenario(folder.manifest()), HOUR_NS)
    measured("table: latency by kind", parts, lambda: latency.by_kind(attempts, calls, gaps, spans))
    events = measured("table: tokens", parts, lambda: rates.token_events(attempts))
    measured("table: best minutes", parts, lambda: rates.best(attempts, events))
    measured("table: minutes", parts, lambda: rates.per_minute(attempts, events, 0, HOUR_NS))
    measured("table: timeline", parts, lambda: timeline.timeline(attempts, events, steps, HOUR_NS))
    measured("table: rolling", parts, lambda: timeline.rolling(attempts, events, steps, HOUR_NS))
    measured("table: outcomes", parts, lambda: outcomes.by_outcome(attempts))
    measured("table: errors", parts, lambda: outcomes.errors(attempts))
    measured("table: refusals", parts, lambda: quota.retry_after(quota.refusals(attempts)))
    measured("table: quotas", parts, lambda: quota.headers(attempts))
    return parts


def in_figures(path: Path) -> list[PartCost]:
    """Measure loading with all tables, then each figure, the summary, and the page."""
    from bltybench.metrics.analysis import load  # noqa: PLC0415
    from bltybench.report.export.raw import hashes  # noqa: PLC0415
    from bltybench.report.figures import run_figures  # noqa: PLC0415
    from bltybench.report.page.limits_section import limits_section  # noqa: PLC0415
    from bltybench.report.page.page import page  # noqa: PLC0415
    from bltybench.report.summary import summarize  # noqa: PLC0415

    folder, parts = RunFolder(path), list[PartCost]()
    run = measured("load and all tables", parts, lambda: load(folder))
    drawings = [
        measured("figure: timeline", parts, lambda: run_figures.timeline(run)),
        measured("figure: latency", parts, lambda: run_figures.latencies(run)),
    ]
    summary = measured("summary", parts, lambda: summarize(run))
    limits = measured("section on rate limits, with its figures", parts, lambda: limits_section(folder))
    drawings += limits.drawings if limits else []
    raw = measured("hashes of the raw files", parts, lambda: hashes(folder))
    measured("page, with figures drawn", parts, lambda: page(run, summary, drawings, raw, limits))
    return parts


PARTS: dict[str, Callable[[Path], list[PartCost]]] = {
    "whole": whole,
    "tables": in_tables,
    "figures": in_figures,
}


def main() -> None:
    """Measure each size in child processes; with ``--path``, measure one run in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="N")
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.path is not None:
        sys.stdout.write(msgspec.json.encode(PARTS[options.what](options.path)).decode())
        return
    columns: dict[int, dict[str, PartCost]] = {}
    pages: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="bltybench-") as place:
        for size in options.sizes:
            run = Path(place) / f"run-{size}"
            make(run, size)
            columns[size] = {part.name: part for group in PARTS for part in _elsewhere(run, group)}
            pages[size] = RunFolder(run).report_html.stat().st_size
            for file in (RunFolder(run).attempts_parquet, RunFolder(run).generator_parquet):
                file.unlink()
    print("| part |" + "".join(f" {size:,} |" for size in columns))
    print("|---|" + "---:|" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} |" + "".join(_cell(parts[name]) for parts in columns.values()))
    print("| size of the page |" + "".join(f" {pages[size] / 1e6:.2f} MB |" for size in columns))
    print(f"\n{os.cpu_count()} CPUs, {', '.join(f'{k} {v}' for k, v in package_versions().items())}")


def _cell(part: PartCost) -> str:
    return f" {part.seconds:.2f} s ({part.cpu_s:.2f}), {part.peak_bytes / 1e9:.2f} GB |"


def _elsewhere(run: Path, group: str) -> list[PartCost]:
    done = subprocess.run(
        [sys.executable, __file__, "--path", str(run), "--what", group], capture_output=True, check=True
    )
    return msgspec.json.decode(done.stdout, type=list[PartCost])


if __name__ == "__main__":
    main()
