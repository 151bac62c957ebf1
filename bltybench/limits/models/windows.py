"""Windows of one length that follow each other from a phase on: what several families share."""

from __future__ import annotations

import math

from bltybench.limits.models.base import Model


class Windowed(Model):
    """Knows in which window [phase + k·W, phase + (k+1)·W) a time lies."""

    def __init__(
        self, limit: int, period_s: float, phase_s: float = 0.0, *, count_refused: bool = False
    ) -> None:
        super().__init__(limit, period_s, count_refused=count_refused)
        self.phase_s = phase_s
        self._window = -math.inf

    def _edge(self, window: float) -> float:
        return self.phase_s + window * self.period_s

    def window_of(self, t_s: float) -> float:
        """Return the whole number k of the window that holds ``t_s``."""
        window = float(math.floor((t_s - self.phase_s) / self.period_s))
        # The division may round over an edge; the edges themselves decide.
        if t_s >= self._edge(window + 1):
            return window + 1
        if t_s < self._edge(window):
            return window - 1
        return window
