"""A proportion with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proportion:
    """A proportion, ``count`` of ``of``, with its Wilson 95% interval."""

    count: int
    of: int

    def interval(self) -> tuple[float, float] | None:
        """Return the bounds of the interval; None if ``of`` is 0."""
        if not self.of:
            return None
        from scipy.stats import binomtest  # noqa: PLC0415 - takes 1 s to import, and only results need it

        low, high = binomtest(self.count, self.of).proportion_ci(method="wilson")
        return float(low), float(high)
