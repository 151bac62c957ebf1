"""The result of a fit: the families consistent with the observations, their parameters, and a confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from bltybench.limits.fit.bans import BanTiming
from bltybench.limits.fit.queueing import QueueTiming
from bltybench.limits.fit.thresholds import EVIDENCE, SCORING
from bltybench.limits.models.base import Model
from bltybench.limits.models.composite import Both
from bltybench.limits.models.families import FAMILIES, INTERVAL_REFILL, LimiterFamily
from bltybench.limits.models.leaky_queue import Waiting

Number = TypeVar("Number", int, float)
Phase = Literal["clock", "first_hit", "other"]
Status = Literal["found", "ambiguous", "unknown", "never_refused", "always_refused", "nothing_sent"]

ANY_LIMIT_FITS = "nearly any limit fits, so more observations are needed"
"""``Verdict.reason`` if the decisions hardly contradict any limit."""
NO_FAMILY_FITS = "no family fits"
"""Start of ``Verdict.reason`` if the decisions contradict every family."""
PERIOD_DIGITS = 8
"""Significant digits of a period in files. A run of 10,000 periods then drifts by 0.01% of one."""
PHASE_DECIMALS = 4
"""Decimals of a phase in seconds. No window edge is measured better than to 0.1 ms."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One family with its best parameters."""

    family: str
    limit: int
    """Maximum requests per window, or the burst of a bucket."""
    limit_range: tuple[int, int]
    period_s: float
    """For a bucket: the time to refill it completely."""
    period_range_s: tuple[float, float]
    phase: Phase | None
    """What the windows are aligned to; None if the family has no windows, or if it is unknown."""
    edge_s: float | None
    """Unix time of a window edge near the end of the observations; None if unknown."""
    ticks: int | None
    """For an interval refill: the ticks that refill it completely."""
    count_refused: bool | None
    contradictions: int
    """Decisions that these parameters can't explain."""
    cost: int = field(repr=False)
    """What the search minimizes: weighted contradictions plus ambiguous decisions."""
    phase_share: float = field(default=1.0, repr=False)
    """Fraction of all phases that fit as well at this period; 1 if the family has no phase."""
    free: int = 0
    """For a queue: the requests that it serves immediately before it delays any."""
    seats: int | None = None
    """Requests that can wait until they fit; None if the server delays none."""
    spread: bool = False
    """For a first-hit window: whether it delays requests, so that they are spread out over their window."""
    rate_range_per_min: tuple[float, float] | None = field(default=None, repr=False)
    """Range of the sustained rates that fit as well. None if it is that of the limit and the period."""
    variants: tuple[Fit, ...] = field(default=(), repr=False, compare=False)
    """Other parameters that fit as well, spread over the whole range."""
    also: Fit | None = None
    """A second limit of the server, which sustains a higher rate. A request has to fit both."""
    refusals: int | None = None
    """Of two limits: refusals by this one while the other would have accepted; None of a single limit."""

    @property
    def traits(self) -> LimiterFamily:
        """The properties of the family."""
        return FAMILIES[self.family]

    @property
    def limits(self) -> tuple[Fit, ...]:
        """Each limit that a request has to fit, alone; first the one that accepts less in one burst."""
        if self.also is None:
            return (self,)
        pair = (replace(self, also=None), self.also)
        return tuple(sorted(pair, key=lambda fit: fit.limit_range[0]))

    @property
    def shortest_period_s(self) -> float:
        """The period; of two limits, the shorter one."""
        return min(fit.period_s for fit in self.limits)

    @property
    def penalized_cost(self) -> float:
        """The cost plus a penalty if only a few phases fit, because one of many fits by chance.

        Half of all servers are assumed to align their windows to the clock.
        """
        likelihood = (self.phase_share + (self.phase == "clock")) / 2 if self.phase_share < 1 else 1.0
        return self.cost + SCORING.contradiction_cost * math.log(likelihood) / math.log(SCORING.flip_rate)

    @property
    def rate_per_min(self) -> float:
        """Sustained requests per minute."""
        return self.limit * 60 / self.period_s

    @property
    def rates_per_min(self) -> tuple[float, float]:
        """Range of the sustained rates, in requests per minute."""
        if self.rate_range_per_min is not None:
            return self.rate_range_per_min
        (low, high), (shortest_s, longest_s) = self.limit_range, self.period_range_s
        return low * 60 / longest_s, high * 60 / shortest_s

    @property
    def safe_rate_per_min(self) -> float:
        """Sustained rate that is surely accepted: the lowest of the range, unless it is nearly the same."""
        low, rate = min(self.rates_per_min), self.rate_per_min
        return rate if EVIDENCE.same_rate * low >= rate else low

    @property
    def precision(self) -> float:
        """Half width of the period's range, relative to the period; of two limits, the wider one."""
        own = (self.period_range_s[1] - self.period_range_s[0]) / 2 / self.period_s
        return own if self.also is None else max(own, self.also.precision)

    def written(self) -> Fit:
        """Return the fit with the period as files state it.

        Unix time holds up to 10^10 periods, so a phase is right only with the period it was computed from:
        first the period is rounded, then the phase is computed.
        """
        period_s, *range_s = (
            float(f"{value:.{PERIOD_DIGITS}g}") for value in (self.period_s, *self.period_range_s)
        )
        also = None if self.also is None else self.also.written()
        return replace(self, period_s=period_s, period_range_s=(range_s[0], range_s[1]), also=also)

    def phase_s(self, period_s: float | None = None) -> float | None:
        """Return the phase, in seconds after a multiple of the period in Unix time; None if unknown."""
        if self.edge_s is None:
            return None
        period_s = period_s or self.period_s
        phase_s = round(self.edge_s % period_s, PHASE_DECIMALS)
        return phase_s if phase_s < period_s else 0.0

    def options(self, period_s: float | None = None) -> dict[str, float | bool]:
        """Return the model's arguments other than limit and period."""
        phase_s = self.phase_s(period_s)
        return model_options(
            self.family,
            phase_s=phase_s,
            ticks=self.ticks,
            count_refused=self.count_refused,
            free=self.free,
            spread=self.spread,
        )

    def model(self, period_s: float | None = None) -> Model:
        """Return a new model with these parameters, or with another period, on Unix time."""
        model = self.traits.model(self.limit, period_s or self.period_s, **self.options(period_s))
        if self.seats is not None:
            return Waiting(model, self.seats)
        return model if self.also is None else Both(model, self.also.model())


def model_options(
    family: str,
    *,
    phase_s: float | None,
    ticks: int | None,
    count_refused: bool | None,
    free: int | None,
    spread: bool,
) -> dict[str, float | bool]:
    """Return the options that a family's model takes, except those that are unknown or zero."""
    options = {
        "phase_s": phase_s if FAMILIES[family].has_phase else None,
        "ticks": ticks if family == INTERVAL_REFILL else None,
        "count_refused": count_refused,
        "free": free,
        "spread": spread,
    }
    return {name: value for name, value in options.items() if value}


@dataclass(frozen=True, slots=True)
class Ban(BanTiming):
    """A time in which the server accepts nothing, after a request that exceeded a limit."""

    fits: tuple[Fit, ...]
    """The families that explain the decisions outside bans, best first."""

    def described_limit(self) -> str:
        """Return the limit that starts the ban as a part of a sentence."""
        (least, most), (shortest_s, longest_s) = self.limit_range, self.period_range_s
        limit = f"{least}" if least == most else f"{least} to {most}"
        return f"{limit} requests per {shortest_s:.2g} to {longest_s:.2g} s"

    def options(self) -> dict[str, float | bool]:
        """Return the sandbox's settings for this ban, with the middle of its possible lengths."""
        length_s = float(f"{sum(self.length_range_s) / 2:.{PERIOD_DIGITS}g}")
        return {"ban_s": length_s} | ({"ban_restarts": True} if self.restarts else {})

    @property
    def limit_range(self) -> tuple[int, int]:
        """The limit that starts the ban, in requests, for all families."""
        return covering([fit.limit_range for fit in self.fits])

    @property
    def period_range_s(self) -> tuple[float, float]:
        """Period of that limit, in seconds, for all families."""
        return covering([fit.period_range_s for fit in self.fits])

    @property
    def safe_rate_per_min(self) -> float:
        """Lowest sustained rate of the families, in requests per minute."""
        return min(fit.safe_rate_per_min for fit in self.fits)


@dataclass(frozen=True, slots=True)
class Exhausted:
    """What followed the last acceptance, if only a longer limit than the one that was found explains it."""

    accepted: int
    """Requests accepted before."""
    within_s: float
    """Time that these took, in seconds."""
    refused: int
    """Refusals after the last acceptance that the limit that was found does not explain."""
    lasted_s: float
    """Time from the last acceptance to the last refusal, in seconds."""
    since_s: float = field(repr=False)
    """Unix time of the last acceptance."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the observations imply."""

    status: Status
    attempts: int
    accepted: int
    refused: int
    fits: tuple[Fit, ...] = ()
    """Every family that was tried, best first."""
    consistent: tuple[Fit, ...] = ()
    """The families that the observations can't distinguish, best first."""
    confidence: float | None = None
    """Probability of the best family, given equal priors."""
    reason: str = ""
    """Why no single family is found."""
    queue: QueueTiming | None = None
    """How the server delays requests, if it queues them."""
    starved_pause_s: float | None = None
    """Longest pause between requests while all were refused, in seconds, if retries seem to prolong that."""
    ban: Ban | None = None
    """The ban that explains every recovery, if no family explains the decisions."""
    exhausted: Exhausted | None = None
    """A longer limit that refused all requests at the end. ``fits`` are those before."""
    is_random: bool = False
    """Whether the best family explains less than half of the refusals. Of two limits, one explains half."""

    @property
    def contradicted(self) -> bool:
        """Whether some decisions contradict every family, and no ban explains them."""
        unexplained = self.status == "unknown" and self.reason.startswith(NO_FAMILY_FITS)
        return self.exhausted is not None or (unexplained and self.ban is None)

    @property
    def has_two_limits(self) -> bool:
        """Whether two limits were found."""
        return self.best is not None and self.best.also is not None

    @property
    def explains_waits(self) -> bool:
        """Whether the server delays requests, and this says how."""
        best = self.best
        return self.queue is not None or (best is not None and (best.seats is not None or best.spread))

    @property
    def accepts_more(self) -> bool:
        """Whether the server can be expected to accept more requests soon."""
        is_locked_out = self.starved_pause_s is not None or self.exhausted is not None
        return self.status not in {"always_refused", "nothing_sent"} and not is_locked_out

    @property
    def best(self) -> Fit | None:
        """The best consistent fit, if there is one."""
        return self.consistent[0] if self.consistent else None

    @property
    def slowest(self) -> Fit | None:
        """The consistent fit that accepts least, which a client has to respect."""
        return min(self.consistent, key=lambda fit: fit.safe_rate_per_min, default=None)

    @property
    def families(self) -> tuple[str, ...]:
        """The names of the consistent families, each once."""
        return tuple(dict.fromkeys(fit.family for fit in self.consistent))

    def after_bans(self, timing: BanTiming) -> Ban | None:
        """Return the ban, if this verdict is on the decisions outside it and nothing contradicts that."""
        if not self.consistent or self.fits[0].contradictions:
            return None
        return Ban(timing.length_range_s, timing.restarts, self.consistent)


def covering(ranges: Sequence[tuple[Number, Number]]) -> tuple[Number, Number]:
    """Return the smallest range that covers all of these."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)
