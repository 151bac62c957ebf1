"""A proportion with its confidence interval."""

import math
from dataclasses import dataclass

Z = 1.96
"""97.5% quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A proportion, ``count`` of ``of``, with its Wilson 95% interval."""

    count: int
    of: int

    def interval(self) -> tuple[float, float] | None:
        """Return the bounds of the interval; None if ``of`` is 0."""
        if not self.of:
            return None
        p, shrink = self.count / self.of, 1 + Z**2 / self.of
        middle = (p + Z**2 / (2 * self.of)) / shrink
        half = Z / shrink * math.sqrt(p * (1 - p) / self.of + Z**2 / (4 * self.of**2))
        return max(0.0, middle - half), min(1.0, middle + half)
