"""Detect bans: a fixed time, from the first refusal, in which the server accepts nothing.

Firewalls and some limiters ban clients. No family does, but a window looks similar if it is exhausted as soon
as it resets.
"""

import math

from bltybench.limits.fit.thresholds import BAN
from bltybench.limits.observations.observation import Observations


def detect_ban(observations: Observations) -> tuple[float, float] | None:
    """Return the range of lengths, in seconds, of a ban that explains every recovery; None if none does."""
    ended = [lockout for lockout in observations.lockouts if lockout.recovery is not None]
    min_s = max([0.0, *(lockout.min_s for lockout in ended)])
    max_s = min([math.inf, *(lockout.max_s for lockout in ended)])
    tight = BAN.min_tightness * max_s <= min_s <= max_s
    return (min_s, max_s) if len(ended) >= BAN.min_recoveries and tight else None
