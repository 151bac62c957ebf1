"""What an experiment starts from: the limit of requests, what is documented, and what may still be spent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bltybench.limits.fit.select import Fit, Verdict
from bltybench.limits.probe.plan import WIDTHS

IDLE = 1.03
"""Periods after which a limit is free again; one more where the window before counts too."""
DRAIN_SHARE = 0.3
"""The part of a period within which the limit of requests is to be used up."""
USUAL_S = 60.0
"""Over which tokens are mostly counted, where nothing was said of it."""
NEAREST_EDGE = 0.05
"""So much of a period after a window's edge everything is sent that should lie in one window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContext:
    """What is known before an experiment begins."""

    fits: tuple[Fit, ...] = ()
    """Of the limit of requests: what cannot be told apart, the best first."""
    never_refused: bool = False
    """No limit of requests was met."""
    requests_per_min: int | None = None
    """The documented limits."""
    tokens_per_min: int | None = None
    concurrency: int | None = None
    requests_left: int = 600
    tokens_left: int = 200_000
    slots: int | None = None
    """How many may be in flight, where that was found out before."""
    hint_s: float | None = None
    """A period that was named beforehand."""
    latency_s: float = 0.1
    """Of an answer of one token."""
    second_key: bool = False
    other_model: str | None = None
    with_401: bool = False
    """Whether wrong keys may be tried."""

    def with_limit(self, verdict: Verdict, documented_per_min: int | None) -> ProbeContext:
        """Return the same with what was found of the limit of requests."""
        return replace(
            self,
            fits=verdict.consistent,
            never_refused=verdict.status == "never_refused",
            requests_per_min=documented_per_min,
        )

    @property
    def fit(self) -> Fit | None:
        """Return the best fit of the limit of requests."""
        return self.fits[0] if self.fits else None

    @property
    def burst(self) -> int:
        """Return how many requests are let in at once after ``fresh_s``: what is documented if not known."""
        if self.fits:
            return min(each.limit_range[0] for each in self.fits)
        if self.never_refused or self.requests_per_min is None:
            return self.requests_left
        return self.requests_per_min

    @property
    def period_s(self) -> float:
        """Return the longest period that the limit of requests may have; 0 without one."""
        if self.fits:
            return max(each.period_s for each in self.fits)
        return 0.0 if self.never_refused or self.requests_per_min is None else 60.0

    @property
    def tokens_guess_s(self) -> float:
        """Return the period to expect of a limit of tokens: what was named, else no less than is usual."""
        return self.hint_s or max([USUAL_S, *(each.period_s for each in self.fits)])

    @property
    def width(self) -> int:
        """Return how many must be in flight to use up the limit of requests within a part of its period."""
        needed = self.burst * self.latency_s / (DRAIN_SHARE * self.period_s) if self.period_s else 1.0
        return next((each for each in WIDTHS if each >= needed), WIDTHS[-1])

    def fresh_s(self, now_s: float, idle_s: float = 0.0) -> float:
        """Return when the whole limit of requests is free, and no window ends soon, if nothing is sent.

        It is ``idle_s`` later at least: what another limit needs.
        """
        if not self.fits:
            return now_s + max(idle_s, 2 * self.period_s)
        at_s = now_s + idle_s
        for each in self.fits:
            counter = each.family in {"sliding_counter", "first_hit_counter"}
            at_s = max(at_s, now_s + (IDLE + counter) * each.period_s)
        best = self.fits[0]
        if best.edge_s is not None and best.family in {"fixed_window", "sliding_counter"}:
            edge_s = best.edge_s + NEAREST_EDGE * best.period_s
            at_s = edge_s + math.ceil((at_s - edge_s) / best.period_s) * best.period_s
        return at_s
