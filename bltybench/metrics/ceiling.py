"""Open loop: did arrivals find a free user, or was the ceiling of calls in flight reached?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bltybench.metrics.frame import floats
from bltybench.metrics.validity import MORE_ROOM, Finding
from bltybench.runs.manifest import Manifest

LATE_SHARE = 0.01
"""The most arrivals that may have had to wait for a user, as the p99 of the schedule delay has it."""

CLOSED = frozenset({"closed", "ladder", "search"})


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What became of the arrivals of a schedule."""

    no_free_user: int
    """Were due while all users were busy, and were sent late."""
    never_sent: int
    """Were due and still waited for a user when the run ended."""


def ceiling(generator: pd.DataFrame) -> Ceiling:
    """Add up the processes' counts."""
    late, never = (
        int(np.nansum(floats(generator, name))) if len(generator) else 0
        for name in ("no_free_user", "never_sent")
    )
    return Ceiling(late, never)


def findings(generator: pd.DataFrame, manifest: Manifest) -> list[Finding]:
    """Return one finding for an open loop, none for a closed one, where users wait by design."""
    arrivals = manifest.resolved.get("arrivals", {})
    if not arrivals or arrivals.get("kind") in CLOSED or generator.empty:
        return []
    found = ceiling(generator)
    sent = int(np.nansum(floats(generator, "sent")))
    late, never = found.no_free_user, found.never_sent
    users = manifest.resolved.get("users")
    return [
        Finding(
            name="free users",
            holds=never == 0 and late <= LATE_SHARE * sent,
            actual=f"{late:,} arrivals found none, {never:,} were never sent",
            bound=f"≤ {LATE_SHARE:.0%} of those sent found none, all were sent",
            says=f"the ceiling of {users} users was reached: {late:,} arrivals had to wait for one, "
            f"and {never:,} were never sent",
            remedy=MORE_ROOM,
        )
    ]
