"""Identify the limiter, or two limits at once if no single one fits the observed decisions."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np

from bltybench.limits.fit.result import Exhausted, Fit, Verdict
from bltybench.limits.fit.scoring import allowed_cost
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.fit.thresholds import SELECTION
from bltybench.limits.models.families import with_article
from bltybench.limits.observations.observation import Bools, Observation, Observations
from bltybench.limits.pairs.one_sided import FAMILIES_OF_PAIRS, OneSided, explained_by, one_sided
from bltybench.limits.pairs.thresholds import PAIRS

CANDIDATES = tuple((family, False) for family in FAMILIES_OF_PAIRS)
"""The families of each limit. A limit that counts refused requests depends on the other one's refusals."""
NOTHING = Verdict("nothing_sent", 0, 0, 0)
"""The verdict on one of two limits if it was not fitted."""


def fit_limits(
    observed: Sequence[Observation],
    *,
    hints_s: tuple[float, ...] = (),
    candidates: tuple[tuple[str, bool], ...] | None = None,
    probed: bool = True,
) -> Verdict:
    """Return the limiter that fits the observations (``fit_limiter``), or two limits if none does.

    Two limits are one fit, whose ``also`` is the limit that sustains the higher rate.
    """
    return _fit(tuple(observed), hints_s, candidates, probed)


@lru_cache(SELECTION.remembered)
def _fit(
    observed: tuple[Observation, ...],
    hints_s: tuple[float, ...],
    candidates: tuple[tuple[str, bool], ...] | None,
    probed: bool,
) -> Verdict:
    single = fit_limiter(observed, hints_s=hints_s, candidates=candidates, probed=probed)
    if candidates is not None or not single.contradicted:
        return single
    ordered = sorted(observed, key=lambda observation: observation.sent_s)
    observations = Observations(ordered)
    short = _before_exhaustion(single, ordered, observations, hints_s, probed=probed)
    if short is not None:
        return short
    # Unlike a probe, an ordinary run seldom exhausts both.
    if not probed and single.is_random:
        return single
    tried: set[bytes] = set()
    for explained in (*_starts(observations, hints_s), *_starts_of(single, observations)):
        first, second = _alternating(ordered, observations, explained, hints_s, tried, probed=probed)
        pairs = [_joint(*fits, observations) for fits in product(first.consistent, second.consistent)]
        fits = tuple(pair for pair in pairs if pair is not None)
        # All combinations have to fit, because each limit was fitted given only the best of the other.
        if fits and len(fits) == len(pairs) and fits[0].cost + PAIRS.margin <= single.fits[0].cost:
            return _verdict(single, first, second, fits)
    return single


def _before_exhaustion(
    single: Verdict,
    ordered: Sequence[Observation],
    observations: Observations,
    hints_s: tuple[float, ...],
    *,
    probed: bool,
) -> Verdict | None:
    """Return the limit that fits until the last acceptance, if it does not explain the refusals after it.

    A longer limit is exhausted then. Nothing shows its period until it refills.
    """
    accepted = np.flatnonzero(observations.accepted)
    end = int(accepted[-1]) + 1
    if observations.refused[end:].sum() < PAIRS.min_refusals:
        return None
    before = fit_limiter(ordered[:end], hints_s=hints_s, probed=probed)
    if before.best is None or before.best.count_refused:
        return None
    # Parameters that fit as well must not explain these refusals either.
    fits = [variant for fit in before.consistent for variant in (fit, *fit.variants)]
    explained = np.logical_or.reduce([explained_by(fit, observations) for fit in fits])
    unexplained = np.flatnonzero(observations.refused & ~explained)
    unexplained = unexplained[unexplained >= end]
    lasted_s = float(observations.lo[-1] - observations.hi[end - 1])
    min_lasted_s = PAIRS.min_exhausted_periods * max(fit.period_s for fit in fits)
    if len(unexplained) < PAIRS.min_refusals or lasted_s < min_lasted_s:
        return None
    exhausted = Exhausted(
        accepted=single.accepted,
        within_s=float(observations.hi[end - 1] - observations.lo[accepted[0]]),
        refused=len(unexplained),
        lasted_s=lasted_s,
        since_s=observations.origin_s + float(observations.hi[end - 1]),
    )
    return replace(
        before,
        attempts=single.attempts,
        accepted=single.accepted,
        refused=single.refused,
        exhausted=exhausted,
    )


def _verdict(single: Verdict, first: Verdict, second: Verdict, fits: tuple[Fit, ...]) -> Verdict:
    """Return the verdict on two limits, whose combinations are ``fits``."""
    confidence = (first.confidence or 0.0) * (second.confidence or 0.0)
    both = replace(single, status="found", consistent=fits, confidence=confidence, reason="")
    open_reason = first.reason or second.reason
    if not open_reason:
        return both
    one, other = (" or ".join(map(with_article, verdict.families)) for verdict in (first, second))
    reason = f"one of two limits is {one}, the other {other}: {open_reason}"
    return replace(both, status="ambiguous", reason=reason)


def _starts(observations: Observations, hints_s: tuple[float, ...]) -> list[Bools]:
    """Return the refusals that one limit explains, for the best pairs on the coarse grid."""
    found = one_sided(observations, hints_s)
    missed = (~found.explains).astype(np.float32)
    refused = found.refused_acceptances
    cost = missed @ missed.T + refused[:, None] + refused[None, :]
    allowed = PAIRS.max_unexplained * found.explains.shape[1]
    starts: list[Bools] = []
    taken: set[tuple[str, int, str, int]] = set()
    for flat in np.argsort(cost, axis=None, kind="stable").tolist():
        first, second = divmod(flat, len(refused))
        if cost[first, second] > allowed or len(starts) == PAIRS.started:
            break
        place = (*_place(found, first), *_place(found, second))
        if first != second and place not in taken:
            taken |= {place, (*place[2:], *place[:2])}
            starts.append(_at_requests(found.explains[second], observations))
    return starts


def _starts_of(single: Verdict, observations: Observations) -> list[Bools]:
    """Return the refusals that single families explain that explain most of them, with precise parameters."""
    most = observations.refused.sum() / 2
    near = [fit for fit in single.fits if (fit.family, fit.count_refused or False) in CANDIDATES]
    return [explained_by(fit, observations) for fit in near[: PAIRS.near] if fit.contradictions <= most]


def _place(found: OneSided, i: int) -> tuple[str, int]:
    return found.family[i], round(float(np.log2(found.period_s[i])))


def _at_requests(refusals: Bools, observations: Observations) -> Bools:
    mask = np.zeros(len(observations), dtype=np.bool_)
    mask[np.flatnonzero(observations.refused)[refusals]] = True
    return mask


def _alternating(
    observed: Sequence[Observation],
    observations: Observations,
    explained: Bools,
    hints_s: tuple[float, ...],
    tried: set[bytes],
    *,
    probed: bool,
) -> tuple[Verdict, Verdict]:
    """Return two verdicts, each on the acceptances and the refusals that the other limit does not explain.

    ``explained`` are the refusals that one of them explains at first, and ``tried`` those of earlier starts.
    """
    verdicts = [NOTHING, NOTHING]
    while explained.tobytes() not in tried and len(tried) < PAIRS.max_fits:
        tried.add(explained.tobytes())
        rest = _without(observed, explained)
        verdict = fit_limiter(rest, hints_s=hints_s, candidates=CANDIDATES, probed=probed)
        verdicts = [verdicts[1], verdict]
        if not verdict.fits or verdict.ban is not None or verdict.queue is not None:
            return NOTHING, NOTHING
        best = verdict.best or verdict.fits[0]
        explained = explained_by(best, observations)
    return verdicts[0], verdicts[1]


def _without(observed: Sequence[Observation], removed: Bools) -> list[Observation]:
    """Return the requests that remain, and mark the lost ones next to a removed one."""
    beside = removed | np.roll(removed, 1) | np.roll(removed, -1)
    return [
        replace(one, beside_removed=True) if one.accepted is None and beside[i] else one
        for i, one in enumerate(observed)
        if not removed[i]
    ]


def _joint(one: Fit, other: Fit, observations: Observations) -> Fit | None:
    """Return both limits as one fit; None if they don't explain the decisions, or if one is not needed."""
    first, second = sorted((one, other), key=lambda fit: fit.rate_per_min)
    perhaps = [explained_by(fit, observations) & observations.refused for fit in (first, second)]
    alone = [int((perhaps[i] & ~perhaps[1 - i]).sum()) for i in (0, 1)]
    # A decision that both contradict is counted twice.
    cost, contradictions = one.cost + other.cost, one.contradictions + other.contradictions
    if cost > allowed_cost(observations) or min(alone) < PAIRS.min_refusals:
        return None

    def paired(first: Fit, second: Fit, variants: tuple[Fit, ...] = ()) -> Fit:
        also = replace(second, refusals=alone[1], variants=())
        return replace(
            first,
            also=also,
            refusals=alone[0],
            contradictions=contradictions,
            cost=cost,
            variants=variants,
        )

    variants = [paired(variant, second) for variant in first.variants]
    variants += [paired(first, variant) for variant in second.variants]
    return paired(first, second, tuple(variants))
