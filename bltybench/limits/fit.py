"""From what was seen to what limits: the families that explain it, their parameters, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from bltybench.limits import FAMILIES
from bltybench.limits.base import Model
from bltybench.limits.search import HARD, NATURAL_S, PHASED, Found, Grid, search
from bltybench.limits.sights import Ints, Sight, Sights

FLIP_RATE = 0.01
"""Share of decisions that may contradict the true model: clocks, several nodes, other traffic."""
TELLING = HARD + 1
"""A family is told from another where it has a contradiction fewer."""
REFILL_TELLING = 3 * TELLING
FEW = 250
"""Up to so many requests a refill in lumps is tried in any case; else where nothing simpler explains all."""
HOPELESS = 4
"""A family is not looked at closely where its cost on a coarse grid is so many times the best."""
CLOCK_SLACK_S = 0.25
"""How far the server's clock and this one may be apart where windows are called aligned to the clock."""
PRECISE = 0.03
"""Half width of a period's range, relative, within which it is rounded to what people choose."""

Phase = Literal["clock", "first_hit", "other"]
Status = Literal["found", "ambiguous", "unknown", "never_refused", "always_refused", "nothing_sent"]

SIMPLE = (
    ("fixed_window", False),
    ("first_hit_window", False),
    ("sliding_log", False),
    ("sliding_log", True),
    ("sliding_counter", False),
    ("sliding_counter", True),
    ("first_hit_counter", False),
    ("first_hit_counter", True),
    ("token_bucket", False),
)
"""Families (and whether refusals count) that are tried first. Whether a fixed window counts what it refuses
cannot be seen: it is full already."""


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
        return options

    def model(self, period_s: float | None = None) -> Model:
        """Return a model with these parameters, or another period, on Unix time."""
        return FAMILIES[self.family](self.limit, period_s or self.period_s, **self.options(period_s))


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

    @property
    def best(self) -> Fit | None:
        """Return the fit that explains most, if any explains enough."""
        return self.consistent[0] if self.consistent else None

    @property
    def families(self) -> tuple[str, ...]:
        """Return the names of the families that are left, each once."""
        return tuple(dict.fromkeys(fit.family for fit in self.consistent))


def fit(
    seen: Sequence[Sight],
    *,
    hints_s: tuple[float, ...] = (),
    among: Sequence[tuple[str, bool]] | None = None,
    believed: tuple[int, float] | None = None,
) -> Verdict:
    """Find the limiter that explains what was seen; ``hints_s`` are periods that are documented or announced.

    ``among`` leaves only these families (and ways of counting refusals) to choose from; ``believed`` is a
    limit and a period: of several families that explain all, those are preferred for which they hold.
    """
    sights = Sights(seen)
    accepted, refused = int(np.sum(sights.accepted)), int(np.sum(sights.refused))
    counts = (len(sights), accepted, refused)
    if not len(sights):
        return Verdict("nothing_sent", *counts, reason="nothing was sent")
    if not refused:
        return Verdict("never_refused", *counts, reason=f"none of {accepted} requests was refused")
    if not accepted:
        return Verdict("always_refused", *counts, reason=f"all of {refused} requests were refused")
    if not sights.recoveries:
        return Verdict("unknown", *counts, reason="nothing was accepted after a refusal: it ended too soon")
    tried = SIMPLE if among is None else among
    fits: list[Fit] = []
    for family, counting in tried:
        hopeless = (
            HOPELESS * min((each.cost for each in fits), default=len(sights)) + 4 * HARD * len(sights) // 10
        )
        fits.append(one(family, sights, count_refused=counting, hints_s=hints_s, give_up=hopeless))
    allowed = HARD * (1 + math.ceil(FLIP_RATE * len(sights)))
    if among is None and (len(sights) <= FEW or min(each.cost for each in fits) >= HARD):
        fits.append(one("interval_refill", sights, hints_s=hints_s))
    return _compared(fits, counts, allowed, believed)


def _compared(
    fits: list[Fit], counts: tuple[int, int, int], allowed: int, believed: tuple[int, float] | None
) -> Verdict:
    ranked = tuple(sorted(fits, key=lambda each: each.cost))
    least = ranked[0].cost
    if least > allowed:
        return Verdict(
            "unknown",
            *counts,
            fits=ranked,
            reason="no family explains it: "
            f"{ranked[0].contradictions} of {counts[0]} decisions contradict the best",
        )
    # A refill in lumps has a parameter more than the others, and must be better by more.
    margin = REFILL_TELLING if ranked[0].family == "interval_refill" else TELLING
    left = [each for each in ranked if each.cost < least + margin and each.cost <= allowed]
    close = tuple(left)
    if believed is not None:
        left = [each for each in left if _holds(each, *believed)] or left
    if {"token_bucket", "fixed_window"} & {each.family for each in left}:
        # Lumps of one are a bucket, and one lump of all is a window: the simpler name is enough.
        simple = [each for each in left if each.family != "interval_refill"]
        left = simple if simple[0].cost < least + TELLING else left
    merged = _merged(left)
    names = {each.family for each in merged}
    weights: dict[str, float] = {}
    for each in ranked:
        if each.family not in names and each in close:
            continue  # set aside above
        weight = FLIP_RATE ** ((each.cost - least) / (HARD + 1))
        weights[each.family] = max(weight, weights.get(each.family, 0.0))
    confidence = weights[merged[0].family] / sum(weights.values())
    if len(names) == 1:
        return Verdict("found", *counts, ranked, merged, confidence)
    shown = ", ".join(dict.fromkeys(each.family.replace("_", " ") for each in merged))
    return Verdict(
        "ambiguous", *counts, ranked, merged, confidence, f"these cannot be told apart here: {shown}"
    )


def _holds(each: Fit, limit: int, period_s: float) -> bool:
    """Say whether a fit has this limit and period, or for a bucket this rate, as far as is known."""
    if each.family == "token_bucket":
        period_s *= each.limit / limit
    elif not each.limit_range[0] <= limit <= each.limit_range[1]:
        return False
    return 0.98 * each.period_range_s[0] <= period_s <= 1.02 * each.period_range_s[1]


def _merged(left: list[Fit]) -> tuple[Fit, ...]:
    """Return each family once; where both ways of counting refusals explain it, that is not known."""
    merged: list[Fit] = []
    for each in left:
        twin = next((i for i, other in enumerate(merged) if other.family == each.family), None)
        if twin is None:
            merged.append(each)
        elif merged[twin].count_refused != each.count_refused:
            simpler = merged[twin] if not merged[twin].count_refused else each
            merged[twin] = replace(simpler, count_refused=None)
    return tuple(merged)


def one(
    family: str,
    sights: Sights,
    *,
    count_refused: bool = False,
    hints_s: tuple[float, ...] = (),
    give_up: int | None = None,
) -> Fit:
    """Return the best fit of one family. There must be a recovery in ``sights``."""
    found = search(family, sights, count_refused=count_refused, hints_s=hints_s, give_up=give_up)
    least = int(found.cost.min())
    chosen = np.flatnonzero(found.cost == least)
    periods = found.grid.period[chosen]
    middle = _representative(
        found, chosen, hints_s if family not in {"token_bucket", "interval_refill"} else ()
    )
    limit = int(found.limit_least[middle])
    limits = (int(found.limit_least[chosen].min()), int(found.limit_most[chosen].max()))
    period, period_range = float(found.grid.period[middle]), (float(periods.min()), float(periods.max()))
    ticks = None
    if family == "token_bucket":
        period, period_range = period * limit, (period_range[0] * limit, period_range[1] * limit)
    elif family == "interval_refill":
        lump = float(found.grid.lump[middle])
        ticks = max(1, round(limit / lump))
        period, period_range = period * ticks, (period_range[0] * ticks, period_range[1] * ticks)
    rounded = _rounded(period, period_range, hints_s)
    raw = rounded / (ticks or 1)
    alike = chosen[found.limit_least[chosen] == limit]
    near = alike[np.abs(found.grid.period[alike] - raw) <= 0.001 * raw]
    phase, edge_s = _phase(family, sights, found.grid.take(near if len(near) else np.array([middle])), raw)
    return Fit(
        family=family,
        limit=limit,
        limit_range=limits,
        period_s=rounded,
        period_range_s=period_range,
        phase=phase,
        edge_s=edge_s,
        ticks=ticks,
        count_refused=None if family in {"fixed_window", "first_hit_window"} else count_refused,
        contradictions=int(found.contradictions[middle]),
        cost=least,
    )


def _representative(found: Found, chosen: Ints, hints_s: tuple[float, ...]) -> int:
    """Return the candidate in the middle of the best: at the period that is rounded to, if there is one."""
    periods = found.grid.period[chosen]
    wanted = _rounded(0.0, (float(periods.min()), float(periods.max())), hints_s)
    near = chosen[np.abs(periods - wanted) <= 0.001 * wanted] if wanted else chosen[:0]
    tight = near if len(near) else chosen
    limits = found.limit_least[tight]
    values, counts = np.unique(limits, return_counts=True)
    same = tight[limits == values[counts.argmax()]]
    centre = (found.grid.period[same].min() + found.grid.period[same].max()) / 2
    return int(same[np.abs(found.grid.period[same] - centre).argmin()])


def _rounded(period: float, bounds: tuple[float, float], hints_s: tuple[float, ...]) -> float:
    middle = (bounds[0] + bounds[1]) / 2
    for hint in hints_s:
        if bounds[0] <= hint <= bounds[1]:
            return hint
    if (bounds[1] - bounds[0]) / 2 <= PRECISE * middle:
        slack = 0.002 * middle
        near = [each for each in NATURAL_S if bounds[0] - slack <= each <= bounds[1] + slack]
        if near:
            return float(near[-1])
    return period


def _phase(family: str, sights: Sights, near: Grid, period_s: float) -> tuple[Phase | None, float | None]:
    """Return what the windows are aligned to, and an edge of theirs."""
    if family in {"first_hit_window", "first_hit_counter"}:
        return "first_hit", None
    if family not in PHASED:
        return None, None
    # An edge late in the data: an error of the period adds up over many windows.
    periods, phases = near.period, near.phase
    edges = phases + np.round((sights.hi[-1] - phases) / periods) * periods
    turn = 2 * np.pi * np.mod(edges - edges[0], period_s) / period_s
    centre = float(np.angle(np.mean(np.exp(1j * turn))))
    off = np.angle(np.exp(1j * (turn - centre)))
    if float(off.max() - off.min()) > np.pi:
        return None, None
    edge_s = sights.origin_s + float(edges[0]) + centre / (2 * np.pi) * period_s
    # Against the clock only where the period is known exactly: Unix time holds very many of them.
    slack_s = min(CLOCK_SLACK_S, 0.05 * period_s) + 0.01 * period_s
    least, most = (float(each) / (2 * np.pi) * period_s for each in (off.min(), off.max()))
    past_s = (edge_s + period_s / 2) % period_s - period_s / 2
    if period_s in NATURAL_S and past_s + least - slack_s <= 0 <= past_s + most + slack_s:
        return "clock", edge_s - past_s
    return "other", edge_s
