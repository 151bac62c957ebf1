"""From what was seen to what limits: the families that explain it, their parameters, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from bltybench.limits.fit.bans import detect_ban
from bltybench.limits.fit.estimate import best_fit, queue_fit
from bltybench.limits.fit.grid import DRIFTING
from bltybench.limits.fit.queueing import detect_queue
from bltybench.limits.fit.result import ANY_LIMIT_FITS, Fit, Verdict
from bltybench.limits.fit.scoring import BUCKETS, FAR, FLIP_RATE, HARD, allowed
from bltybench.limits.fit.search import FamilySearch
from bltybench.limits.observations.observation import Observation, Observations, most_informative

TELLING = HARD + 1
"""So much less cost makes a family likelier by one over FLIP_RATE: a contradiction fewer does."""
MARGIN = 1.5 * TELLING
"""By so much others must be left behind for a family to be named: a thousand times less likely."""
REFILL_TELLING = 3 * TELLING
LUMPS_SEEN = 5
"""Of a refill in lumps, so many periods must be seen: its four parameters suit much that is shorter."""
TOO_FEW_REFILL_PERIODS = (
    f"a refill in lumps would explain it, but fewer than {LUMPS_SEEN} of its periods were seen"
)
ONE_LUMP = 1.5
"""Lumps of less come back one at a time: as from a bucket, which must explain it too."""
NO_BUCKET = (
    "about one request at a time comes back, as from a bucket, but no bucket explains it: some forget what "
    "had come back in part, whenever they let one in"
)
BUCKET_WAITS = 1.5
"""Of the time in which a bucket gives one back: a ban that is no longer is that."""
FEW = 250
"""Up to so many requests a refill in lumps is tried in any case; else where nothing simpler explains all."""
FOLLOWING = {("first_hit_window", "fixed_window"), ("first_hit_counter", "sliding_counter")}
"""Windows that begin with the first request, and those that may only have happened to."""
DOUBTFUL = 0.3
"""Share of the cost that is allowed, from which on doubts alone do not tell families apart."""
CHANCE = 0.6
"""A family that contradicts such a share of the rarer decisions on the coarse grid explains nothing."""
LUMPY = 0.9
"""The same before a refill in lumps is tried: to simpler families its lumps look much like chance, which
itself costs 1 and more."""
LONG, FIRST_LOOK = 600, 300
"""Of more than so many requests, a stretch of so many is looked at first: chance soon shows."""
HOPELESS = 2
HOPELESS_BY = 3
HOPELESS_SHARE = 1 / 16
"""A family is not looked at closely where its cost on the coarse grid is so many times the best, and so many
contradictions more, and so many for each request: a closer look takes a few away."""
RATE_SLACK = 2
RATE_FACTOR = 1.3
"""Lumps may come at a rate so much off those of buckets that contradict little more than the best."""
SAME_RATE = 1.1
"""Rates that are so much off may be the same: a lump more or less was seen."""
LUMPS = "interval_refill"
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


def fit_limiter(
    seen: Sequence[Observation],
    *,
    hints_s: tuple[float, ...] = (),
    candidates: Sequence[tuple[str, bool]] | None = None,
) -> Verdict:
    """Find the limiter that explains what was seen; ``hints_s`` are periods that are documented or announced.

    ``candidates`` leaves only these families (and ways of counting refusals) to choose from.
    """
    sights = Observations(seen)
    counts = _, accepted, refused = _counts(sights)
    if not len(sights):
        return Verdict("nothing_sent", *counts, reason="nothing was sent")
    held = detect_queue(seen)
    if not refused:
        reason = f"none of {accepted} requests was refused"
        return Verdict("never_refused", *counts, reason=reason, queue=held)
    if not accepted:
        return Verdict("always_refused", *counts, reason=f"all of {refused} requests were refused")
    if held is not None and (leaky := queue_fit(sights, held)) is not None:
        return Verdict("found", *counts, (leaky,), (leaky,), held.explained / held.answers, queue=held)
    if not sights.recoveries:
        return Verdict("unknown", *counts, reason="nothing was accepted after a refusal: it ended too soon")
    tried = SIMPLE if candidates is None else candidates
    searches, sights = _first_look(seen, sights, tried, hints_s)
    _look_closely(searches, _chance(sights))
    least = min((each.cost for each in searches), default=None)
    alone = candidates is None and (
        len(sights) <= FEW or least is None or HARD <= least <= _chance(sights, LUMPY)
    )
    if alone or (LUMPS, False) in tried:
        searches.append(_lumps(searches, sights, least))
    span_s = float(sights.hi[-1] - sights.lo[0])
    _read_otherwise(searches)
    least = min(each.cost for each in searches)
    fits = [best_fit(each, sights, hints_s, least) for each in searches]
    return _unless_banned(_compared(fits, _counts(sights), allowed(len(sights)), span_s), sights)


def _first_look(
    seen: Sequence[Observation],
    sights: Observations,
    tried: Sequence[tuple[str, bool]],
    hints_s: tuple[float, ...],
) -> tuple[list[FamilySearch], Observations]:
    """Return a search for each family on its coarse grid, and what they look at: of a long run a part, where
    nothing explains that."""
    part = Observations(most_informative(seen, FIRST_LOOK)) if len(sights) > LONG else sights
    if part is not sights and part.recoveries:
        searches = _searches(tried, part, hints_s)
        if not any(each.cost <= _chance(part) for each in searches):
            return searches, part  # what does not explain a part does not explain all
    return _searches(tried, sights, hints_s), sights


def _look_closely(searches: Sequence[FamilySearch], chance: float) -> None:
    """Refine what explains more than chance does."""
    searched = [each for each in searches if each.cost <= chance]
    _refine(searched)
    _follow(searched)
    least = min((each.cost for each in searched), default=None)
    for each in searched:
        if each.family in DRIFTING and least and HARD <= each.cost <= least + FAR:
            each.look_beside()


def _lumps(searches: Sequence[FamilySearch], sights: Observations, least: int | None) -> FamilySearch:
    """Return the search for a refill in lumps, at about the rates that suit a bucket."""
    buckets = [each for each in searches if each.family == "token_bucket"]
    found = FamilySearch(LUMPS, sights, rates=_rates(*(buckets or [FamilySearch("token_bucket", sights)])))
    _refine([found], least)
    if found.cost and least:
        found.share_out()
    return found


def _unless_banned(verdict: Verdict, sights: Observations) -> Verdict:
    """Name no family that something contradicts where a ban explains when refusals ended."""
    contradicted = verdict.fits[0].contradictions
    ban = detect_ban(sights) if contradicted else None
    if ban is None:
        return verdict
    gives_back_s = [each.period_s / each.limit for each in verdict.fits if each.family in BUCKETS]
    if verdict.best is None and ban[1] <= BUCKET_WAITS * max(gives_back_s, default=0.0):
        return verdict
    reason = (
        f"who is refused seems to be banned for {ban[0]:.3g} to {ban[1]:.3g} s, and no family does that: "
        f"{contradicted} of {verdict.attempts} decisions contradict the best"
    )
    return replace(verdict, status="unknown", consistent=(), confidence=None, reason=reason)


def _searches(
    tried: Sequence[tuple[str, bool]], sights: Observations, hints_s: tuple[float, ...]
) -> list[FamilySearch]:
    return [
        FamilySearch(family, sights, count_refused=counting, hints_s=hints_s)
        for family, counting in tried
        if family != LUMPS
    ]


def _counts(sights: Observations) -> tuple[int, int, int]:
    """Return how many were seen, accepted and refused."""
    return len(sights), int(np.sum(sights.accepted)), int(np.sum(sights.refused))


def _chance(sights: Observations, share: float = CHANCE) -> float:
    """Return the cost from which on it is chance: who refuses nothing, or all, contradicts little more."""
    seen, accepted, refused = _counts(sights)
    return HARD * share * min(accepted, refused) if seen > FEW else math.inf


def _refine(searches: Sequence[FamilySearch], least: int | None = None) -> None:
    """Look closely at all but those that are far from the best even on the coarse grid."""
    for each in sorted(searches, key=lambda each: each.cost):
        if least is None or each.cost <= HOPELESS * least + HARD * (HOPELESS_BY + HOPELESS_SHARE * each.size):
            each.refine(least)
        least = each.cost if least is None else min(least, each.cost)


def _follow(searches: Sequence[FamilySearch]) -> None:
    """Give windows of any phase the chance to lie where those lie that begin with the first request."""
    least = min((each.cost for each in searches), default=0)
    for one, other in product(searches, searches):
        pair = (one.family, other.family)
        near = one.cost <= least + FAR and other.cost > one.cost
        if pair in FOLLOWING and one.count_refused == other.count_refused and near:
            other.follow(one)
            other.refine(least)


def _read_otherwise(searches: Sequence[FamilySearch]) -> None:
    """Let what may come near be right with lost answers that went otherwise, unless nothing explains it."""
    least = min(each.cost for each in searches)
    for each in searches:
        if each.cost <= min(least, allowed(each.size)) + FAR:
            each.read_otherwise()


def _rates(buckets: FamilySearch) -> tuple[float, float]:
    """Return between which rates a refill lies: those that suit a bucket, and some more."""
    found = buckets.found
    least = int(found.cost.min())
    # The more contradicts the best bucket, the less its rate tells.
    good = found.grid.period[found.cost <= least + RATE_SLACK * HARD + min(least, FAR)]
    return 1 / (RATE_FACTOR * float(good.max())), RATE_FACTOR / float(good.min())


def _compared(fits: list[Fit], counts: tuple[int, int, int], bound: int, span_s: float) -> Verdict:
    ranked = tuple(sorted(fits, key=_weighed))
    least = _weighed(ranked[0])
    if ranked[0].cost > bound:
        against = ranked[0].contradictions
        reason = f"no family explains it: {against} of {counts[0]} decisions contradict the best"
        doubts = ranked[0].cost - HARD * against
        return Verdict(
            "unknown", *counts, fits=ranked, reason=ANY_LIMIT_FITS if doubts > HARD * against else reason
        )
    # A refill in lumps has a parameter more than the others, and must be better by more.
    margin = REFILL_TELLING if ranked[0].family == LUMPS else MARGIN
    left = [each for each in ranked if _weighed(each) < least + margin]
    if ranked[0].cost - HARD * ranked[0].contradictions > DOUBTFUL * bound:
        # With so much doubt about times, only contradictions tell.
        left += [each for each in ranked if each not in left and _contradicts_no_more(each, ranked[0])]
    close = tuple(left)
    simple = [each for each in left if each.family != LUMPS]
    lumps = next((each for each in left if each.family == LUMPS), None)
    if lumps is not None and simple and _simpler(simple[0], lumps):
        left = simple
    elif lumps is ranked[0] and lumps.limit < ONE_LUMP * (lumps.ticks or 1):
        return Verdict("unknown", *counts, fits=ranked, reason=NO_BUCKET)
    merged = _merged(left)
    names = {each.family for each in merged}
    weights: dict[str, float] = {}
    for each in ranked:
        if each.family not in names and each in close:
            continue  # set aside above
        weight = FLIP_RATE ** ((_weighed(each) - least) / TELLING)
        weights[each.family] = max(weight, weights.get(each.family, 0.0))
    confidence = weights[merged[0].family] / sum(weights.values())
    if merged[0].family == LUMPS and span_s < LUMPS_SEEN * merged[0].period_s:
        return Verdict("ambiguous", *counts, ranked, merged, confidence, TOO_FEW_REFILL_PERIODS)
    if len(names) == 1:
        return Verdict("found", *counts, ranked, merged, confidence)
    shown = ", ".join(dict.fromkeys(each.family.replace("_", " ") for each in merged))
    return Verdict(
        "ambiguous", *counts, ranked, merged, confidence, f"these cannot be told apart here: {shown}"
    )


def _simpler(each: Fit, lumps: Fit) -> bool:
    """Return whether a simpler name is enough: lumps of one are a bucket, and one lump of all is a window.

    What lets through more or less in the long run is something else than these lumps.
    """
    low, high = each.limit_range[0] / each.period_range_s[1], each.limit_range[1] / each.period_range_s[0]
    same = low / SAME_RATE <= lumps.limit / lumps.period_s <= high * SAME_RATE
    return each.family in {"token_bucket", "fixed_window"} and each.cost <= lumps.cost + HARD // 2 and same


def _contradicts_no_more(each: Fit, best: Fit) -> bool:
    return each.family != LUMPS and each.contradictions <= best.contradictions + 1


def _weighed(each: Fit) -> float:
    """Return its cost, and what it owes to a phase that was chosen to suit: many would have been possible.

    Half of all servers are taken to align their windows to the clock.
    """
    likely = (each.phase_share + (each.phase == "clock")) / 2 if each.phase_share < 1 else 1.0
    return each.cost + TELLING * math.log(likely) / math.log(FLIP_RATE)


def _merged(left: list[Fit]) -> tuple[Fit, ...]:
    """Return each family once; where both ways of counting refusals explain it, that is not known."""
    merged: list[Fit] = []
    for each in left:
        twin = next((i for i, other in enumerate(merged) if other.family == each.family), None)
        if twin is None:
            merged.append(each)
        elif merged[twin].count_refused != each.count_refused:
            merged[twin] = _joined(merged[twin], each)
    return tuple(merged)


def _joined(one: Fit, two: Fit) -> Fit:
    """Return one fit for both ways of counting refusals, with all that either leaves open."""
    simpler, other = (two, one) if one.count_refused else (one, two)
    return replace(
        simpler,
        count_refused=None,
        limit_range=(
            min(one.limit_range[0], two.limit_range[0]),
            max(one.limit_range[1], two.limit_range[1]),
        ),
        period_range_s=(
            min(one.period_range_s[0], two.period_range_s[0]),
            max(one.period_range_s[1], two.period_range_s[1]),
        ),
        variants=simpler.variants + other.variants,
    )
