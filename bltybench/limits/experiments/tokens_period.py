"""Period and algorithm of the token limit, from the fit of equal units."""

from collections.abc import Sequence
from statistics import median

from bltybench.limits.experiments.thresholds import TOKENS
from bltybench.limits.experiments.tokens_roles import equal_units, max_used, used
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.models.families import with_article
from bltybench.limits.observations.answer import Answer, cannot_tell
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.thresholds import CONTEXT

PERIOD, ALGORITHM = "token_period_s", "token_algorithm"


def unit_size(results: Sequence[ProbeResult], *, kept: bool) -> float:
    """Return the median charge of a unit, in tokens; 1 if none was accepted."""
    charge = max_used if kept else used
    return median([charge(unit) for unit in equal_units(results) if unit.accepted] or [1.0])


def period_and_algorithm(
    verdict: Verdict, limit: Answer, unit_tokens: float, documented_per_min: int | None
) -> list[Answer]:
    """Return the answers on period and algorithm. Either one can be known without the other.

    If the limit equals the documented tokens per minute, and a minute fits, the period is a minute.
    """
    fits = verdict.consistent
    if not fits or fits[0].limit < TOKENS.min_units_for_period:
        reason = verdict.reason or "too few units fit into the limit"
        return [cannot_tell(PERIOD, reason), cannot_tell(ALGORITHM, reason)]
    evidence = (f"{verdict.accepted} of {verdict.attempts} requests of the same size were accepted",)
    periods = [_period_s(candidate, limit, unit_tokens, verdict.accepted) for candidate in fits]
    least_s, most_s = min(bounds[0] for _, bounds in periods), max(bounds[1] for _, bounds in periods)
    usual_s, ratio = CONTEXT.usual_period_s, TOKENS.max_usual_period_ratio
    can_be_usual = usual_s / ratio <= least_s <= usual_s <= most_s <= ratio * usual_s
    as_documented = can_be_usual and documented_per_min == limit.value
    if as_documented or most_s - least_s <= TOKENS.max_period_spread * most_s:
        period_s = usual_s if as_documented else periods[0][0]
        says = f"The period of the token limit is {period_s:.4g} s ({least_s:.4g} to {most_s:.4g} s)."
        bounds_s = round(least_s, 4), round(most_s, 4)
        period = Answer(PERIOD, round(period_s, 4), says, verdict.confidence, evidence, range=bounds_s)
    else:
        reason = f"it lies between {least_s:.4g} and {most_s:.4g} s"
        period = cannot_tell(PERIOD, reason, evidence)
    # The units were sent at one phase only, so a window with a phase of its own is ambiguous.
    if len(verdict.families) == 1 and fits[0].phase != "other":
        says = f"The token limit is {with_article(fits[0].family)}."
        algorithm = Answer(ALGORITHM, fits[0].family, says, verdict.confidence, evidence)
    else:
        reason = verdict.reason or "windows that start with a request and others look alike"
        algorithm = cannot_tell(ALGORITHM, reason, evidence)
    return [period, algorithm]


def _period_s(
    candidate: Fit, limit: Answer, unit_tokens: float, accepted: int
) -> tuple[float, tuple[float, float]]:
    """Return the period of the token limit and its range, in seconds.

    Windows and logs have the same period in units and in tokens. The others depend on the remainder of the
    limit that no unit fits into. A bucket shows only its refill rate. Both its size and the ``accepted``
    units are uncertain by one.
    """
    least_s, most_s = candidate.period_range_s
    if not candidate.traits.refills_gradually:
        return candidate.period_s, (least_s, most_s)
    if limit.range is None or limit.value is None:
        return candidate.period_s, (least_s * (1 - 1 / candidate.limit), most_s * (1 + 1 / candidate.limit))
    units = [tokens / unit_tokens for tokens in sorted(limit.range)]
    if candidate.traits.kind == "counter":
        error = max(abs(count - candidate.limit) for count in units) / candidate.limit
        return candidate.period_s, (least_s * (1 - error), most_s * (1 + error))
    unit_refills_s = [
        period_s / count for period_s, count in zip((least_s, most_s), candidate.limit_range, strict=True)
    ]
    error = 1 / max(2, accepted - candidate.limit)
    return (
        candidate.period_s / candidate.limit * float(limit.value) / unit_tokens,
        (min(unit_refills_s) * (1 - error) * units[0], max(unit_refills_s) * (1 + error) * units[1]),
    )
