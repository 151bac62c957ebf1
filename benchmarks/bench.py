"""Running one client against the server, and what the two records say together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, product, repeat
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np

from benchmarks.work import WORK, Result, Stream, Work
from bltybench.runs.folder import RunFolder
from bltybench.runs.store import read_attempts

REPO = Path(__file__).resolve().parents[1]
CORES = sorted(os.sched_getaffinity(0))

START_S = 12.0
"""How long clients that are measured together have to start, all on one core, perhaps while one floods it."""
APART_NS = 500_000_000
"""So late may one of them begin: a flooded client looks at the clock only now and then."""


class Plan(NamedTuple):
    """What is to be measured."""

    clients: Sequence[str]
    levels: Sequence[int]
    rates: Sequence[float]
    runs: int
    seconds: float
    tokens: int

    def steps(self) -> Iterator[tuple[int, float, int]]:
        """Yield run, rate and streams, in the order in which they are measured."""
        return product(range(1, self.runs + 1), self.rates, self.levels)


class Server:
    """The benchmarks' server, in a process of its own on the last core."""

    def __init__(self, core: int = CORES[-1]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server"],
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, {core})
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def url(self, tokens: int, rate: float, burst: int = 1) -> str:
        """Return the base URL that asks for such streams, written ``burst`` content events at a time."""
        return f"http://127.0.0.1:{self._port}/{tokens}x{rate:g}x{burst}/v1"

    def record(self) -> dict[str, Any]:
        """Return what the server did since this was last asked."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/record", timeout=60) as answer:
            record: dict[str, Any] = json.load(answer)
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate("")


@contextmanager
def stolen() -> Iterator[list[float]]:
    """Measure the share of the machine's CPU time that went to others meanwhile; it is put into the list."""
    share: list[float] = []
    before = _ticks()
    yield share
    after = _ticks()
    share.append((after[0] - before[0]) / max(1, after[1] - before[1]))


def _ticks() -> tuple[int, int]:
    fields = [int(field) for field in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


class Errors(msgspec.Struct, kw_only=True):
    """By how much a client's times differ from the server's: p50, p99, max, in milliseconds."""

    arrival: tuple[float, float, float]
    """Of a content event's stamp, from when it was written."""
    arrival_alone: tuple[float, float, float]
    """The same without events that the client itself says shared a read."""
    ttft: tuple[float, float, float]
    itl: tuple[float, float, float]
    coalesced_share: float


class Outcome(msgspec.Struct, kw_only=True):
    """One client at one level, once."""

    client: str
    streams: int
    rate: float
    events: int
    streams_per_s: float
    cpu_us_per_event: float
    cpu_share: float
    rss_mb: float
    failed: int
    server_cpu_share: float
    server_late_p99_us: float | None
    steal_share: float
    errors: Errors | None = None


def measure(server: Server, clients: Sequence[str], plan: Plan, rate: float, streams: int) -> list[Outcome]:
    """Run ``clients`` once, all at the same time. Raises RuntimeError where one did not get to its end."""
    length_s = (plan.tokens + 4) / rate if rate else 0.2
    timeout_s = length_s + plan.seconds + 60
    from_ns = 0
    if len(clients) > 1:
        timeout_s += START_S
        from_ns = time.monotonic_ns() + round((START_S + length_s + 1.0) * 1e9)
    with tempfile.TemporaryDirectory(prefix="bltybench-") as folder, stolen() as steal:
        works = [
            Work(
                base_url=server.url(plan.tokens, rate),
                tokens=plan.tokens,
                rate=rate,
                streams=streams,
                seconds=plan.seconds,
                spread_s=length_s,
                result=str(Path(folder) / client / "result.json"),
                from_ns=from_ns,
            )
            for client in clients
        ]
        server.record()
        with ThreadPoolExecutor(len(clients)) as together:
            results = list(together.map(run_client, clients, works, repeat(timeout_s)))
        record = server.record()
        seen = [result.streams or _streams_of(result.run) for result in results]
    apart_ns = max(result.from_ns for result in results) - min(result.from_ns for result in results)
    if apart_ns > APART_NS:
        raise RuntimeError(f"{' and '.join(clients)} began {apart_ns / 1e9:.1f} s apart, not together")
    return [
        _outcome(client, work, result, streams, record=record, steal_share=steal[0])
        for client, work, result, streams in zip(clients, works, results, seen, strict=True)
    ]


def _outcome(
    client: str,
    work: Work,
    result: Result,
    seen: list[Stream],
    *,
    record: dict[str, Any],
    steal_share: float,
) -> Outcome:
    inside = [stream for stream in seen if result.from_ns <= stream.end_ns < result.to_ns]
    events = max(1, len(inside) * work.events)
    wall_s = (result.to_ns - result.from_ns) / 1e9
    return Outcome(
        client=client,
        streams=work.streams,
        rate=work.rate,
        events=events,
        streams_per_s=len(inside) / wall_s,
        cpu_us_per_event=result.cpu_s * 1e6 / events,
        cpu_share=result.cpu_s / wall_s,
        rss_mb=result.rss_mb,
        failed=result.failed,
        server_cpu_share=record["cpu_share"],
        server_late_p99_us=record["late_p99_us"],
        steal_share=steal_share,
        errors=_errors(inside, record["streams"], work.tokens) if work.rate else None,
    )


def run_client(client: str, work: Work, timeout_s: float) -> Result:
    """Run a client to its end and return what it wrote."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    Path(work.result).parent.mkdir()
    environment |= {WORK: msgspec.json.encode(work).decode(), "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.client", client, str(CORES[0])],
        cwd=REPO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    try:
        return msgspec.json.decode(Path(work.result).read_bytes(), type=Result)
    except FileNotFoundError:
        raise RuntimeError(f"{client} wrote no result:\n{output[-4000:]}") from None


def _streams_of(run: str) -> list[Stream]:
    """Return the streams of a run, from the records of the product."""
    folder = RunFolder(Path(run))
    start_ns = folder.manifest().clock.monotonic_ns
    columns = ["request_id", "sent_ns", "end_ns", "first_token_ns", "gaps_us", "coalesced_events", "outcome"]
    streams = []
    for row in read_attempts(folder).select(columns).to_pylist():
        if row["outcome"] == "ok":
            first_ns = start_ns + row["first_token_ns"]
            times_ns = [first_ns + gap * 1000 for gap in accumulate(row["gaps_us"], initial=0)]
            number, coalesced = int(row["request_id"]), row["coalesced_events"] or 0
            streams.append(
                Stream(number, start_ns + row["sent_ns"], start_ns + row["end_ns"], times_ns, coalesced)
            )
    return streams


def _errors(streams: list[Stream], truth: dict[str, Any], tokens: int) -> Errors | None:
    arrival, alone, ttft, itl = [], [], [], []
    coalesced = 0
    for stream in streams:
        true = truth.get(str(stream.number))
        if true is None or len(stream.times_ns) != tokens:
            continue
        arrived_ns, written = true[0], np.array(true[1])
        seen = np.array(stream.times_ns)
        late = (seen - written) / 1e6
        arrival.append(late)
        coalesced += stream.coalesced
        if not stream.coalesced:
            alone.append(late)
        ttft.append(abs((seen[0] - stream.sent_ns) - (written[0] - arrived_ns)) / 1e6)
        itl.append(np.abs(np.diff(seen) - np.diff(written)) / 1e6)
    if not arrival:
        return None
    return Errors(
        arrival=_ranks(np.concatenate(arrival)),
        arrival_alone=_ranks(np.concatenate(alone)) if alone else (0.0, 0.0, 0.0),
        ttft=_ranks(np.array(ttft)),
        itl=_ranks(np.concatenate(itl)),
        coalesced_share=coalesced / (len(arrival) * tokens),
    )


def _ranks(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    return float(np.percentile(values, 50)), float(np.percentile(values, 99)), float(values.max())


def now() -> str:
    """Return the date and time, for tables."""
    return time.strftime("%Y-%m-%d %H:%M %Z")
