"""The answer to one question about the limits: its value, confidence, and evidence, or why it is unknown."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from bltybench.limits.observations.thresholds import ANSWERS

SUBJECTS = {
    "concurrency_limit": "how many requests can be in flight",
    "concurrency_excess": "what happens to excess requests",
    "cancelled_frees_slot": "whether a cancelled stream frees its slot",
    "token_limit": "how many tokens are allowed",
    "token_period_s": "the period of the token limit",
    "token_algorithm": "the algorithm of the token limit",
    "tokens_charged": "how tokens are charged",
    "tokens_charged_at": "when tokens are charged",
    "malformed_counts": "whether malformed requests count",
    "unknown_model_counts": "whether requests for an unknown model count",
    "models_endpoint_counts": "whether requests to /models count",
    "wrong_key_counts": "whether requests with a wrong key count",
    "refused_counts": "whether refused requests count",
    "limit_per_key": "whether each key has its own limit",
    "limit_per_model": "whether each model has its own limit",
    "models_endpoint_shares": "whether /models shares the limit",
    "limit_header": "whether the announced limit is accurate",
    "remaining_header": "whether Remaining is accurate",
    "reset_header": "what Reset means",
    "retry_after": "whether Retry-After is accurate",
}
"""Every question, with the words for it after "Cannot tell"."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the probe or of an analysis."""

    question: str
    """Name of the question, as in docs/limits.md."""
    value: int | float | str | bool | None
    """None if unknown; ``reason`` then says why."""
    says: str
    """The answer as a sentence."""
    confidence: float | None = None
    evidence: tuple[str, ...] = ()
    reason: str | None = None
    range: tuple[float, float] | None = None
    """Minimum and maximum of a numeric value. The maximum is infinite if only a minimum is known."""


def cannot_tell(
    question: str, reason: str, evidence: Sequence[str] = (), *, least: float | None = None
) -> Answer:
    """Return an answer that says why its value is unknown; ``least`` is the minimum of a numeric value."""
    says = f"Cannot tell {SUBJECTS[question]}: {reason}."
    bounds = None if least is None else (least, inf)
    return Answer(question, None, says, evidence=tuple(evidence), reason=reason, range=bounds)


def sure(votes: int, against: int = 0) -> float:
    """Return the confidence from the number of observations for and against, with equal priors."""
    balance = max(-ANSWERS.max_votes, min(ANSWERS.max_votes, votes - against))
    odds = ((1 - ANSWERS.misleading_rate) / ANSWERS.misleading_rate) ** balance
    return odds / (1 + odds)
