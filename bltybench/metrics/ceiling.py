"""Open loop: arrivals that found no idle user, because the maximum number of calls was in flight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bltybench.metrics.frame import floats
from bltybench.metrics.validity import MORE_USERS, Finding
from bltybench.scenario.workload import Scenario

MAX_LATE_FRACTION = 0.01
"""Maximum fraction of arrivals that waited for a user: the same 1% as the p99 of the schedule delay."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Arrivals that were due while all users were busy."""

    no_free_user: int
    """Sent late."""
    never_sent: int
    """Still waiting for a user when the run ended."""


def ceiling(generator: pd.DataFrame) -> Ceiling:
    """Sum the counts of the processes."""
    return Ceiling(_total(generator, "no_free_user"), _total(generator, "never_sent"))


def findings(generator: pd.DataFrame, scenario: Scenario) -> list[Finding]:
    """Return one finding for an open loop; none for a closed one, whose users wait by design."""
    if not scenario.is_open_loop or generator.empty:
        return []
    counts = ceiling(generator)
    late, never = counts.no_free_user, counts.never_sent
    return [
        Finding(
            name="free users",
            holds=never == 0 and late <= MAX_LATE_FRACTION * _total(generator, "sent"),
            actual=f"{late:,} arrivals found none, {never:,} were never sent",
            bound=f"≤ {MAX_LATE_FRACTION:.0%} of those sent found none, all were sent",
            says=f"all {scenario.users} users were busy: {late:,} arrivals had to wait for one, "
            f"and {never:,} were never sent",
            remedy=MORE_USERS,
        )
    ]


def _total(generator: pd.DataFrame, column: str) -> int:
    return int(np.nansum(floats(generator, column))) if len(generator) else 0
