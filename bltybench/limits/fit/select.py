"""Identify the limiter that fits the observed decisions, with its parameters and a confidence."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product

import numpy as np

from bltybench.limits.fit.bans import describe_starvation, detect_ban, outside_bans, starved_pause_s
from bltybench.limits.fit.estimate import (
    acts_like,
    estimate_fit,
    estimate_queue,
    estimate_waiting_room,
    same_window,
)
from bltybench.limits.fit.evidence import missing_refusals
from bltybench.limits.fit.queueing import QueueTiming, detect_queue, detect_waiting_room
from bltybench.limits.fit.result import ANY_LIMIT_FITS, NO_FAMILY_FITS, Fit, Verdict, covering
from bltybench.limits.fit.scoring import allowed_cost
from bltybench.limits.fit.search import FamilySearch
from bltybench.limits.fit.thresholds import EVIDENCE, SCORING, SELECTION
from bltybench.limits.models.families import (
    FAMILIES,
    INTERVAL_REFILL,
    LEAKY_QUEUE,
    TOKEN_BUCKET,
    WHOLE_TOKEN_BUCKET,
    prose_name,
)
from bltybench.limits.observations.observation import Observation, Observations, most_informative

TOO_FEW_REFILL_PERIODS = (
    f"an interval refill fits, but fewer than {SELECTION.min_refill_periods} of its periods were observed"
)
NO_BUCKET_FITS = "tokens refill about one at a time, but no bucket fits, with fractions of tokens or without"
SIMPLE_CANDIDATES = tuple(
    (name, count_refused)
    for name, family in FAMILIES.items()
    if name not in {INTERVAL_REFILL, LEAKY_QUEUE}
    for count_refused in ((False, True) if family.shows_count_refused else (False,))
)
"""Pairs (family, count_refused) to try first."""


def fit_limiter(
    observed: Sequence[Observation],
    *,
    hints_s: tuple[float, ...] = (),
    candidates: tuple[tuple[str, bool], ...] | None = None,
    probed: bool = True,
) -> Verdict:
    """Return the limiter that fits the observations.

    ``hints_s`` are documented or announced periods, in seconds. ``candidates`` restricts the families, each
    with whether it counts refused requests. ``probed``: a probe chose when to send.
    """
    return _fit(tuple(observed), hints_s, candidates, probed)


# The plan, the experiments, and the findings of a probe fit the same observations.
@lru_cache(SELECTION.remembered)
def _fit(
    observed: tuple[Observation, ...],
    hints_s: tuple[float, ...],
    candidates: tuple[tuple[str, bool], ...] | None,
    probed: bool,
) -> Verdict:
    observations = Observations(observed)
    counts = _, accepted, refused = _counts(observations)
    queue = detect_queue(observed) if counts[0] else None
    if probed and queue is None and (room := detect_waiting_room(observed)) is not None:
        fit = partial(_fit, hints_s=hints_s, probed=probed)
        if (window := estimate_waiting_room(room, counts, fit, candidates)) is not None:
            return window
    if not (accepted and refused):
        return _one_sided(counts, queue)
    if (missing := missing_refusals(refused, probed=probed)) is not None:
        return Verdict("unknown", *counts, reason=missing)
    if queue is not None and (one := estimate_queue(observations, queue)) is not None:
        return Verdict("found", *counts, (one,), (one,), queue.explained / queue.answers, queue=queue)
    if not observations.recoveries:
        pause_s = starved_pause_s(observations, hints_s)
        reason = "no request was accepted after a refusal: the observations end too soon"
        if pause_s is not None:
            reason = describe_starvation(observations)
        return Verdict("unknown", *counts, reason=reason, starved_pause_s=pause_s)
    tried = SIMPLE_CANDIDATES if candidates is None else candidates
    searches, observations = _screen(observed, observations, tried, hints_s)
    _refine_plausible(searches, _chance_cost(observations, SELECTION.chance_fraction))
    best_cost = min((search.cost for search in searches), default=None)
    chance_cost = _chance_cost(observations, SELECTION.refill_chance_fraction)
    needs_refill = (
        best_cost is None
        or len(observations) <= SELECTION.short_run
        or SCORING.hard_weight <= best_cost <= chance_cost
    )
    if (INTERVAL_REFILL, False) in tried or (candidates is None and needs_refill):
        searches.append(_search_refill(searches, observations, best_cost))
    best_cost, allowed = min(search.cost for search in searches), allowed_cost(observations)
    for search in searches:
        if search.cost <= min(best_cost, allowed) + SCORING.far_cost:
            search.try_other_assignments()
            search.try_aligned_periods()
    best_cost = min(search.cost for search in searches)
    fits = [estimate_fit(search, observations, hints_s, best_cost) for search in searches]
    verdict = _compare(fits, counts, observations, allowed_cost(observations, probed=probed))
    return _unless_banned(verdict, observations, probed=probed)


def _one_sided(counts: tuple[int, int, int], queue: QueueTiming | None) -> Verdict:
    """Return the verdict on a run without acceptances or without refusals."""
    requests, accepted, refused = counts
    if not requests:
        return Verdict("nothing_sent", *counts, reason="nothing was sent")
    if refused:
        return Verdict("always_refused", *counts, reason=f"all of {refused} requests were refused")
    return Verdict("never_refused", *counts, reason=f"none of {accepted} requests was refused", queue=queue)


def _counts(observations: Observations) -> tuple[int, int, int]:
    """Return the numbers of requests, acceptances, and refusals."""
    return len(observations), int(np.sum(observations.accepted)), int(np.sum(observations.refused))


def _screen(
    observed: Sequence[Observation],
    observations: Observations,
    tried: Sequence[tuple[str, bool]],
    hints_s: tuple[float, ...],
) -> tuple[list[FamilySearch], Observations]:
    """Return a search per family, and its observations: a part of a long run, if no family fits that part."""

    def start(part: Observations) -> list[FamilySearch]:
        return [
            FamilySearch(family, part, count_refused=count_refused, hints_s=hints_s)
            for family, count_refused in tried
            if family != INTERVAL_REFILL
        ]

    if len(observations) > SELECTION.long_run:
        part = Observations(most_informative(observed, SELECTION.screen_size))
        if part.recoveries and min(_counts(part)[1:]) >= EVIDENCE.min_refusals:
            searches, chance = start(part), _chance_cost(part, SELECTION.chance_fraction)
            if all(search.cost > chance or search.family == WHOLE_TOKEN_BUCKET for search in searches):
                return searches, part
    return start(observations), observations


def _chance_cost(observations: Observations, fraction: float) -> float:
    """Return the cost above which a family fits little better than accepting, or refusing, everything."""
    requests, accepted, refused = _counts(observations)
    if requests <= SELECTION.short_run:
        return math.inf
    return SCORING.hard_weight * fraction * min(accepted, refused)


def _refine_plausible(searches: Sequence[FamilySearch], chance_cost: float) -> None:
    """Refine the families that fit better than chance."""
    plausible = [search for search in searches if search.cost <= chance_cost]
    _refine(plausible)
    _align_first_hits(plausible)
    best_cost = min((search.cost for search in plausible), default=None)
    for search in plausible:
        recurring = FAMILIES[search.family].has_recurring_windows
        if recurring and best_cost and SCORING.hard_weight <= search.cost <= best_cost + SCORING.far_cost:
            search.rescan_near_best()


def _refine(searches: Sequence[FamilySearch], best_cost: int | None = None) -> None:
    """Refine all families but those far from the best on the coarse grid."""
    for search in sorted(searches, key=lambda search: search.cost):
        extra = SELECTION.max_extra + SELECTION.max_extra_per_request * search.size
        if (
            best_cost is None
            or search.cost <= SELECTION.max_cost_ratio * best_cost + SCORING.hard_weight * extra
        ):
            search.refine(best_cost)
        best_cost = search.cost if best_cost is None else min(best_cost, search.cost)


def _align_first_hits(searches: Sequence[FamilySearch]) -> None:
    """Try the windows of good first-hit families for families with a fixed phase."""
    best_cost = min((search.cost for search in searches), default=0)
    for first_hit, other in product(searches, searches):
        if (
            FAMILIES[first_hit.family].aligned == other.family
            and first_hit.count_refused == other.count_refused
            and first_hit.cost <= best_cost + SCORING.far_cost
            and other.cost > first_hit.cost
        ):
            other.try_first_hit_periods(first_hit)
            other.refine(best_cost)


def _search_refill(
    searches: Sequence[FamilySearch], observations: Observations, best_cost: int | None
) -> FamilySearch:
    """Return the refined search for an interval refill, at about the rates that fit a token bucket."""
    bucket = next((search for search in searches if search.family == TOKEN_BUCKET), None)
    scored = (bucket or FamilySearch(TOKEN_BUCKET, observations)).scored
    # The more contradictions the best bucket has, the less its rate means.
    slack = SELECTION.rate_slack * SCORING.hard_weight + min(scored.lowest, SCORING.far_cost)
    periods = scored.grid.period[scored.cost <= scored.lowest + slack]
    factor = SELECTION.rate_factor
    rates_per_s = (1 / (factor * float(periods.max())), factor / float(periods.min()))
    search = FamilySearch(INTERVAL_REFILL, observations, rates_per_s=rates_per_s)
    _refine([search], best_cost)
    if best_cost and 0 < search.cost <= _chance_cost(observations, SELECTION.retry_chance_fraction):
        search.retry_refill()
    return search


def _compare(fits: list[Fit], counts: tuple[int, int, int], part: Observations, allowed: int) -> Verdict:
    """Return the verdict on the fits of all families to ``part`` of a run; ``counts`` are of all of it."""
    ranked = tuple(sorted(fits, key=lambda fit: fit.penalized_cost))
    best = ranked[0]
    ambiguous_cost = best.cost - SCORING.hard_weight * best.contradictions
    if best.cost > allowed:
        _, accepted, refused = _counts(part)
        # Ambiguous decisions of a bucket of whole tokens add up, so they say little about others.
        best = next((fit for fit in ranked if fit.family != WHOLE_TOKEN_BUCKET), best)
        reason = (
            f"{NO_FAMILY_FITS}: {best.contradictions} of {accepted + refused} decisions contradict the best "
            f"({refused} are refusals)"
        )
        if best.cost > 2 * SCORING.hard_weight * best.contradictions:
            reason = ANY_LIMIT_FITS
        is_random = best.contradictions > refused / 2
        return Verdict("unknown", *counts, fits=ranked, reason=reason, is_random=is_random)
    refill_best = best.family == INTERVAL_REFILL
    margin = SELECTION.refill_exclusion_margin if refill_best else SELECTION.exclusion_margin
    close = [fit for fit in ranked if fit.penalized_cost < best.penalized_cost + margin]
    if ambiguous_cost > SELECTION.max_ambiguous_fraction * allowed_cost(part):
        close += [
            fit
            for fit in ranked
            if fit.family != INTERVAL_REFILL
            and fit.contradictions <= best.contradictions + 1
            and fit not in close
        ]
    remaining = close
    simple = [fit for fit in close if fit.family != INTERVAL_REFILL]
    refill = next((fit for fit in close if fit.family == INTERVAL_REFILL), None)
    if refill is not None and (window := same_window(refill, ranked)) is not None:
        remaining = [fit for fit in ranked if fit in simple or fit is window]
    elif refill is not None and simple and acts_like(simple[0], refill):
        remaining = simple
    elif refill is best and refill.limit < SELECTION.min_tokens_per_tick * (refill.ticks or 1):
        return Verdict("unknown", *counts, fits=ranked, reason=NO_BUCKET_FITS)
    consistent = _merge_count_refused(remaining)
    families = list(dict.fromkeys(fit.family for fit in consistent))
    compared = [fit for fit in ranked if fit.family in families or fit not in close]
    confidence = _probability(consistent[0].family, compared)
    min_span_s = SELECTION.min_refill_periods * consistent[0].period_s
    if families[0] == INTERVAL_REFILL and part.span_s < min_span_s:
        return Verdict("ambiguous", *counts, ranked, consistent, confidence, TOO_FEW_REFILL_PERIODS)
    if len(families) == 1:
        return Verdict("found", *counts, ranked, consistent, confidence)
    reason = f"the observations can't distinguish these: {', '.join(map(prose_name, families))}"
    return Verdict("ambiguous", *counts, ranked, consistent, confidence, reason)


def _probability(family: str, fits: Sequence[Fit]) -> float:
    """Return the probability of a family, given equal priors for the families of ``fits``."""
    costs: dict[str, float] = {}
    for fit in fits:
        costs[fit.family] = min(fit.penalized_cost, costs.get(fit.family, math.inf))
    best, unit = min(costs.values()), SCORING.contradiction_cost
    weights = {name: math.pow(SCORING.flip_rate, (cost - best) / unit) for name, cost in costs.items()}
    return weights[family] / sum(weights.values())


def _merge_count_refused(fits: Sequence[Fit]) -> tuple[Fit, ...]:
    """Return one fit per family. If both ways of counting refused requests fit, ``count_refused`` is None."""
    merged: dict[str, Fit] = {}
    for fit in fits:
        twin = merged.setdefault(fit.family, fit)
        if twin.count_refused == fit.count_refused:
            continue
        simpler, other = (fit, twin) if twin.count_refused else (twin, fit)
        merged[fit.family] = replace(
            simpler,
            count_refused=None,
            limit_range=covering([twin.limit_range, fit.limit_range]),
            period_range_s=covering([twin.period_range_s, fit.period_range_s]),
            rate_range_per_min=covering([twin.rates_per_min, fit.rates_per_min]),
            variants=simpler.variants + other.variants,
        )
    return tuple(merged.values())


def _unless_banned(verdict: Verdict, observations: Observations, *, probed: bool) -> Verdict:
    """Report no family if decisions contradict the best one and a ban explains every recovery."""
    contradictions = verdict.fits[0].contradictions
    timing = detect_ban(observations) if contradictions else None
    if timing is None or (verdict.best is not None and timing.restarts):
        return verdict
    token_waits_s = [fit.period_s / fit.limit for fit in verdict.fits if fit.traits.kind == "bucket"]
    longest_wait_s = SELECTION.max_bucket_wait * max(token_waits_s, default=0.0)
    if verdict.best is None and timing.length_range_s[1] <= longest_wait_s:
        return verdict
    reason = f"{NO_FAMILY_FITS}: {contradictions} of {verdict.attempts} decisions contradict the best"
    unknown = replace(verdict, status="unknown", consistent=(), confidence=None, reason=reason)
    candidates = tuple(one for one in SIMPLE_CANDIDATES if not one[1])
    inner = fit_limiter(outside_bans(observations), candidates=candidates, probed=probed)
    ban = inner.after_bans(timing)
    if ban is None:
        return unknown
    return replace(unknown, reason=f"a refusal starts {ban.described()}, which no family does", ban=ban)
