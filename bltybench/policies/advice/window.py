"""What a client sends at most because of one limit."""

from typing import Literal

import msgspec

from bltybench.limits.models import Model, SlidingLog
from bltybench.policies.advice.own_times import Spaced, Turns


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends to one key at most: ``amount`` in any ``period_s`` seconds."""

    counts: Literal["requests", "tokens"]
    amount: int
    more: int = 0
    """Clients, the first ones that share the limit, that have one more."""
    period_s: float
    spaced: bool = False
    """Whether the distance after a call is proportional to its cost instead."""
    turns: int = 1
    """Clients that take turns: number k sends only at multiples of the period plus k/turns of it."""
    by_clock: bool = False
    """Whether the client sends only at these times, also if it is the only one."""

    def model(self, client: int) -> Model:
        """Return a limiter that keeps it for one of the clients that share the server's limit."""
        if self.by_clock:
            return Turns(self.amount, self.period_s, client / self.turns * self.period_s)
        return (Spaced if self.spaced else SlidingLog)(self.amount + (client < self.more), self.period_s)

    def calls_at_once(self, tokens: float) -> int:
        """Return how many calls of this size a client can send in one burst."""
        if self.spaced:
            return 1
        return self.amount if self.counts == "requests" else int(self.amount / tokens)

    @property
    def words(self) -> str:
        """What the client sends at most, in words."""
        noun = self.counts if self.amount > 1 else self.counts.removesuffix("s")
        more = f" (the first {self.more:,} clients: {self.amount + 1:,})" if self.more else ""
        if self.spaced:
            return f"{self.amount:,} {noun} per {self.period_s:g} s without bursts"
        if self.by_clock and self.turns == 1:
            return f"{self.amount:,} {noun} at each multiple of {self.period_s:g} s by the clock"
        turns = f", by turns of the {self.turns:,} clients" if self.turns > 1 else ""
        return f"{self.amount:,} {noun} in any {self.period_s:g} s{more}{turns}"
