"""What every pacing policy does: it holds requests, and learns from what is sent and answered."""

from collections.abc import Iterable
from math import inf
from random import Random
from typing import ClassVar, NamedTuple

from bltybench.scenario.api.call_size import CallSize

MARGIN_S = 1e-6
"""Time by which a held request is sent after its wait, in seconds, so that rounding can't make it early."""
MAX_HOLD_S = 60.0
"""Longest hold after a refusal, in seconds, whatever it announces."""


class SentRequest(NamedTuple):
    """When a request was sent, in seconds, and its tokens."""

    at_s: float
    size: CallSize


class Share(NamedTuple):
    """A client's place among those that share the limits."""

    client: int
    clients: int

    def of(self, total: int) -> int:
        """Return the client's part of a total. The first clients take the remainder."""
        return total // self.clients + (self.client < total % self.clients)


class AnnouncedLimit(NamedTuple):
    """A limit as a response announces it."""

    counts_tokens: bool
    limit: float
    remaining: float
    reset_s: float
    """Time from when the request was sent until the whole limit is available, in seconds."""

    def cost(self, size: CallSize) -> float:
        """Return what a request costs."""
        return size.cost("tokens" if self.counts_tokens else "requests")

    def wait_s(self, age_s: float, spent: float, cost: float) -> float:
        """Return how long until a request fits, ``age_s`` after this was announced and ``spent`` since then.

        What is used refills evenly until the reset. Infinite if only a response can tell; 0 if it never fits.
        """
        if cost > self.limit:
            return 0.0
        used = self.limit - self.remaining
        if age_s >= self.reset_s or used <= 0:
            return 0.0 if self.limit - spent >= cost else inf
        lacking = cost + spent - self.remaining - used * age_s / self.reset_s
        wait_s = lacking * self.reset_s / used
        return max(0.0, wait_s) if age_s + wait_s <= self.reset_s else inf


class Pacer:
    """Base class. It sends every request immediately."""

    reads_headers: ClassVar[bool] = False
    """Whether it takes in the limits that responses announce, so that each response can change a wait."""
    margin_s: ClassVar[float] = MARGIN_S
    """Time by which a request is sent after its wait in a run, in seconds."""

    def wait_s(self, now_s: float, size: CallSize, rng: Random) -> float:
        """Return how long to hold the next request; 0 to send it, infinity to wait for a response."""
        del now_s, size, rng
        return 0.0

    def send(self, now_s: float, size: CallSize) -> None:
        """Count a request that is sent."""

    def answer(self, sent: SentRequest, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Count the end of a response."""

    def hear(self, sent: SentRequest, now_s: float, limits: Iterable[AnnouncedLimit]) -> None:
        """Take in the limits that a response announced, before it is counted."""
