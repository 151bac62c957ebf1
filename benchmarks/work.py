"""What a client under test is asked to do, and how it is measured: the same for all of them.

A client process is told its work in the environment, keeps ``streams`` streams open for ``seconds`` (each
user begins its first at a moment of its own within ``spread_s``), and writes a ``Result`` when it is done.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import msgspec

WORK = "BLTYBENCH_WORK"

QUESTION = [{"role": "user", "content": "Say in about fifty words what a load test is good for. " * 4}]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """``rate`` is in events a second and stream; 0 asks for whole answers, as fast as they come."""

    base_url: str
    tokens: int
    rate: float
    streams: int
    seconds: float
    spread_s: float
    result: str
    """Path that the result is written to."""
    from_ns: int = 0
    """When measuring begins (``time.monotonic_ns``), where several are to begin together."""

    @property
    def events(self) -> int:
        """Events in a stream: the role, the content, the end, the usage, ``[DONE]``."""
        return self.tokens + 4

    def left_s(self) -> float:
        """Return how long it is until measuring begins: a second after the last stream's start, or later."""
        return max(self.spread_s + 1.0, (self.from_ns - time.monotonic_ns()) / 1e9)

    @property
    def body(self) -> dict[str, object]:
        """The request."""
        return {
            "model": "deepseek-chat",
            "messages": QUESTION,
            "max_tokens": self.tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


class Stream(msgspec.Struct, array_like=True):
    """One stream as its client saw it; times are ``time.monotonic_ns``, of content events only."""

    number: int
    sent_ns: int
    end_ns: int
    times_ns: list[int]
    coalesced: int = 0


class Result(msgspec.Struct, kw_only=True):
    """What a client did between the end of the spread (and a little more) and the end of its time."""

    from_ns: int
    to_ns: int
    cpu_s: float
    rss_mb: float
    failed: int = 0
    streams: list[Stream] = msgspec.field(default_factory=list)
    """All of them, also those outside the time that was measured."""
    run: str = ""
    """The folder of the run instead, where the client is the whole product."""


def read_work() -> Work:
    """Return the work that this process was told."""
    return msgspec.json.decode(os.environ[WORK], type=Work)


def cpu_s() -> float:
    """Return the CPU seconds of this process, all threads."""
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
        self.streams: list[Stream] = []
        self._from_ns = 0
        self._cpu_s = 0.0

    def begin(self) -> None:
        """From here on it counts."""
        self._from_ns, self._cpu_s = time.monotonic_ns(), cpu_s()

    def end(self, run: str = "") -> None:
        """Write what was measured until now."""
        to_ns, spent_s = time.monotonic_ns(), cpu_s() - self._cpu_s
        result = Result(
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
