"""Decide whether a model explains enough to be claimed as a server's limit.

The hypotheses to beat are a server that accepts everything, which contradicts each refusal, and one that
refuses everything, which contradicts each acceptance.
"""

from bltybench.limits.fit.thresholds import EVIDENCE, SCORING
from bltybench.limits.observations.proportion import Proportion

RATE_IS_OPEN = "rates"
"""Start of the reason if too many rates fit."""
FEW_RECOVERIES = "the server accepted requests again only once after a refusal"
"""Start of the reason if a single acceptance after a refusal shows the rate."""


def allowed_contradictions(decisions: int, rarer: int) -> float:
    """Return the contradictions up to which a model explains ``decisions`` decisions.

    ``rarer`` is the number of refusals, or of acceptances if there are fewer.
    """
    return EVIDENCE.tolerance + min(SCORING.flip_rate * decisions, EVIDENCE.max_unexplained * rarer)


def undetermined_rate(low_per_min: float, high_per_min: float) -> str | None:
    """Return why sustained rates of this range support no claim; None if it is narrow enough."""
    if high_per_min <= EVIDENCE.max_rate_ratio * low_per_min:
        return None
    low, high = (f"{rate:,.0f}" if rate >= 99.5 else f"{rate:.2g}" for rate in (low_per_min, high_per_min))
    return (
        f"{RATE_IS_OPEN} from {low} to {high} requests per minute fit the refusals: a longer run near "
        "that rate, with requests at more times after a refusal, is needed"
    )


def missing_recoveries(recoveries: int) -> str | None:
    """Return why so few acceptances after a refusal support no claim; None if they are enough."""
    if recoveries >= EVIDENCE.min_recoveries:
        return None
    return f"{FEW_RECOVERIES}: at least {EVIDENCE.min_recoveries} recoveries are needed to infer a limit"


def unpredicted(made: Proportion) -> str | None:
    """Return why a model that made ``made`` of the decisions supports no claim; None if it made enough.

    Charged with the observed decisions, a model can fit where the order of requests leaves much open.
    """
    if made.count >= EVIDENCE.min_predicted * made.of:
        return None
    return f"no family fits: the best one predicts only {made.count} of {made.of} decisions"


def missing_refusals(refused: int, *, probed: bool) -> str | None:
    """Return why so few refusals support no claim; None if they are enough.

    A probe chooses its times so that each refusal rules models out. Those of other runs fit nearly any model.
    """
    if probed or refused >= EVIDENCE.min_refusals:
        return None
    refusals = "1 refusal is" if refused == 1 else f"{refused} refusals are"
    return f"{refusals} too few: at least {EVIDENCE.min_refusals} are needed to infer a limit"
