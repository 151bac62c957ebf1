"""Send a run's requests to a limiter model, and compare its decisions with those of the API."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from statistics import median

from bltybench.limits.findings.thresholds import FINDINGS
from bltybench.limits.fit.result import Verdict
from bltybench.limits.models.base import Model
from bltybench.limits.observations.observation import Observation
from bltybench.limits.observations.proportion import Proportion

DECISION_POINTS = (0.5, 0.0, 1.0)
"""Fractions of the time from sending to deciding at which the model decides; the best one is used."""


def agreement(observations: Sequence[Observation], make: Callable[[], Model]) -> Proportion:
    """Return how many of the API's decisions a model makes too, if it decides on the same requests.

    ``make`` returns a new model. It is charged with its own decisions, as a sandbox would be. If timing
    uncertainty allows both decisions, it makes that of the API.
    """
    ordered = sorted(observations, key=lambda observation: observation.sent_s)
    known = sum(observation.accepted is not None for observation in ordered)
    agreeing = [_agreeing(ordered, make(), point) for point in DECISION_POINTS] if known else [0]
    return Proportion(max(agreeing), known)


def is_confirmed(replayed: Proportion) -> bool:
    """Return whether a limiter makes enough of the decisions to be found."""
    return replayed.count >= FINDINGS.min_replayed * replayed.of


def confirmed(verdict: Verdict, replayed: Proportion) -> Verdict:
    """Return the verdict on a limiter that was found; ``ambiguous`` if it makes too few of the decisions."""
    if is_confirmed(replayed):
        return verdict
    reason = f"a limiter with these parameters makes only {_of_decisions(replayed)}"
    return replace(verdict, status="ambiguous", reason=reason)


def replay_sentence(replayed: Proportion) -> str:
    """Return how many of a run's decisions the limiter that was found makes."""
    return f"A limiter with these parameters makes {_of_decisions(replayed)}."


def _of_decisions(replayed: Proportion) -> str:
    # Rounded down, so that the percentage agrees with the comparison.
    percent = f"{math.floor(1000 * replayed.count / max(1, replayed.of)) / 10:.4g}%"
    return f"{replayed.count} of the API's {replayed.of} decisions ({percent})"


def _agreeing(ordered: Sequence[Observation], model: Model, decision_point: float) -> int:
    uncertainty_s = median(observation.decided_s - observation.sent_s for observation in ordered)
    # Requests in flight together overlap, and the model's clock can't go back.
    starts_s = list(accumulate((observation.sent_s for observation in ordered), max))
    now_s, agreeing = starts_s[0] - uncertainty_s, 0
    for observation, start_s in zip(ordered, starts_s, strict=True):
        now_s = max(now_s, start_s - uncertainty_s)
        decided_s = max(observation.decided_s, start_s)
        peeked = model.peek(now_s)
        accepted, at_s = peeked.accepted, max(now_s, start_s + decision_point * (decided_s - start_s))
        if observation.accepted is not False and not accepted:
            free_s = now_s + (peeked.retry_after_s or 0.0)
            accepted = free_s <= max(now_s, decided_s + uncertainty_s)
            at_s = max(at_s, free_s) if accepted else at_s
        now_s = at_s
        (model.charge if accepted else model.refuse)(now_s)
        agreeing += accepted == observation.accepted
    return agreeing
