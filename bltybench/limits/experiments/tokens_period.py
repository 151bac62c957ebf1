"""Over which time tokens are counted, and by what algorithm: what units of them tell."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bltybench.limits.experiments.tokens_roles import UNIT, cost, used
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.observations.answer import Answer, cannot_tell
from bltybench.limits.observations.probe_result import ProbeResult

ASKED = {
    "token_period_s": "in which time",
    "token_algorithm": "by what algorithm tokens are limited",
}
MINUTE_S = 60.0
UNSURE = 1.5
"""So much longer or shorter than a minute a period that is hardly known may be, to be taken for one."""
FEWEST = 3
"""Units that the limit must hold for its period to be told."""


def unit_size(seen: Sequence[ProbeResult], *, kept: bool) -> float:
    """Return how many tokens a unit was charged in the median; 1 where none was let in."""
    sizes = [(cost if kept else used)(each) for each in seen if each.role == UNIT and each.accepted]
    return median(sizes) if sizes else 1.0


def _period_s(each: Fit, limit: Answer, size: float, accepted: int) -> tuple[float, tuple[float, float]]:
    """Return the period in which the limit of tokens is refilled, and its range.

    A bucket shows how fast it refills. What that means for all of it depends on its size in tokens: in units
    it is off by one where they are charged when they end, and by what does not divide; and so is what came
    back, of all units that were let in (``accepted``). What does not divide also shifts when a weighted
    counter lets the next one in.
    """
    if not each.traits.refills_gradually:
        return each.period_s, each.period_range_s
    least, most = each.period_range_s
    if limit.range is None or limit.value is None:
        return each.period_s, (least * (1 - 1 / each.limit), most * (1 + 1 / each.limit))
    tokens = sorted(limit.range)
    if each.traits.kind == "counter":
        off = max(abs(count / size - each.limit) for count in tokens) / each.limit
        return each.period_s, (least * (1 - off), most * (1 + off))
    rates_s = [per / count for per, count in zip((least, most), each.limit_range, strict=True)]  # for a unit
    off = 1 / max(2, accepted - each.limit)
    return (
        each.period_s / each.limit * float(limit.value) / size,
        (min(rates_s) * (1 - off) * tokens[0] / size, max(rates_s) * (1 + off) * tokens[1] / size),
    )


def period(verdict: Verdict, limit: Answer, size: float, documented_per_min: int | None) -> list[Answer]:
    """Return period and algorithm, which may be known where the other is not.

    So many as are documented for a minute are let in a minute, where that is among what may be.
    """
    names = tuple(ASKED)
    fits = verdict.consistent
    if not fits or fits[0].limit < FEWEST:
        reason = verdict.reason or "too few units fit into it"
        return [cannot_tell(name, ASKED[name], reason) for name in names]
    evidence = (
        f"{verdict.attempts} requests of the same size: {verdict.accepted} let in, {verdict.refused} refused",
    )
    periods = [_period_s(each, limit, size, verdict.accepted) for each in fits]
    least, most = min(around[0] for _, around in periods), max(around[1] for _, around in periods)
    answers = []
    near = MINUTE_S / UNSURE <= least <= MINUTE_S <= most <= UNSURE * MINUTE_S
    as_documented = near and documented_per_min == limit.value
    if as_documented or most - least <= 0.1 * most:
        period_s = MINUTE_S if as_documented else periods[0][0]
        answers.append(
            Answer(
                question="token_period_s",
                value=round(period_s, 4),
                range=(round(least, 4), round(most, 4)),
                says=f"Tokens are counted over {period_s:.4g} s ({least:.4g} to {most:.4g}).",
                confidence=verdict.confidence,
                evidence=evidence,
            )
        )
    else:
        reason = f"it lies between {least:.4g} and {most:.4g} s"
        answers.append(cannot_tell(names[0], ASKED[names[0]], reason, evidence))
    if len(verdict.families) == 1 and fits[0].phase != "other":
        says = f"Tokens are limited by a {fits[0].family.replace('_', ' ')}."
        answers.append(
            Answer(
                question="token_algorithm",
                value=fits[0].family,
                says=says,
                confidence=verdict.confidence,
                evidence=evidence,
            )
        )
    else:
        # It was asked at one phase only.
        reason = verdict.reason or "windows of a phase of their own, or that begin with a request, look alike"
        answers.append(cannot_tell(names[1], ASKED[names[1]], reason, evidence))
    return answers
