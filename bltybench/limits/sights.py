"""What was seen of a limiter from outside: requests, when each was decided on, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REFUSED, ACCEPTED, UNKNOWN = 0, 1, -1


@dataclass(frozen=True, slots=True)
class Sight:
    """One request: the limiter decided on it between ``sent_s`` and ``decided_s``."""

    sent_s: float
    decided_s: float
    accepted: bool | None
    """None where the answer was lost: it may have been counted."""


class Sights:
    """Many of them as arrays, in the order of sending. Times are Unix seconds, less ``origin_s``."""

    def __init__(self, seen: Iterable[Sight]) -> None:
        rows = sorted(seen, key=lambda sight: sight.sent_s)
        self.origin_s = rows[0].sent_s if rows else 0.0
        self.lo: Floats = np.array([row.sent_s - self.origin_s for row in rows], dtype=np.float64)
        hi = np.array([row.decided_s - self.origin_s for row in rows], dtype=np.float64)
        self.hi: Floats = np.maximum(hi, self.lo)
        codes = [UNKNOWN if row.accepted is None else int(row.accepted) for row in rows]
        self.seen: Ints = _imputed(np.array(codes, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.lo)

    @property
    def accepted(self) -> Any:
        """Mask of the accepted ones."""
        return self.seen == ACCEPTED

    @property
    def refused(self) -> Any:
        """Mask of the refused ones."""
        return self.seen == REFUSED

    @cached_property
    def recoveries(self) -> list[tuple[float, float]]:
        """Return where an acceptance followed a refusal: (when the one was sent, the other decided)."""
        known = np.flatnonzero(self.seen != UNKNOWN)
        turns = [
            (int(a), int(b))
            for a, b in pairwise(known)
            if self.seen[a] == REFUSED and self.seen[b] == ACCEPTED
        ]
        return [(float(self.lo[a]), float(self.hi[b])) for a, b in turns]

    def longest_refusal_s(self) -> float:
        """Return how long, at most, one refusal followed another without an acceptance between."""
        longest, since = 0.0, None
        for lo, hi, seen in zip(self.lo, self.hi, self.seen, strict=True):
            if seen == REFUSED:
                since = float(hi) if since is None else since
                longest = max(longest, float(lo) - since)
            elif seen == ACCEPTED:
                since = None
        return longest

    def doubt_s(self) -> float:
        """Return the median time for which it is open when a request was decided on."""
        return float(np.median(self.hi - self.lo))

    @property
    def first_run(self) -> int:
        """Return the acceptances before the first refusal after any; there must be one."""
        known = self.seen[np.argmax(self.accepted) :]
        return int(np.argmax(known == REFUSED))

    @cached_property
    def largest_run(self) -> int:
        """Return the most acceptances in a row."""
        longest = run = 0
        for seen in self.seen:
            run = 0 if seen == REFUSED else run + 1
            longest = max(longest, run)
        return longest

    def offsets(self, counted: Ints) -> tuple[Ints, Ints]:
        """Return two doubts about each request, since requests in flight together have no order.

        How many of ``counted`` may have been decided after it though sent before, and the reverse.
        """
        total = np.concatenate([[0], np.cumsum(counted)])
        index = np.arange(len(self))
        latest = np.maximum.accumulate(self.hi) if len(self) else self.hi
        first_open = np.minimum(np.searchsorted(latest, self.lo, side="right"), index)
        last_open = np.maximum(np.searchsorted(self.lo, self.hi, side="left"), index + 1)
        return total[index] - total[first_open], total[last_open] - total[index + 1]


def _imputed(seen: Ints) -> Ints:
    """Read a lost answer between two acceptances as one.

    Between two refusals it may have been either: a bucket lets single ones in there.
    """
    known = np.flatnonzero(seen != UNKNOWN)
    filled = seen.copy()
    for lost in np.flatnonzero(seen == UNKNOWN):
        place = int(np.searchsorted(known, lost))
        if 0 < place < len(known) and seen[known[place - 1]] == seen[known[place]] == ACCEPTED:
            filled[lost] = ACCEPTED
    return filled
