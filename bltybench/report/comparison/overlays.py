"""The figures of a comparison: the changes, and the sides' distributions in one plot."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bltybench.metrics.latency import ecdf
from bltybench.report import text
from bltybench.report.comparison.model import CandidateSummary, Comparison, Side
from bltybench.report.figures import panels, scales, style
from bltybench.report.figures.drawing import Drawing, drawing, hover_rows, hover_shares

LOOKS: list[tuple[str, Any]] = [
    (style.MUTED, (0, (4, 2))),
    (style.ACCEPTED, "-"),
    (style.PROMPT, (0, (6, 2, 1, 2))),
    (style.OTHER, (0, (2, 1))),
    (style.SECOND, (0, (8, 2))),
]
"""Color and dashes of each side, the base first. Further candidates repeat the looks after the base's."""

VERDICT_LOOKS: dict[str, tuple[str, str]] = {
    "worse": (style.REFUSED, "s"),
    "better": (style.ACCEPTED, "D"),
    "same": (style.INK, "o"),
    "not decided": (style.MUTED, "o"),
    "invalid": (style.SECOND, "X"),
}
"""Color and marker of each verdict."""

DISTRIBUTIONS = {"ttft": "TTFT", "itl": "Inter-token latency", "latency": "Call latency"}

MARGINS = {style.WIDE: style.Margins(200, 14, 16, 32, 0), style.NARROW: style.Margins(150, 14, 16, 32, 0)}
"""Margins of the figure of changes, by width: metric names are on the left."""

MAX_CHANGE = 1.0
"""Largest change that is drawn to scale. A larger one is an arrow at the edge."""


class Curve(NamedTuple):
    """The distribution of one run."""

    side: int
    label: str
    run_id: str
    values: pd.DataFrame


def draw_all(comparison: Comparison, sides: Sequence[Side]) -> list[Drawing]:
    """Draw each candidate's changes, then every distribution with any values."""
    drawn = [
        _changes(number, candidate, comparison.tolerance)
        for number, candidate in enumerate(comparison.candidates)
    ]
    for sample, title in DISTRIBUTIONS.items():
        if any(len(run.samples[sample]) for side in sides for run in side.runs):
            drawn.append(_distribution(sample, title, sides))
    return drawn


def _changes(number: int, candidate: CandidateSummary, tolerance: float) -> Drawing:
    rows = [
        (change.metric, change.verdict, change.change, change.low, change.high)
        for change in candidate.changes
        if change.change is not None and change.low is not None and change.high is not None
    ]
    reach = min(max([tolerance * 3, *(abs(row[2]) * 1.3 for row in rows)]), MAX_CHANGE)

    def draw(width: int) -> Figure:
        figure, (ax,) = style.panels(width, [max(len(rows), 1) * 24 + 10], MARGINS[width])
        _forest(ax, rows, tolerance, reach)
        return figure

    label = text.bounded(candidate.side.label, 60)
    says = (
        f"{label}: {len(candidate.named('worse'))} worse, {len(candidate.named('better'))} better, "
        f"{len(candidate.named('same'))} the same within the tolerance, "
        f"{len(candidate.named('not decided'))} not decided."
    )
    columns = ["metric", "base", "candidate", "change", "low", "high", "verdict"]
    data = pd.DataFrame(
        [[getattr(change, name) for name in columns] for change in candidate.changes], columns=columns
    )
    values = {
        "change, %": [row[2] * 100 for row in rows],
        "from, %": [row[3] * 100 for row in rows],
        "to, %": [row[4] * 100 for row in rows],
    }
    shown = hover_rows([f"{row[0]}: {row[1]}" for row in rows], values, MARGINS)
    name = f"changes-{number}"
    return drawing(name, f"Against the base: {label}", says, draw, {name: data}, shown)


def _forest(
    ax: Axes, rows: Sequence[tuple[str, str, float, float, float]], tolerance: float, reach: float
) -> None:
    """Draw each change as a point with its interval, and the tolerance as a band."""
    ax.axvspan(-tolerance, tolerance, color=style.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    for row, (_, verdict, change, low, high) in enumerate(rows):
        color, marker = VERDICT_LOOKS[verdict]
        fill: Literal["none", "full"] = "none" if verdict == "not decided" else "full"
        ax.plot([low, high], [row, row], color=color, linewidth=2.0, solid_capstyle="butt")
        if abs(change) > reach:
            marker = ">" if change > 0 else "<"
        at = min(max(change, -reach), reach)
        ax.plot(at, row, marker, color=color, markersize=6, fillstyle=fill, clip_on=False)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color=style.GRID, linewidth=0.8)
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.signed(value, "ms")))
    if not rows:
        panels.nothing(ax, "no metric could be compared")


def _distribution(sample: str, title: str, sides: Sequence[Side]) -> Drawing:
    curves = [
        Curve(
            index,
            side.label,
            run.manifest.run_id,
            ecdf(run.samples[sample]).rename(columns={"value": "value_ms"}),
        )
        for index, side in enumerate(sides)
        for run in side.runs
    ]
    values = pd.concat([curve.values["value_ms"] for curve in curves]).to_numpy(dtype=np.float64)

    def draw(width: int) -> Figure:
        figure, (ax,) = style.panels(width, [220 if width == style.WIDE else 190], panels.margins(width))
        for curve in curves:
            color, dashes = LOOKS[0] if curve.side == 0 else LOOKS[1 + (curve.side - 1) % (len(LOOKS) - 1)]
            panels.distribution(ax, curve.values, text.bounded(curve.label, 40), color, dashes)
        scales.log_axis(ax, values, width)
        panels.head(ax, panels.DISTRIBUTION, width)
        return figure

    says = f"Half took at most {'; '.join(_median(side, sample) for side in sides)}."
    data = pd.concat(
        [curve.values.assign(side=curve.label, run=curve.run_id) for curve in curves], ignore_index=True
    )[["side", "run", "value_ms", "share"]]
    shown: dict[str, pd.DataFrame] = {}
    for curve in curves:
        repeated = len(sides[curve.side].runs) > 1
        shown[text.bounded(curve.label, 30) + (f" ({curve.run_id})" if repeated else "")] = curve.values
    name = f"overlay-{sample}"
    return drawing(name, title, says, draw, {name: data}, hover_shares(shown))


def _median(side: Side, sample: str) -> str:
    medians = [run.samples[sample].quantile(0.5) for run in side.runs if len(run.samples[sample])]
    median = float(np.mean(medians)) if medians else None
    return f"{text.milliseconds(median)} ({text.bounded(side.label, 40)})"
