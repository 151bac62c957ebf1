"""Buckets: a level of tokens that requests lower and that refills up to a capacity."""

from abc import abstractmethod

from bltybench.limits.models.base import Model


class Bucket(Model):
    """A model whose state is the level after the last charge."""

    counts_refused = False

    def __init__(self, limit: int, period_s: float, capacity: int) -> None:
        super().__init__(limit, period_s)
        self._level = float(capacity)
        """Level after the last charge."""

    @abstractmethod
    def _level_at(self, t_s: float) -> float:
        """Return the level at ``t_s``, at most the capacity."""

    def _refund(self, charged_s: float, cost: float) -> None:
        # The capacity still applies: _level_at enforces it.
        self._level += cost

    def remaining(self, t_s: float) -> float:
        """Return the level, which is fractional if the refill is."""
        return max(0.0, self._level_at(t_s))
