"""The figures of a comparison: sides drawn over one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bltybench.metrics.latency import ecdf
from bltybench.metrics.outline import Outline
from bltybench.report import text
from bltybench.report.figures import panels, scales, style
from bltybench.report.figures.drawing import Drawing, drawing, hover_rows, hover_shares

if TYPE_CHECKING:
    from bltybench.report.comparison.comparison import CandidateSummary, Comparison

Sides = Sequence[tuple[str, Sequence[Outline]]]

LOOKS: list[tuple[str, Any]] = [
    (style.MUTED, (0, (4, 2))),
    (style.ACCEPTED, "-"),
    (style.PROMPT, (0, (6, 2, 1, 2))),
    (style.OTHER, (0, (2, 1))),
    (style.SECOND, (0, (8, 2))),
]
"""Colour and dashes of each side, the base first; more sides begin again after the base."""

VERDICT_COLOURS = {
    "worse": style.REFUSED,
    "better": style.ACCEPTED,
    "same": style.INK,
    "cannot tell": style.MUTED,
}

DISTRIBUTIONS = {"ttft": "TTFT", "itl": "Inter-token latency", "latency": "Call latency"}

ROOM = {style.WIDE: style.Margins(200, 14, 16, 32, 0), style.NARROW: style.Margins(150, 14, 16, 32, 0)}
"""Around the changes, by width of drawing: their names stand on the left."""

WIDEST = 1.0
"""Changes are drawn up to ±100%; one beyond is an arrow at the edge."""


def draw_all(comparison: Comparison, sides: Sides) -> list[Drawing]:
    """Draw each candidate's changes, then every distribution that any side has."""
    drawn = [
        _changes(number, candidate, comparison) for number, candidate in enumerate(comparison.candidates)
    ]
    for sample, title in DISTRIBUTIONS.items():
        if any(len(run.samples[sample]) for _, runs in sides for run in runs):
            drawn.append(_distribution(sample, title, sides))
    return drawn


def _changes(number: int, candidate: CandidateSummary, comparison: Comparison) -> Drawing:
    rows = [
        (one.metric, one.verdict, one.change, one.low, one.high)
        for one in candidate.changes
        if one.change is not None and one.low is not None and one.high is not None
    ]
    tolerance = comparison.tolerance
    reach = min(max([tolerance * 3, *(abs(row[2]) * 1.3 for row in rows)]), WIDEST)

    def draw(width: int) -> Figure:
        figure, (ax,) = style.panels(width, [max(len(rows), 1) * 24 + 10], ROOM[width])
        _forest(ax, rows, tolerance, reach)
        return figure

    worse, better = candidate.named("worse"), candidate.named("better")
    says = (
        f"{text.bounded(candidate.side.label, 60)}: {len(worse)} worse, {len(better)} better, "
        f"{len(candidate.named('same'))} the same within the tolerance, "
        f"{len(candidate.named('cannot tell'))} cannot be told."
    )
    title = f"Against the base: {text.bounded(candidate.side.label, 60)}"
    data = pd.DataFrame(
        [
            {"metric": one.metric, "base": one.base, "candidate": one.candidate, "change": one.change,
             "low": one.low, "high": one.high, "verdict": one.verdict}
            for one in candidate.changes
        ]
    )  # fmt: skip
    columns = {
        "change, %": [row[2] * 100 for row in rows],
        "from, %": [row[3] * 100 for row in rows],
        "to, %": [row[4] * 100 for row in rows],
    }
    shown = hover_rows([f"{row[0]}: {row[1]}" for row in rows], columns, ROOM)
    return drawing(f"changes-{number}", title, says, draw, {f"changes-{number}": data}, shown)


def _forest(
    ax: Axes, rows: Sequence[tuple[str, str, float, float, float]], tolerance: float, reach: float
) -> None:
    """Draw each change as a point with its interval, the tolerance as a band."""
    ax.axvspan(-tolerance, tolerance, color=style.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    markers = {"worse": "s", "better": "D", "same": "o", "cannot tell": "o"}
    for place, (_, verdict, change, low, high) in enumerate(rows):
        colour = VERDICT_COLOURS[verdict]
        fill: Literal["none", "full"] = "none" if verdict == "cannot tell" else "full"
        ax.plot([low, high], [place, place], color=colour, linewidth=2.0, solid_capstyle="butt")
        marker = markers[verdict] if abs(change) <= reach else ">" if change > 0 else "<"
        at = min(max(change, -reach), reach)
        ax.plot(at, place, marker, color=colour, markersize=6, fillstyle=fill, clip_on=False)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color=style.GRID, linewidth=0.8)
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.signed(value, "ms")))
    if not rows:
        panels.nothing(ax, "nothing could be compared")


def _distribution(sample: str, title: str, sides: Sides) -> Drawing:
    drawn = [
        (place, label, run.manifest.run_id, ecdf(run.samples[sample]).rename(columns={"value": "value_ms"}))
        for place, (label, runs) in enumerate(sides)
        for run in runs
    ]
    values = pd.concat([curve["value_ms"] for *_, curve in drawn]).to_numpy(dtype=np.float64)

    def draw(width: int) -> Figure:
        figure, (ax,) = style.panels(width, [220 if width == style.WIDE else 190], panels.margins(width))
        for place, label, _, curve in drawn:
            colour, dashes = look(place)
            panels.distribution(ax, curve, text.bounded(label, 40), colour, dashes)
        scales.log_axis(ax, values, width)
        panels.head(ax, "Share that took at most so long", width)
        return figure

    medians = [_median(label, runs, sample) for label, runs in sides]
    says = f"Half took at most {'; '.join(medians)}."
    data = pd.concat([curve.assign(side=label, run=run) for _, label, run, curve in drawn], ignore_index=True)
    curves = {
        f"{text.bounded(label, 30)} ({run})" if len(sides[place][1]) > 1 else text.bounded(label, 30): curve
        for place, label, run, curve in drawn
    }
    name = f"overlay-{sample}"
    data = data[["side", "run", "value_ms", "share"]]
    return drawing(name, title, says, draw, {name: data}, hover_shares(curves))


def look(place: int) -> tuple[str, Any]:
    """Return colour and dashes of a side."""
    return LOOKS[0] if place == 0 else LOOKS[1 + (place - 1) % (len(LOOKS) - 1)]


def _median(label: str, runs: Sequence[Outline], sample: str) -> str:
    known = [run.samples[sample].quantile(0.5) for run in runs if len(run.samples[sample])]
    return f"{text.milliseconds(float(np.mean(known)) if known else None)} ({text.bounded(label, 40)})"
