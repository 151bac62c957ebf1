"""Which load does a search try next, and what is it sure of? Pure: it is told how each trial went."""

from __future__ import annotations

import math

LEAST = 1 / 64
"""A search that has gone down to this part of its start without anything that holds gives up."""


class Bracket:
    """Goes up until a load fails or down until one holds, takes the middle, and then repeats both ends.

    A load is taken to hold, or to fail, as most of its own trials say; where they are even, it is tried once
    more. A single trial is enough to narrow the interval, but each end of one that is small enough must have
    ``confirm`` trials that agree. An end that is outvoted there opens the interval again.
    """

    def __init__(
        self, start: float, most: float, *, precision: float, confirm: int, whole: bool, step: float = 2.0
    ) -> None:
        self._start = start
        self._least = max(1.0, start * LEAST) if whole else start * LEAST
        self._most = most
        self._precision = precision
        self._confirm = confirm
        self._whole = whole
        self._step = step
        self._trials: list[tuple[float, bool]] = []
        self.level = start
        """The load to try now."""
        self.done = False

    @property
    def holds(self) -> float | None:
        """The lower end: the highest load that held and is below all that failed."""
        high = self.fails
        held = (load for load, margin in self._margins().items() if margin > 0)
        return max((load for load in held if high is None or load < high), default=None)

    @property
    def fails(self) -> float | None:
        """The upper end: the lowest load that failed."""
        return min((load for load, margin in self._margins().items() if margin < 0), default=None)

    def add(self, held: bool) -> None:
        """Take in how a trial at ``level`` went, and choose the next level."""
        self._trials.append((self.level, held))
        following = self._next()
        self.done = following is None
        self.level = self.level if following is None else following

    def _margins(self) -> dict[float, int]:
        """Return, for each load, how many more of its trials held than failed."""
        margins: dict[float, int] = {}
        for load, held in self._trials:
            margins[load] = margins.get(load, 0) + (1 if held else -1)
        return margins

    def _next(self) -> float | None:
        """Return the load to try next; None where the search is done."""
        even = next((load for load, margin in self._margins().items() if margin == 0), None)
        if even is not None:
            return even
        low, high = self.holds, self.fails
        between = self._between(low, high)
        if between is not None:
            return between
        if high is not None and self._trials.count((high, False)) < self._confirm:
            return high
        return low if low is not None and self._trials.count((low, True)) < self._confirm else None

    def _between(self, low: float | None, high: float | None) -> float | None:
        """Return a load inside the interval, beyond it where an end is missing; None where it is small."""
        if low is None and high is not None:
            lower = high / self._factor(sum(load < self._start for load in self._margins()))
            return (
                None if high <= self._least else max(self._least, math.floor(lower) if self._whole else lower)
            )
        if low is not None and high is None:
            upper = low * self._factor(sum(load > self._start for load in self._margins()))
            if self._whole:
                upper = max(low + 1, math.floor(upper))
            return None if low >= self._most else min(self._most, upper)
        if low is None or high is None:
            return self._start
        if self._whole:
            return None if high - low <= max(1.0, low * self._precision) else float((low + high) // 2)
        return None if high <= low * (1 + self._precision) else math.sqrt(low * high)

    def _factor(self, steps: int) -> float:
        """Return the factor of the next step outwards, after so many of them: step, step², step⁴, …, 2."""
        return math.exp(min(math.log(2), math.log(self._step) * 2**steps))
