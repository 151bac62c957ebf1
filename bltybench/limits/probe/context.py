"""What an experiment starts from: the request limit, the documented limits, and the remaining budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.probe.thresholds import CONTEXT, PLAN


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContext:
    """What is known before an experiment begins."""

    fits: tuple[Fit, ...] = ()
    """Remaining candidates for the request limit, the best first."""
    never_refused: bool = False
    """Whether the probe met no request limit."""
    requests_per_min: int | None = None
    """Documented limit, like the two below."""
    tokens_per_min: int | None = None
    concurrency: int | None = None
    requests_left: int = 600
    tokens_left: int = 200_000
    measured_concurrency: int | None = None
    """Measured maximum of requests in flight."""
    expected_period_s: float | None = None
    """Period given by the user, in seconds."""
    quick: bool = False
    """Whether the quick plan measures the request limit, in two periods."""
    latency_s: float = 0.1
    """Median latency of a one-token response, in seconds."""
    second_key: bool = False
    other_model: str | None = None
    with_401: bool = False
    """Whether the experiment may send wrong keys."""

    def with_limit(self, verdict: Verdict, documented_per_min: int | None) -> ProbeContext:
        """Return a copy with the verdict on the request limit."""
        return replace(
            self,
            fits=verdict.consistent,
            never_refused=verdict.status == "never_refused",
            requests_per_min=documented_per_min,
        )

    @property
    def limits(self) -> list[Fit]:
        """The limits of all candidates: of each, one or two."""
        return [limit for fit in self.fits for limit in fit.limits]

    @property
    def fit(self) -> Fit | None:
        """Best candidate for the request limit."""
        return self.fits[0] if self.fits else None

    @property
    def burst(self) -> int:
        """Requests accepted in one burst after ``available_s``: measured, documented, or the budget."""
        if self.fits:
            return min(fit.limits[0].limit_range[0] for fit in self.fits)
        if self.never_refused or self.requests_per_min is None:
            return self.requests_left
        return self.requests_per_min

    @property
    def period_s(self) -> float:
        """Longest possible period of the limit that ends a burst, in seconds; 0 without one."""
        if self.fits:
            return max(fit.limits[0].period_s for fit in self.fits)
        return 0.0 if self.never_refused or self.requests_per_min is None else CONTEXT.usual_period_s

    @property
    def expected_token_period_s(self) -> float:
        """Expected period of a token limit, in seconds."""
        return self.expected_period_s or max([CONTEXT.usual_period_s, *(fit.period_s for fit in self.limits)])

    @property
    def drain_in_flight(self) -> int:
        """Requests in flight that exhaust the request limit before much of it refills.

        There are fewer than a limit on them allows.
        """
        drain_s = CONTEXT.drain_fraction * self.period_s
        needed = self.burst * self.latency_s / drain_s if drain_s else 1.0
        most = max(1, (self.measured_concurrency or PLAN.in_flight[-1] + 1) - 1)
        return min(most, next((count for count in PLAN.in_flight if count >= needed), PLAN.in_flight[-1]))

    def available_s(self, now_s: float, idle_s: float = 0.0) -> float:
        """Return when the whole request limit is available and no window ends soon, if nothing is sent.

        It is at least ``idle_s`` from now, the time that another limit needs.
        """
        if not self.fits:
            return now_s + max(idle_s, 2 * self.period_s)
        at_s = max(now_s + idle_s, *(_reset_s(limit, now_s) for limit in self.limits))
        best = self.fits[0].limits[0]
        if best.edge_s is not None and best.traits.has_recurring_windows:
            edge_s = best.edge_s + CONTEXT.edge_fraction * best.period_s
            at_s = edge_s + math.ceil((at_s - edge_s) / best.period_s) * best.period_s
        return at_s


def _reset_s(fit: Fit, now_s: float) -> float:
    """Return when nothing counts any more that was sent until ``now_s``.

    An error of the period adds up from one window to the next, unless the clock shows the edges.
    """
    if fit.traits.kind == "window" and fit.edge_s is not None:
        error_s = 0.0 if fit.phase == "clock" else fit.precision * (now_s - fit.edge_s)
        if error_s <= CONTEXT.edge_fraction * fit.period_s / 2:
            return fit.edge_s + math.ceil((now_s + error_s - fit.edge_s) / fit.period_s) * fit.period_s
    counter = fit.traits.kind == "counter"
    return now_s + (CONTEXT.idle_periods + counter) * fit.period_s
