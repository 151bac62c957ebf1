"""An answer to a question about limits: what, how sure, on what evidence, or why it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MISLED = 0.05
"""How often one observation is taken to mislead, where confidence is worked out."""
SUREST = 0.9999
"""Nothing is certain."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One finding."""

    question: str
    """Its name, as docs/limits.md explains it."""
    value: int | float | str | bool | None
    """None: cannot be told, and ``reason`` says why."""
    says: str
    """The same in a sentence."""
    confidence: float | None = None
    evidence: tuple[str, ...] = ()
    reason: str | None = None
    range: tuple[float, float] | None = None
    """What else a number could be; infinite where only a least value is known."""


def cannot_tell(
    question: str,
    what: str,
    reason: str,
    evidence: Sequence[str] = (),
    *,
    least: float | None = None,
) -> Answer:
    """Return that ``what`` cannot be told, and why; ``least`` is what it is at least."""
    bounds = None if least is None else (least, float("inf"))
    return Answer(
        question=question,
        value=None,
        says=f"Cannot tell {what}: {reason}.",
        evidence=tuple(evidence),
        reason=reason,
        range=bounds,
    )


def sure(for_it: int, against: int = 0) -> float:
    """Return how sure a yes is after so many observations for it and against it.

    Bayes' rule for two hypotheses that were as likely before, where one observation in twenty misleads.
    """
    odds = ((1 - MISLED) / MISLED) ** max(-20, min(20, for_it - against))
    return odds / (1 + odds)


def times(count: int) -> str:
    """Say how often."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
