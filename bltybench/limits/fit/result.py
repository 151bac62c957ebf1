"""What is concluded: the families that explain what was seen, their parameters, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bltybench.limits.fit.grid import PHASED
from bltybench.limits.fit.queueing import Delayed
from bltybench.limits.models import FAMILIES
from bltybench.limits.models.base import Model

Phase = Literal["clock", "first_hit", "other"]
Status = Literal["found", "ambiguous", "unknown", "never_refused", "always_refused", "nothing_sent"]


@dataclass(frozen=True, slots=True)
class Fit:
    """One family with the parameters that suit it best."""

    family: str
    limit: int
    """Most at a time: per window, or the burst of a bucket."""
    limit_range: tuple[int, int]
    period_s: float
    """Of a bucket: the time to fill it from empty."""
    period_range_s: tuple[float, float]
    phase: Phase | None
    """What windows are aligned to; None where the family has none, or it cannot be told."""
    edge_s: float | None
    """Unix time of one of the edges between windows, late in what was seen; None where it is not known."""
    ticks: int | None
    """Of a refill in lumps: how many fill it from empty."""
    count_refused: bool | None
    contradictions: int
    """Decisions that these parameters do not explain."""
    cost: int = field(repr=False)
    """What the search minimises: contradictions, and doubtful decisions."""
    phase_share: float = field(default=1.0, repr=False)
    """Share of all phases that would explain as much at this period; 1 where the family has none."""
    free: int = 0
    """Of a queue: how many it serves at once before the others wait."""
    variants: tuple[Fit, ...] = field(default=(), repr=False, compare=False)
    """Other parameters that explain as much, over all that are left open."""

    @property
    def rate_per_min(self) -> float:
        """Return how many requests a minute it lets through in the long run."""
        return self.limit * 60 / self.period_s

    @property
    def precision(self) -> float:
        """Return the half width of the period's range over the period."""
        return (self.period_range_s[1] - self.period_range_s[0]) / 2 / self.period_s

    def phase_s(self, period_s: float | None = None) -> float | None:
        """Return where windows begin, in seconds after a whole period of Unix time; None where not known."""
        if self.edge_s is None:
            return None
        return (
            0.0 if self.phase == "clock" and period_s is None else self.edge_s % (period_s or self.period_s)
        )

    def options(self, period_s: float | None = None) -> dict[str, float | bool]:
        """Return what a model of this family needs to be told besides limit and period."""
        options: dict[str, float | bool] = {}
        phase_s = self.phase_s(period_s)
        if self.family in PHASED and phase_s:
            options["phase_s"] = round(phase_s, 4)
        if self.family == "interval_refill" and self.ticks is not None:
            options["ticks"] = self.ticks
        if self.count_refused:
            options["count_refused"] = True
        if self.free:
            options["free"] = self.free
        return options

    def model(self, period_s: float | None = None) -> Model:
        """Return a model with these parameters, or another period, on Unix time."""
        return FAMILIES[self.family](self.limit, period_s or self.period_s, **self.options(period_s))


VAGUE = "nearly any limit explains it, so too little was seen"
"""The reason where decisions hardly contradict anything."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the sights imply."""

    status: Status
    attempts: int
    accepted: int
    refused: int
    fits: tuple[Fit, ...] = ()
    """Every family that was tried, the best first."""
    consistent: tuple[Fit, ...] = ()
    """Those that cannot be told apart by what was seen, the best first."""
    confidence: float | None = None
    """Of the first of them against all others, where every family was as likely before."""
    reason: str = ""
    """Why it cannot be told, where it cannot."""
    delayed: Delayed | None = None
    """How it lets requests wait their turn, where it does."""

    @property
    def best(self) -> Fit | None:
        """Return the fit that explains most, if any explains enough."""
        return self.consistent[0] if self.consistent else None

    @property
    def families(self) -> tuple[str, ...]:
        """Return the names of the families that are left, each once."""
        return tuple(dict.fromkeys(fit.family for fit in self.consistent))
