"""The steady part of a run, cut into spans of equal length: what is near in time is taken together.

Attempts close in time are not independent: a slow minute is slow for all of them, a full window refuses a row
of them. Spans that are long beside that are nearly so: the blocks of a bootstrap over time (E. Carlstein,
Annals of Statistics 14 (1986), 1171; H. R. Künsch, Annals of Statistics 17 (1989), 1217).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import NS_PER_S, Floats, Ints, ints
from bltybench.runs.manifest import Manifest

SPANS = 30
"""A run is cut into so many spans at most …"""

SPAN_S = 10
"""… of at least so many seconds …"""

FEW_SPANS, SHORT_SPAN_S = 6, 2
"""… but a short run, and each stage of one that has stages, into so many of fewer seconds."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of equal length over the steady parts of a run, laid end to end."""

    begins_ns: Floats
    """Where each steady part begins on the run's axis …"""
    ends_ns: Floats
    """… and where it ends."""
    count: int

    @property
    def steady_s(self) -> float:
        """How long the steady parts last together (s)."""
        return float(np.sum(self.ends_ns - self.begins_ns)) / NS_PER_S

    @property
    def span_s(self) -> float:
        """How long one span lasts (s)."""
        return self.steady_s / self.count

    def place(self, at_ns: Ints) -> Ints:
        """Return the span of each moment; one outside the steady parts belongs to the nearest."""
        lengths = self.ends_ns - self.begins_ns
        before = np.concatenate(([0.0], np.cumsum(lengths)))
        axis = np.column_stack((self.begins_ns, self.ends_ns)).reshape(-1)
        clock = np.column_stack((before[:-1], before[1:])).reshape(-1)
        share = np.interp(at_ns, axis, clock) / max(before[-1], 1.0)
        return np.asarray(np.clip(share * self.count, 0, self.count - 1), dtype=np.int64)


def steady_spans(calls: pd.DataFrame, manifest: Manifest, end_ns: int) -> Spans:
    """Cut a run without its warm-up into spans. ``calls``: those that are not warm-up.

    Steady is, of each stage as planned (of the run, where there are none), what follows ``warm_up_s``, or the
    first call after ``warm_up_calls``. The stages of a search go from their first call's due to their last's.
    """
    resolved = manifest.resolved
    load_ns = float(end_ns if manifest.ended_ns is None else manifest.ended_ns)
    windows = [
        (begin + _warm_up_ns(resolved, due, begin), end)
        for begin, end, due in _stages(calls, resolved, load_ns)
    ]
    parts = np.array([part for part in windows if part[1] > part[0]] or [(0.0, max(load_ns, 1.0))])
    seconds = float(np.sum(parts[:, 1] - parts[:, 0])) / NS_PER_S / len(parts)
    most = max(SPANS // len(parts), FEW_SPANS)
    each = min(most, max(int(seconds // SPAN_S), min(FEW_SPANS, int(seconds // SHORT_SPAN_S))))
    return Spans(parts[:, 0], parts[:, 1], max(each, 1) * len(parts))


def _warm_up_ns(resolved: dict[str, Any], due: Ints, begin: float) -> float:
    if resolved.get("warm_up_calls"):
        return float(due.min()) - begin if len(due) else 0.0
    return float(resolved.get("warm_up_s") or 0.0) * NS_PER_S


def _stages(calls: pd.DataFrame, resolved: dict[str, Any], load_ns: float) -> list[tuple[float, float, Ints]]:
    """Return begin, end and the calls' dues of every stage, in order; the whole load where there are none."""
    due = ints(calls, "first_due_ns")
    arrivals = resolved.get("arrivals", {})
    steps = arrivals.get("rates_per_min") or arrivals.get("users")
    if steps:
        step_ns = float(resolved["duration_s"]) * NS_PER_S / len(steps)
        edges = [min(step * step_ns, load_ns) for step in range(len(steps) + 1)]
        return [(low, high, due[(due >= low) & (due < high)]) for low, high in pairwise(edges)]
    codes, names = pd.factorize(calls["stage"])
    if arrivals.get("kind") != "search" or len(names) == 0:
        return [(0.0, load_ns, due)]
    warm_up_ns = float(resolved.get("warm_up_s") or 0.0) * NS_PER_S
    own = sorted((due[codes == code] for code in range(len(names))), key=lambda each: int(each.min()))
    return [(float(each.min()) - warm_up_ns, float(each.max()), each) for each in own]
