"""The bracket of a capacity search: which load to try next, and what the trials have established."""

import math

MIN_LOAD_FRACTION = 1 / 64
"""Lowest load to try, as a fraction of the first."""


class Bracket:
    """An interval of loads: a search outward from the first load, then a bisection, then confirmations.

    A load holds or fails by the majority of its own trials; a tie is resolved by another trial. One trial is
    enough to narrow the interval, but once the interval is small enough, each end needs ``confirm`` trials
    that agree. An end that is outvoted then reopens the interval.
    """

    def __init__(
        self, start: float, maximum: float, *, precision: float, confirm: int, whole: bool, step: float = 2.0
    ) -> None:
        self._start = start
        self._minimum = max(1.0, start * MIN_LOAD_FRACTION) if whole else start * MIN_LOAD_FRACTION
        self._maximum = maximum
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
        """Add the outcome of a trial at ``level``, and choose the next level."""
        self._trials.append((self.level, held))
        following = self._next()
        self.done = following is None
        self.level = self.level if following is None else following

    def _margins(self) -> dict[float, int]:
        """Return how many more trials held than failed, by load."""
        margins: dict[float, int] = {}
        for load, held in self._trials:
            margins[load] = margins.get(load, 0) + (1 if held else -1)
        return margins

    def _next(self) -> float | None:
        """Return the load to try next; None if the search is done."""
        tied = next((load for load, margin in self._margins().items() if margin == 0), None)
        if tied is not None:
            return tied
        low, high = self.holds, self.fails
        between = self._between(low, high)
        if between is not None:
            return between
        if high is not None and self._trials.count((high, False)) < self._confirm:
            return high
        return low if low is not None and self._trials.count((low, True)) < self._confirm else None

    def _between(self, low: float | None, high: float | None) -> float | None:
        """Return a load inside the interval, or outside if an end is missing; None if it is small enough."""
        if low is None and high is not None:
            if high <= self._minimum:
                return None
            lower = high / self._factor(sum(load < self._start for load in self._margins()))
            return max(self._minimum, math.floor(lower) if self._whole else lower)
        if low is not None and high is None:
            if low >= self._maximum:
                return None
            upper = low * self._factor(sum(load > self._start for load in self._margins()))
            return min(self._maximum, max(low + 1, math.floor(upper)) if self._whole else upper)
        if low is None or high is None:
            return self._start
        if self._whole:
            small, middle = high - low <= max(1.0, low * self._precision), float((low + high) // 2)
        else:
            small, middle = high <= low * (1 + self._precision), math.sqrt(low * high)
        return None if small else middle

    def _factor(self, steps: int) -> float:
        """Return the factor of the next step outward after ``steps``: step, step², step⁴, …, at most 2."""
        return math.exp(min(math.log(2), math.log(self._step) * 2**steps))
