"""Recurring windows of one length from a fixed phase, which several families share."""

import math

from bltybench.limits.models.base import Model


def edge_s(index: float, length_s: float, phase_s: float) -> float:
    """Return the start of a window."""
    return phase_s + index * length_s


def index_at(t_s: float, length_s: float, phase_s: float) -> float:
    """Return the number k of the window [phase + k·length, phase + (k+1)·length) that contains a time."""
    index = float(math.floor((t_s - phase_s) / length_s))
    # The division can round across an edge, so compare with the edges themselves.
    if t_s >= edge_s(index + 1, length_s, phase_s):
        return index + 1
    return index - 1 if t_s < edge_s(index, length_s, phase_s) else index


class Windowed(Model):
    """A model with recurring windows [phase + k·W, phase + (k+1)·W)."""

    def __init__(
        self, limit: int, period_s: float, phase_s: float = 0.0, *, count_refused: bool = False
    ) -> None:
        super().__init__(limit, period_s, count_refused=count_refused)
        self.phase_s = phase_s
        self._window = -math.inf

    def window_of(self, t_s: float) -> float:
        """Return the number k of the window that contains ``t_s``."""
        return index_at(t_s, self.period_s, self.phase_s)

    def _edge(self, window: float) -> float:
        return edge_s(window, self.period_s, self.phase_s)

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the window ends."""
        return self._edge(self._window + 1) - t_s
