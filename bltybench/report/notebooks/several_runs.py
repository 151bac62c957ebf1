"""Several runs as data frames, and what their comparison concludes."""

from collections.abc import Sequence
from itertools import chain

import pandas as pd

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.compare import Difference, Tolerance
from bltybench.metrics.frame import NS_PER_S
from bltybench.metrics.outline import outline
from bltybench.report import text
from bltybench.report.comparison.changes import draw_changes
from bltybench.report.comparison.labels import name_sides
from bltybench.report.comparison.model import Comparison, compare_sides, name_of, value_of
from bltybench.report.comparison.overlays import draw_distributions
from bltybench.report.figures.drawing import Drawing

PERCENTILES = ("p50", "p95")
"""Percentiles of the overview."""


def overview(runs: Sequence[Analysis]) -> pd.DataFrame:
    """Return one row per run.

    Columns: ``run``, ``label`` (null without one), ``scenario``, ``target``, ``valid``, ``lasted_s``,
    ``attempts``, ``accepted_per_min`` and ``tokens_per_min`` (in the best 60 s), ``refused_share`` (of
    attempts), ``ok_share`` (of calls), ``in_flight_max``, and ``ttft_p50_ms``, ``ttft_p95_ms``,
    ``latency_p50_ms``, ``latency_p95_ms`` (null if the sample is too small).
    """
    rows = [
        {
            "run": run.manifest.run_id,
            "label": run.manifest.label or None,
            "scenario": run.manifest.scenario,
            "target": run.manifest.target_names,
            "valid": all(finding.holds for finding in run.findings),
            "lasted_s": run.end_ns / NS_PER_S,
            "attempts": len(run.attempts),
            "accepted_per_min": run.best_of("accepted"),
            "tokens_per_min": run.best_of("total_tokens"),
            "refused_share": run.count_of("refused") / len(run.attempts) if len(run.attempts) else None,
            "ok_share": float(run.calls["ok"].mean()) if len(run.calls) else None,
            "in_flight_max": run.in_flight.max,
        }
        | {
            f"{name}_{percentile}_ms": run.timing(name)[percentile]
            for name in ("ttft", "latency")
            for percentile in PERCENTILES
        }
        for run in runs
    ]
    numbers = [
        "refused_share",
        "ok_share",
        *(f"{n}_{p}_ms" for n in ("ttft", "latency") for p in PERCENTILES),
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, "Float64"))


def attempts(runs: Sequence[Analysis]) -> pd.DataFrame:
    """Return the attempts of all runs, with the run's id in ``run``."""
    return pd.concat([run.attempts.assign(run=run.manifest.run_id) for run in runs], ignore_index=True)


class SeveralRuns:
    """The first of several runs, compared with each of the others."""

    def __init__(self, runs: Sequence[Analysis]) -> None:
        self._sides = name_sides([[outline(run)] for run in runs])
        base, *others = self._sides
        self.comparison: Comparison | None = compare_sides(base, others, Tolerance()) if others else None

    def conclusion(self) -> str:
        """Return what became better or worse, or why that can't be said."""
        if self.comparison is None:
            return "There is only one run here, so there is nothing to compare it with."
        base = self.comparison.base.label
        return " ".join(candidate.answer(base) for candidate in self.comparison.candidates)

    def changes(self) -> pd.DataFrame:
        """Return one row per run and metric that either side has a value for.

        Columns, as text: ``run``, ``metric``, ``base``, ``candidate``, ``change``, ``interval``, ``verdict``,
        ``why``.
        """
        columns = ["run", "metric", "base", "candidate", "change", "interval", "verdict", "why"]
        candidates = self.comparison.candidates if self.comparison else []
        rows = [
            [
                candidate.side.label,
                name_of(change.metric),
                value_of(change.base, change.kind),
                value_of(change.candidate, change.kind),
                text.signed(change.change, change.kind),
                _interval(change),
                change.verdict,
                change.explanation,
            ]
            for candidate in candidates
            for change in candidate.changes
            if change.measured
        ]
        return pd.DataFrame(rows, columns=columns)

    def drawings(self) -> list[Drawing]:
        """Return the comparison's figures, without those that have no values."""
        if self.comparison is None:
            return []
        numbers = range(len(self.comparison.candidates))
        changes = chain.from_iterable(draw_changes(self.comparison, number) for number in numbers)
        return [drawing for drawing in (*changes, *draw_distributions(self._sides)) if drawing.hover]


def _interval(change: Difference) -> str:
    if change.low is None:
        return text.NONE
    return f"{text.signed(change.low, change.kind)} to {text.signed(change.high, change.kind)}"
