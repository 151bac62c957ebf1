"""Accepted requests that were answered late, because the server delayed them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bltybench.limits.observations.observation import Observation
from bltybench.limits.observations.thresholds import WAITS


@dataclass(frozen=True, slots=True)
class Waits:
    """Response times of accepted requests, some of which waited."""

    accepted: int
    waited: int
    usual_s: float
    """Median response time of those that did not wait."""
    longest_s: float
    repeated_s: float
    """Response time that at least two requests reached: one alone may be chance."""


def waits_of(observations: Sequence[Observation]) -> Waits | None:
    """Return how long accepted requests waited; None if fewer than two did."""
    took_s = sorted(
        one.answered_s - one.sent_s for one in observations if one.accepted and one.answered_s is not None
    )
    if not took_s:
        return None
    usual_s = median(one_s for one_s in took_s if one_s <= WAITS.min_ratio * took_s[0])
    late_s = [one_s for one_s in took_s if one_s > max(WAITS.min_s, WAITS.min_ratio * usual_s)]
    if len(late_s) < WAITS.min_requests:
        return None
    return Waits(len(took_s), len(late_s), usual_s, late_s[-1], late_s[-WAITS.min_requests])
