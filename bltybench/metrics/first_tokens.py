"""First tokens that shared their read with later events, so that their TTFT is an upper bound.

Servers and proxies also send events together, which costs no accuracy. A first token is late only if the
event loop stalled in the second in which it arrived: its TTFT is then too high, by at most that stall.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Bools, Floats, first_token_coalesced, floats
from bltybench.metrics.grading import Figure, Finding, finding_of

MAX_STALL_MS = 20.0
"""Stall beyond which a first token that shared its read is late, as of stalls that are errors of TTFT."""
MIN_LATE_SHARE = 0.01
"""Fraction of late first tokens from which TTFT is too high."""


def late_first_tokens(attempts: pd.DataFrame, generator: pd.DataFrame) -> Iterator[Finding]:
    """Yield a finding if the run knows which first tokens shared their read."""
    streams = int(attempts["first_token_coalesced"].notna().sum())
    if not streams:
        return
    coalesced = first_token_coalesced(attempts)
    late = coalesced & (_stalls_ms(attempts, generator) > MAX_STALL_MS)
    shared_share, late_share = int(coalesced.sum()) / streams, int(late.sum()) / streams
    yield finding_of(
        "first tokens",
        late_share < MIN_LATE_SHARE,
        f"{shared_share:.1%} shared a read with a later event, {late_share:.1%} in a stall",
        f"< {MIN_LATE_SHARE:.0%} in a stall of more than {MAX_STALL_MS:g} ms",
        affects=[Figure.TTFT],
        reason=f"{late_share:.1%} of the first tokens waited in a stall of the event loop until a later "
        "event arrived, so their TTFT is too high",
        remedy="start fewer streams at the same time, lower the load per process, or add workers: "
        "--processes -1",
    )


def _stalls_ms(attempts: pd.DataFrame, generator: pd.DataFrame) -> Floats:
    """Return the longest stall of each attempt's process in the second of its first token; 0 if unknown."""
    times_ns, stalls_ms = floats(attempts, "first_token_ns"), np.zeros(len(attempts))
    for worker, seconds in generator.groupby("worker", observed=True):
        rows: Bools = np.asarray(attempts["worker"] == worker) & ~np.isnan(times_ns)
        place = np.searchsorted(floats(seconds, "at_ns"), times_ns[rows])
        stalls_ms[rows] = np.append(floats(seconds, "stall_us"), 0.0)[place] / 1000
    return stalls_ms
