"""The steady part of a run, cut into spans of equal length that are nearly independent of each other.

Attempts close in time depend on each other: a slow minute slows all of them, a full window refuses many in a
row. Spans are the blocks of a bootstrap over time (E. Carlstein, Annals of Statistics 14 (1986), 1171; H. R.
Künsch, Annals of Statistics 17 (1989), 1217).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from bltybench.metrics.frame import NS_PER_S, Floats, Ints, ints
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Scenario

MAX_SPANS = 30
"""Maximum number of spans of a run."""
SPAN_S = 10
"""Minimum length of a span."""
SHORT_SPANS, SHORT_SPAN_S = 6, 2
"""A short run, and each stage of one that has stages, has up to SHORT_SPANS spans of SHORT_SPAN_S or more."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of equal length over the concatenated steady parts of a run."""

    parts_ns: Floats
    """Start and end of each steady part on the run's axis, one row per part."""
    count: int
    """Number of spans."""

    @property
    def steady_s(self) -> float:
        """Total length of the steady parts, in seconds."""
        return float(np.diff(self.parts_ns).sum()) / NS_PER_S

    @property
    def span_s(self) -> float:
        """Length of a span, in seconds."""
        return self.steady_s / self.count

    def place(self, at_ns: Ints) -> Ints:
        """Return the span of each time. A time outside the steady parts belongs to the nearest span."""
        before = np.concatenate(([0.0], np.cumsum(np.diff(self.parts_ns))))
        clock = np.column_stack((before[:-1], before[1:]))
        fraction = np.interp(at_ns, self.parts_ns.ravel(), clock.ravel()) / max(before[-1], 1.0)
        return np.asarray(np.clip(fraction * self.count, 0, self.count - 1), dtype=np.int64)


def steady_spans(calls: pd.DataFrame, scenario: Scenario, load_ns: int) -> Spans:
    """Cut a run without its warm-up into spans. ``calls`` excludes the warm-up; the load lasted ``load_ns``.

    The steady part of a planned stage (or of the run) starts after ``warm_up_s``, or with the first call
    after ``warm_up_calls``. The stages of a search or a tournament last from the first call due to the last.
    """
    windows = [
        (begin + _warm_up_ns(scenario, due, begin), end)
        for begin, end, due in _stages(calls, scenario, float(load_ns))
    ]
    parts = np.array([part for part in windows if part[1] > part[0]] or [(0.0, max(float(load_ns), 1.0))])
    seconds = float(np.diff(parts).mean()) / NS_PER_S
    max_spans = max(MAX_SPANS // len(parts), SHORT_SPANS)
    spans = min(max_spans, max(int(seconds // SPAN_S), min(SHORT_SPANS, int(seconds // SHORT_SPAN_S))))
    return Spans(parts, max(spans, 1) * len(parts))


def _warm_up_ns(scenario: Scenario, due: Ints, begin: float) -> float:
    if scenario.warm_up_calls:
        return float(due.min()) - begin if len(due) else 0.0
    return scenario.warm_up_s * NS_PER_S


def _stages(calls: pd.DataFrame, scenario: Scenario, load_ns: float) -> list[tuple[float, float, Ints]]:
    """Return start, end, and the calls' due times of every stage; the load is one if it has none."""
    due = ints(calls, "first_due_ns")
    planned = scenario.stages()
    if planned:
        edges = [min(at_s * NS_PER_S, load_ns) for at_s in (0.0, *(stage.end_s for stage in planned))]
        return [(low, high, due[(due >= low) & (due < high)]) for low, high in pairwise(edges)]
    codes, names = pd.factorize(calls["stage"])
    if not isinstance(scenario.arrivals, CapacitySearch | Tournament) or len(names) == 0:
        return [(0.0, load_ns, due)]
    warm_up_ns = scenario.warm_up_s * NS_PER_S
    by_stage = sorted((due[codes == code] for code in range(len(names))), key=lambda dues: int(dues.min()))
    return [(float(dues.min()) - warm_up_ns, float(dues.max()), dues) for dues in by_stage]
