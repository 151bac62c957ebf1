"""Detect bans: a fixed time, from the first refusal, in which the server accepts nothing.

Firewalls and some limiters ban clients. No family does, but a window looks similar if it is exhausted as soon
as it resets. If each refusal restarts the ban, or counts like an accepted request, a client that keeps
sending starves: it is refused for as long as it sends.
"""

import math

import numpy as np

from bltybench.limits.fit.thresholds import BAN
from bltybench.limits.observations.observation import Observations


def detect_ban(observations: Observations) -> tuple[float, float] | None:
    """Return the range of lengths, in seconds, of a ban that explains every recovery; None if none does."""
    ended = [lockout for lockout in observations.lockouts if lockout.recovery is not None]
    min_s = max([0.0, *(lockout.min_s for lockout in ended)])
    max_s = min([math.inf, *(lockout.max_s for lockout in ended)])
    tight = BAN.min_tightness * max_s <= min_s <= max_s
    return (min_s, max_s) if len(ended) >= BAN.min_recoveries and tight else None


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
