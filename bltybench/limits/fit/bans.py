"""Detect bans: a fixed time in which the server accepts nothing, from the first or from the last refusal.

Firewalls and some limiters ban clients. No family does, but a window looks similar if it is exhausted as soon
as it resets. If each refusal restarts the ban, or counts like an accepted request, a client that keeps
sending starves: it is refused for as long as it sends.
"""

import math
from dataclasses import dataclass

import numpy as np

from bltybench.limits.fit.thresholds import BAN
from bltybench.limits.observations.observation import (
    ACCEPTED,
    REFUSED,
    UNKNOWN,
    Observation,
    Observations,
)


@dataclass(frozen=True, slots=True)
class BanTiming:
    """How long a ban lasts, if one explains every recovery."""

    length_range_s: tuple[float, float]
    """In seconds, from the first refusal, or from the last one if each refusal restarts the ban."""
    restarts: bool | None
    """Whether each refusal restarts the ban; None if both explain every recovery."""

    def described(self) -> str:
        """Return the ban as a part of a sentence."""
        low_s, high_s = self.length_range_s
        return f"a ban of {low_s:.3g} to {high_s:.3g} s"


def detect_ban(observations: Observations) -> BanTiming | None:
    """Return the ban that explains every recovery; None if none does."""
    ended = [lockout for lockout in observations.lockouts if lockout.recovery is not None]
    if len(ended) < BAN.min_recoveries:
        return None
    fixed_s = max(0.0, *(lockout.min_s for lockout in ended)), min(lockout.max_s for lockout in ended)
    restarted_s = restarted_range_s(observations)
    if _is_tight(fixed_s):
        return BanTiming(fixed_s, None if _is_tight(restarted_s) else False)
    # Lockouts of about the same length can be a ban from the first refusal.
    return BanTiming(restarted_s, True) if fixed_s[0] > fixed_s[1] and _is_tight(restarted_s) else None


def outside_bans(observations: Observations) -> list[Observation]:
    """Return all observations but repeated refusals and the lost responses between them."""
    codes, index = observations.codes, np.arange(len(observations))
    known = np.flatnonzero(codes != UNKNOWN)
    around = np.concatenate([[ACCEPTED], codes[known], [ACCEPTED]])
    place = np.searchsorted(known, index)
    banned = (around[place] == REFUSED) & (around[place + 1] == REFUSED)
    return [
        Observation(
            observations.origin_s + float(observations.lo[i]),
            observations.origin_s + float(observations.hi[i]),
            None if codes[i] == UNKNOWN else bool(codes[i]),
            unit=observations.units,
        )
        for i in index[~banned].tolist()
    ]


def _is_tight(range_s: tuple[float, float]) -> bool:
    return BAN.min_tightness * range_s[1] <= range_s[0] <= range_s[1]


def restarted_range_s(observations: Observations) -> tuple[float, float]:
    """Return the range of lengths of a ban that each refusal restarts; it is empty if none explains all.

    Each request after a refusal is refused if the pause before it was shorter than the ban.
    """
    lo, hi, middle = observations.lo, observations.hi, (observations.lo + observations.hi) / 2
    min_s, max_s, longest_refused_s, shortest_accepted_s = 0.0, math.inf, 0.0, math.inf
    refused = lost = -1
    for i, code in enumerate(observations.codes.tolist()):
        if code == UNKNOWN:
            lost = i
        elif code == ACCEPTED and refused >= 0:
            max_s = min(max_s, float(hi[i] - lo[refused]))
            shortest_accepted_s = min(shortest_accepted_s, float(middle[i] - middle[refused]))
            refused = -1
        elif code == REFUSED:
            if refused >= 0:
                # A lost request was perhaps refused, and then restarted the ban.
                since = max(refused, lost)
                min_s = max(min_s, float(lo[i] - hi[since]))
                longest_refused_s = max(longest_refused_s, float(middle[i] - middle[since]))
            refused = i
    # Pauses of one length, some of them long enough and some not, show no ban.
    return (min_s, max_s) if longest_refused_s < shortest_accepted_s else (math.inf, 0.0)


def starved_pause_s(observations: Observations, hints_s: tuple[float, ...]) -> float | None:
    """Return the longest pause between requests while all were refused, in seconds, if the client starved.

    It starved if nothing was accepted after the first of many refusals, for longer than the period in
    ``hints_s``, or without one for longer than requests were accepted before. There must be no recovery.
    """
    refused = np.flatnonzero(observations.refused)
    if len(refused) < BAN.min_starved_refusals:
        return None
    first, last = int(refused[0]), int(refused[-1])
    accepted_s = float(observations.lo[first] - observations.lo[0])
    needed_s = max(hints_s, default=max(accepted_s, BAN.min_starved_s)) * BAN.min_starved_periods
    if observations.lockouts[-1].min_s < needed_s:
        return None
    return float(np.diff(observations.lo[first : last + 1]).max())


def describe_starvation(observations: Observations) -> str:
    """Return what it means that nothing was accepted after the first refusal."""
    lasted_s = observations.lockouts[-1].min_s
    return (
        f"{observations.refused.sum()} requests were refused, and none was accepted, for {lasted_s:.3g} s: "
        "refused requests count, or a refusal starts a ban, unless the period is longer than that"
    )
