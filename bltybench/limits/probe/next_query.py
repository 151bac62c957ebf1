"""What to ask next: when the families that are left would let different numbers in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bltybench.limits.fit.result import Fit
from bltybench.limits.fit.scoring import EPS
from bltybench.limits.models.base import Model
from bltybench.limits.observations.observation import Floats, Observation

MOMENTS = 48
"""Times that are compared."""
OTHER_FAMILY = 4
"""Weight of a difference between families against one between parameters of the same."""
ENOUGH = 3
"""A difference of more requests tells no more."""


def most_telling(
    seen: Sequence[Observation], left: Sequence[Fit], now_s: float, until_s: float, cap: int
) -> tuple[float, int] | None:
    """Return when to send until the first refusal, and how many at most; None where nothing would differ.

    Two fits differ at a time by how many requests they would let in then, up to ``cap``.
    """
    guesses = [variant for each in left for variant in each.variants or (each,)]
    times = np.linspace(now_s, until_s, MOMENTS + 1)[1:]
    counts = np.array([_let_in(replayed(seen, guess), times, cap) for guess in guesses])
    worth = np.zeros(len(times))
    for i, one in enumerate(guesses):
        for j, two in enumerate(guesses[:i]):
            weight = OTHER_FAMILY if one.family != two.family else 1
            worth += weight * np.minimum(ENOUGH, np.abs(counts[i] - counts[j]))
    best = int(worth.argmax())
    return (float(times[best]), int(counts[:, best].max()) + 1) if worth[best] else None


def replayed(seen: Sequence[Observation], guess: Fit, period_s: float | None = None) -> Model:
    """Return the model of a fit, or one with this period, charged with all that was seen."""
    model, at_s = guess.model(period_s), -np.inf
    for sight in sorted(seen, key=lambda sight: sight.sent_s):
        at_s = max(at_s, (sight.sent_s + sight.decided_s) / 2)
        if sight.accepted or (guess.count_refused and sight.accepted is False):
            model.charge(at_s)
    return model


def _let_in(model: Model, times: Floats, cap: int) -> Floats:
    return np.array([min(cap, int(model.peek(float(at_s)).remaining + EPS)) for at_s in times])
