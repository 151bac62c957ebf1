"""Measurement of clients against the server, from the records of both."""

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
from itertools import accumulate, product
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np

from benchmarks.stream_formats import USUAL
from benchmarks.work import WORK, ClientResult, ClientStream, Work
from bltybench.runs.folder import RunFolder
from bltybench.runs.store import read_attempts

REPO = Path(__file__).resolve().parents[1]
CORES = sorted(os.sched_getaffinity(0))

START_NS = 200_000_000
"""Time for clients to learn when the load starts."""
MAX_APART_NS = 500_000_000
"""Maximum time between their first measurements. An unpaced client rarely checks the clock."""


class BenchmarkPlan(NamedTuple):
    """The measurements to make."""

    clients: Sequence[str]
    formats: Sequence[str]
    levels: Sequence[int]
    rates: Sequence[float]
    runs: int
    seconds: float
    tokens: int
    at_once: bool = False
    """Whether all streams start at the same time, again and again, because all take equally long."""

    def steps(self) -> Iterator[tuple[int, "Streams"]]:
        """Yield the number of the run and its streams, in the order of measurement."""
        kinds = (Streams(*kind) for kind in product(self.rates, self.levels, self.formats))
        return product(range(1, self.runs + 1), tuple(kinds))


class Streams(NamedTuple):
    """The streams of a measurement: events per second of each (0: unpaced), their number, and format."""

    rate: float
    number: int
    format: str

    def __str__(self) -> str:
        """Return them for progress lines and tables."""
        pace = f"paced, {self.rate:g}/s" if self.rate else "unpaced"
        return f"{pace}, {self.number:,} streams, {self.format}"


class ServerProcess:
    """The benchmark server, in its own process on the last core."""

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

    def url(self, tokens: int, rate: float, burst: int = 1, name: str = USUAL) -> str:
        """Return the base URL of streams in a format that write ``burst`` content events at a time."""
        return f"http://127.0.0.1:{self._port}/{name}-{tokens}x{rate:g}x{burst}/v1"

    def record(self) -> dict[str, Any]:
        """Return the server's record since the last call."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/record", timeout=60) as response:
            record: dict[str, Any] = json.load(response)
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate("")


@contextmanager
def stolen() -> Iterator[list[float]]:
    """Measure steal, the fraction of CPU time that the hypervisor gave to others. The list receives it."""
    share: list[float] = []
    before = _ticks()
    yield share
    after = _ticks()
    share.append((after[0] - before[0]) / max(1, after[1] - before[1]))


def _ticks() -> tuple[int, int]:
    fields = [int(field) for field in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


class TimingErrors(msgspec.Struct, kw_only=True):
    """Differences between the client's times and the server's: p50, p99, and maximum, in milliseconds."""

    arrival: tuple[float, float, float]
    """From writing a content event to the client's timestamp of it."""
    arrival_alone: tuple[float, float, float]
    """The same without streams in which the client reports coalesced events."""
    ttft: tuple[float, float, float]
    itl: tuple[float, float, float]
    coalesced_share: float
    first_coalesced_share: float
    """Fraction of the first tokens that shared their read."""


class Measurement(msgspec.Struct, kw_only=True):
    """One run of one client at one level."""

    client: str
    streams: int
    rate: float
    format: str
    events: int
    streams_per_s: float
    cpu_us_per_event: float
    cpu_share: float
    rss_mb: float
    failed: int
    server_cpu_share: float
    server_late_p99_us: float | None
    steal_share: float
    errors: TimingErrors | None = None


def measure(
    server: ServerProcess, clients: Sequence[str], plan: BenchmarkPlan, streams: Streams
) -> list[Measurement]:
    """Run ``clients`` once, at the same time. Raises RuntimeError if one of them fails."""
    rate = streams.rate
    length_s = (plan.tokens + 4) / rate if rate else 0.2
    timeout_s = length_s + plan.seconds + 60
    with tempfile.TemporaryDirectory(prefix="bltybench-") as directory, stolen() as steal:
        works = [
            Work(
                base_url=server.url(plan.tokens, rate, name=streams.format),
                tokens=plan.tokens,
                rate=rate,
                streams=streams.number,
                seconds=plan.seconds,
                spread_s=0.0 if plan.at_once else length_s,
                result=str(Path(directory) / client / "result.json"),
            )
            for client in clients
        ]
        server.record()
        with ThreadPoolExecutor(len(clients)) as together:
            running = [
                together.submit(run_client, *pair, timeout_s) for pair in zip(clients, works, strict=True)
            ]
            while not all(work.ready.exists() for work in works) and not any(run.done() for run in running):
                time.sleep(0.02)
            start_ns = time.monotonic_ns() + START_NS
            for work in works:
                _write_whole(work.start, str(start_ns))
            results = [run.result() for run in running]
        record = server.record()
        recorded = [result.streams or _streams_of(result.run) for result in results]
    apart_ns = max(result.from_ns for result in results) - min(result.from_ns for result in results)
    if apart_ns > MAX_APART_NS:
        raise RuntimeError(f"{' and '.join(clients)} began {apart_ns / 1e9:.1f} s apart")
    return [
        _measurement(client, work, result, ours, streams.format, record=record, steal_share=steal[0])
        for client, work, result, ours in zip(clients, works, results, recorded, strict=True)
    ]


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".part").write_text(text, "ascii")
    path.with_suffix(".part").rename(path)


def _measurement(
    client: str,
    work: Work,
    result: ClientResult,
    recorded: list[ClientStream],
    name: str,
    *,
    record: dict[str, Any],
    steal_share: float,
) -> Measurement:
    inside = [stream for stream in recorded if result.from_ns <= stream.end_ns < result.to_ns]
    events = max(1, len(inside) * work.events)
    wall_s = (result.to_ns - result.from_ns) / 1e9
    return Measurement(
        client=client,
        streams=work.streams,
        rate=work.rate,
        format=name,
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


def run_client(client: str, work: Work, timeout_s: float) -> ClientResult:
    """Run a client to its end and return its result."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    Path(work.result).parent.mkdir(exist_ok=True)
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
        return msgspec.json.decode(Path(work.result).read_bytes(), type=ClientResult)
    except FileNotFoundError:
        raise RuntimeError(f"{client} wrote no result:\n{output[-4000:]}") from None


def _streams_of(run: str) -> list[ClientStream]:
    """Return the streams of a run of the product, from its records."""
    folder = RunFolder(Path(run))
    start_ns = folder.manifest().clock.monotonic_ns
    columns = ["request_id", "sent_ns", "end_ns", "first_token_ns", "gaps_us", "coalesced_events"]
    columns += ["first_token_coalesced", "outcome"]
    streams = []
    for row in read_attempts(folder).select(columns).to_pylist():
        if row["outcome"] == "ok":
            first_ns = start_ns + row["first_token_ns"]
            times_ns = [first_ns + gap * 1000 for gap in accumulate(row["gaps_us"], initial=0)]
            number, coalesced = int(row["request_id"]), row["coalesced_events"] or 0
            sent_ns, end_ns = start_ns + row["sent_ns"], start_ns + row["end_ns"]
            late = row["first_token_coalesced"]
            streams.append(ClientStream(number, sent_ns, end_ns, times_ns, coalesced, late))
    return streams


def _errors(streams: list[ClientStream], truth: dict[str, Any], tokens: int) -> TimingErrors | None:
    arrival, alone, ttft, itl = [], [], [], []
    coalesced = first_coalesced = 0
    for stream in streams:
        true = truth.get(str(stream.number))
        if true is None or len(stream.times_ns) != tokens:
            continue
        request_ns, written = true[0], np.array(true[1])
        arrived = np.array(stream.times_ns)
        late = (arrived - written) / 1e6
        arrival.append(late)
        coalesced += stream.coalesced
        first_coalesced += stream.first_coalesced
        if not stream.coalesced:
            alone.append(late)
        ttft.append(abs((arrived[0] - stream.sent_ns) - (written[0] - request_ns)) / 1e6)
        itl.append(np.abs(np.diff(arrived) - np.diff(written)) / 1e6)
    if not arrival:
        return None
    return TimingErrors(
        arrival=percentiles(np.concatenate(arrival)),
        arrival_alone=percentiles(np.concatenate(alone)) if alone else (0.0, 0.0, 0.0),
        ttft=percentiles(np.array(ttft)),
        itl=percentiles(np.concatenate(itl)),
        coalesced_share=coalesced / (len(arrival) * tokens),
        first_coalesced_share=first_coalesced / len(arrival),
    )


def percentiles(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return p50, p99, and the maximum."""
    return float(np.percentile(values, 50)), float(np.percentile(values, 99)), float(values.max())


def now() -> str:
    """Return the date and time, for tables."""
    return time.strftime("%Y-%m-%d %H:%M %Z")
