"""Send a run's requests to a limiter model, and compare its decisions with those of the API."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import median

from bltybench.limits.findings.thresholds import FINDINGS
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


def replay_sentence(replayed: Proportion) -> str:
    """Return how many of a run's decisions a fitted limiter makes, and whether these are too few."""
    fraction = replayed.count / max(1, replayed.of)
    # Rounded down, so that the percentage agrees with the comparison.
    percent = f"{math.floor(1000 * fraction) / 10:.4g}%"
    sentence = f"A limiter with these parameters makes {replayed.count} of the API's {replayed.of} decisions"
    if fraction >= FINDINGS.min_replayed:
        return f"{sentence} ({percent})."
    return f"{sentence}, only {percent}: it does not describe the API well."


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
        if accepted or model.count_refused:
            model.charge(now_s)
        agreeing += accepted == observation.accepted
    return agreeing
