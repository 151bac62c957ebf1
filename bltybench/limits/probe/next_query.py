"""Choose when to send next: when the remaining candidates predict different numbers of acceptances."""

from collections.abc import Sequence

import numpy as np

from bltybench.limits.fit.result import Fit
from bltybench.limits.fit.thresholds import SCORING
from bltybench.limits.models.base import Model
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.thresholds import QUERY


def most_informative_time(
    observations: Sequence[Observation],
    candidates: Sequence[Fit],
    now_s: float,
    until_s: float,
    max_requests: int,
    *,
    enough: float = 1.0,
) -> tuple[float, int] | None:
    """Return the most informative send time and the request cap; None if all candidates predict the same.

    Of the times with at least the fraction ``enough`` of the most information it is the earliest.
    Two candidates differ by how many of up to ``max_requests`` requests they would accept at that time.
    """
    variants = [variant for candidate in candidates for variant in candidate.variants or (candidate,)]
    times = np.linspace(now_s, until_s, QUERY.times + 1)[1:]
    models = [replayed(observations, variant) for variant in variants]
    counts = np.array(
        [
            [min(max_requests, int(model.peek(float(at_s)).remaining + SCORING.rounding)) for at_s in times]
            for model in models
        ]
    )
    information = np.zeros(len(times))
    for i, one in enumerate(variants):
        for j, other in enumerate(variants[:i]):
            weight = QUERY.family_weight if one.family != other.family else 1
            information += weight * np.minimum(QUERY.max_difference, np.abs(counts[i] - counts[j]))
    best = int((information >= enough * information.max()).argmax())
    return (float(times[best]), int(counts[:, best].max()) + 1) if information[best] else None


def replayed(observations: Sequence[Observation], candidate: Fit, period_s: float | None = None) -> Model:
    """Return the candidate's model after all observations, with ``period_s`` instead of its own if given."""
    model, at_s = candidate.model(period_s), -np.inf
    for observation in sorted(observations, key=lambda observation: observation.sent_s):
        at_s = max(at_s, (observation.sent_s + observation.decided_s) / 2)
        if observation.accepted or (candidate.count_refused and observation.accepted is False):
            model.charge(at_s)
    return model
