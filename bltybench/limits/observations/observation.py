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
Bools = npt.NDArray[np.bool_]

REFUSED, ACCEPTED, UNKNOWN = 0, 1, -1


@dataclass(frozen=True, slots=True)
class Observation:
    """One request: the limiter decided on it between ``sent_s`` and ``decided_s``."""

    sent_s: float
    decided_s: float
    accepted: bool | None
    """None where the answer was lost: it may have been counted."""
    answered_s: float | None = None
    """When the answer began to come, which may be long after the decision."""
    unit: bool = False
    """Whether it stands for many tokens, which are what is counted."""


class Observations:
    """Many of them as arrays, in the order of sending. Times are Unix seconds, less ``origin_s``."""

    def __init__(self, seen: Iterable[Observation]) -> None:
        rows = sorted(seen, key=lambda sight: sight.sent_s)
        self.origin_s = rows[0].sent_s if rows else 0.0
        self.units = any(row.unit for row in rows)
        self.lo: Floats = np.array([row.sent_s - self.origin_s for row in rows], dtype=np.float64)
        hi = np.array([row.decided_s - self.origin_s for row in rows], dtype=np.float64)
        self.hi: Floats = np.maximum(hi, self.lo)
        codes = [UNKNOWN if row.accepted is None else int(row.accepted) for row in rows]
        self.seen: Ints = np.array(codes, dtype=np.int64)
        for code in (ACCEPTED, REFUSED):
            # Of requests decided alike, the first that was decided on may as well have been sent first.
            self.hi[self.seen == code] = np.sort(self.hi[self.seen == code])

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

    @cached_property
    def _first_open(self) -> Ints:
        """Return, for each request, the first that may have been open when it was sent."""
        latest = np.maximum.accumulate(self.hi) if len(self) else self.hi
        first: Ints = np.minimum(np.searchsorted(latest, self.lo, side="right"), np.arange(len(self)))
        return first

    @property
    def most_open(self) -> int:
        """Return how many may have been open at a time."""
        return int(np.max(np.arange(len(self)) - self._first_open)) + 1

    def offsets(self, counted: Ints) -> tuple[Ints, Ints]:
        """Return two doubts about each request, since requests in flight together have no order.

        How many of ``counted`` may have been decided after it though sent before, and the reverse. Those that
        were decided alike are left out: they can change places.
        """
        index, first_open = np.arange(len(self)), self._first_open
        last_open = np.maximum(np.searchsorted(self.lo, self.hi, side="left"), index + 1)
        before, after = np.zeros_like(index), np.zeros_like(index)
        for code in (ACCEPTED, REFUSED, UNKNOWN):
            total = np.concatenate([[0], np.cumsum(counted * (self.seen == code))])
            others = self.seen != code
            before += others * (total[index] - total[first_open])
            after += others * (total[last_open] - total[index + 1])
        return before, after
