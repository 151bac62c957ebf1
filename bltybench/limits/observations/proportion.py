"""A proportion with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proportion:
    """So many of so many, with Wilson's 95% interval."""

    count: int
    of: int

    def interval(self) -> tuple[float, float] | None:
        """Return the interval of the share, None of nothing."""
        if not self.of:
            return None
        z, p = 1.96, self.count / self.of
        middle = (p + z * z / (2 * self.of)) / (1 + z * z / self.of)
        half = z / (1 + z * z / self.of) * math.sqrt(p * (1 - p) / self.of + z * z / (4 * self.of**2))
        return max(0.0, middle - half), min(1.0, middle + half)
