"""The answer to one question about the limits: its value, confidence, and evidence, or why it is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from bltybench.limits.observations.thresholds import ANSWERS


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
    question: str,
    subject: str,
    reason: str,
    evidence: Sequence[str] = (),
    *,
    least: float | None = None,
) -> Answer:
    """Return an answer that says why ``subject`` is unknown; ``least`` is the minimum of a numeric value."""
    says = f"Cannot tell {subject}: {reason}."
    bounds = None if least is None else (least, inf)
    return Answer(question, None, says, evidence=tuple(evidence), reason=reason, range=bounds)


def sure(votes: int, against: int = 0) -> float:
    """Return the confidence from the number of observations for and against, with equal priors."""
    balance = max(-ANSWERS.max_votes, min(ANSWERS.max_votes, votes - against))
    odds = ((1 - ANSWERS.misleading_rate) / ANSWERS.misleading_rate) ** balance
    return odds / (1 + odds)
