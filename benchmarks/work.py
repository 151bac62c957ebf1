"""The work of a client under test and how it is measured: the same for all clients.

A client process takes its work from the environment and keeps ``streams`` streams open for ``seconds``. Each
user starts at a random time within ``spread_s``. At the end, the process writes a ``ClientResult``.
"""

from __future__ import annotations

import os
import random
import resource
import time
from pathlib import Path
from typing import Any

import msgspec

WORK = "BLTYBENCH_WORK"
"""Environment variable that holds the work as JSON."""

MESSAGES = [{"role": "user", "content": "Say in about fifty words what a load test is good for. " * 4}]

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
CLOSED_LOOP = '{ kind = "closed" }'


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one client. A ``rate`` of 0 requests whole responses, as fast as they arrive."""

    base_url: str
    tokens: int
    rate: float
    """Events per second and stream."""
    streams: int
    seconds: float
    spread_s: float
    result: str
    """Path of the result file."""

    @property
    def events(self) -> int:
        """Events of a stream: the role, the content, the end, the usage, and ``[DONE]``."""
        return self.tokens + 4

    @property
    def ready(self) -> Path:
        """Empty file that the client writes when it is ready to send."""
        return Path(self.result).with_name("ready")

    @property
    def start(self) -> Path:
        """File that then tells the client the start of the load (``time.monotonic_ns``)."""
        return Path(self.result).with_name("start")

    def wait_for_start(self) -> int:
        """Wait until all clients that are measured together are ready. Return the start of the load."""
        self.ready.touch()
        while not self.start.exists():
            time.sleep(0.02)
        return int(self.start.read_text("ascii"))

    def user_delay_s(self, start_ns: int) -> float:
        """Return the time until a user starts: at random within ``spread_s`` of the start of the load."""
        return max(0.0, (start_ns - time.monotonic_ns()) / 1e9) + random.random() * self.spread_s

    def measure_in_s(self, start_ns: int) -> float:
        """Return the time until the measurement starts: a second after the last stream has."""
        return max(0.0, (start_ns - time.monotonic_ns()) / 1e9 + self.spread_s + 1.0)

    @property
    def body(self) -> dict[str, object]:
        """The request body."""
        return {
            "model": "deepseek-chat",
            "messages": MESSAGES,
            "max_tokens": self.tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def has_token(chunk: Any) -> bool:
    """Return whether a decoded event holds text, reasoning, or a part of a tool call."""
    choices = chunk["choices"]
    delta = choices[0]["delta"] if choices else {}
    return any(delta.get(key) for key in ("content", "reasoning_content", "tool_calls"))


class ClientStream(msgspec.Struct, array_like=True):
    """One stream as its client recorded it. Times are ``time.monotonic_ns``, of content events only."""

    number: int
    sent_ns: int
    end_ns: int
    times_ns: list[int]
    coalesced: int = 0
    first_coalesced: bool = False


class ClientResult(msgspec.Struct, kw_only=True):
    """Measurements of a client between ``from_ns`` and ``to_ns``."""

    from_ns: int
    to_ns: int
    cpu_s: float
    rss_mb: float
    failed: int = 0
    streams: list[ClientStream] = msgspec.field(default_factory=list)
    """All streams, including those outside the measured time."""
    run: str = ""
    """Directory of the run that holds the streams, if the client is the whole product."""


def read_work() -> Work:
    """Return the work of this process."""
    return msgspec.json.decode(os.environ[WORK], type=Work)


def cpu_s() -> float:
    """Return the CPU seconds of this process, all threads included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


class Meter:
    """Measures this process from ``begin`` to ``end``."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.failed = 0
        self.streams: list[ClientStream] = []
        self._from_ns = 0
        self._cpu_s = 0.0

    def begin(self) -> None:
        """Start measuring."""
        self._from_ns, self._cpu_s = time.monotonic_ns(), cpu_s()

    def add(self, number: int, sent_ns: int, times_ns: list[int], *, done: bool) -> None:
        """Record a stream that has just ended."""
        self.failed += not done
        self.streams.append(ClientStream(number, sent_ns, time.monotonic_ns(), times_ns))

    def end(self, run: str = "") -> None:
        """Write the result file."""
        to_ns, spent_s = time.monotonic_ns(), cpu_s() - self._cpu_s
        result = ClientResult(
            from_ns=self._from_ns,
            to_ns=to_ns,
            cpu_s=spent_s,
            rss_mb=rss_mb(),
            failed=self.failed,
            streams=self.streams,
            run=run,
        )
        path = Path(self.work.result)
        path.with_suffix(".part").write_bytes(msgspec.json.encode(result))
        path.with_suffix(".part").rename(path)
