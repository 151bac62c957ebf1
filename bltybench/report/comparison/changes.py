"""The figures of the changes: each metric with its interval, next to the tolerance and both values."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bltybench.metrics.compare import Difference, Judgment
from bltybench.report import text
from bltybench.report.comparison.model import CandidateSummary, Comparison, name_of, value_of
from bltybench.report.figures import style
from bltybench.report.figures.drawing import Drawing, drawing, hover_rows

LOOKS: dict[Judgment, tuple[str, str]] = {
    "worse": (style.REFUSED, "s"),
    "better": (style.ACCEPTED, "D"),
    "same": (style.INK, "o"),
    "not decided": (style.MUTED, "o"),
    "invalid": (style.OTHER, "X"),
}
"""Color and marker of each verdict."""

MARGINS = {style.WIDE: style.Margins(170, 190, 26, 32, 0), style.NARROW: style.Margins(126, 104, 38, 32, 0)}
"""Margins by width: metric names are on the left, and values on the right."""
SIZES = {style.WIDE: 11, style.NARROW: 9}
"""Font sizes of the rows, by width."""
MAX_REACH = 1.0
"""Largest change that is drawn to scale. Intervals that are longer end in an arrowhead."""
MAX_HEAD_CHARS = {style.WIDE: 28, style.NARROW: 18}
"""Longest head of the values that names the sides, by width."""


def draw_changes(comparison: Comparison, number: int) -> list[Drawing]:
    """Draw the changes of one candidate: times and rates in percent, fractions in percentage points."""
    candidate = comparison.candidates[number]
    figures = (
        (f"changes-{number}", "Times and rates", [one for one in candidate.measured if one.kind != "share"]),
        (f"fractions-{number}", "Fractions", [one for one in candidate.measured if one.kind == "share"]),
    )
    return [
        _changes(name, title, comparison, candidate, rows)
        for name, title, rows in figures
        if any(row.change is not None for row in rows)
    ]


def _changes(
    name: str, title: str, comparison: Comparison, candidate: CandidateSummary, rows: Sequence[Difference]
) -> Drawing:
    kind = rows[0].kind
    tolerance = comparison.tolerance_share if kind == "share" else comparison.tolerance
    ends = [abs(end) for row in rows for end in (row.change, row.low, row.high) if end is not None]
    reach = min(max(tolerance * 3, *ends) * 1.1, MAX_REACH)
    sides = f"{text.bounded(comparison.base.label, 40)} → {text.bounded(candidate.side.label, 40)}"

    def draw(width: int) -> Figure:
        figure, (ax,) = style.panels(width, [len(rows) * 24 + 10], MARGINS[width])
        _forest(ax, rows, tolerance, reach, width)
        _values(ax, rows, sides if len(sides) <= MAX_HEAD_CHARS[width] else "base → candidate", width)
        _legend(ax, rows, text.percent(tolerance).replace("%", " pt" if kind == "share" else "%"), width)
        return figure

    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in LOOKS}
    says = f"{', '.join(f'{count} {verdict}' for verdict, count in counts.items() if count)}."
    if any(end > reach for end in ends):
        says += " Arrowheads mark what is beyond the axis."
    data = pd.DataFrame(
        [(row.metric, row.base, row.candidate, row.change, row.low, row.high, row.verdict) for row in rows],
        columns=["metric", "base", "candidate", "change", "low", "high", "verdict"],
    )
    unit = "points" if kind == "share" else "%"
    values = {
        f"{column}, {unit}": data[end].astype("Float64") * 100
        for column, end in (("change", "change"), ("from", "low"), ("to", "high"))
    }
    shown = hover_rows([f"{name_of(row.metric)}: {row.verdict}" for row in rows], values, MARGINS)
    of = f": {comparison.title(candidate)}" if len(comparison.candidates) > 1 else ""
    return drawing(name, title + of, says, draw, {name: data}, shown)


def _forest(ax: Axes, rows: Sequence[Difference], tolerance: float, reach: float, width: int) -> None:
    """Draw each change as a point with its interval, and the tolerance as a band."""
    ax.axvspan(-tolerance, tolerance, color=style.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    for place, row in enumerate(rows):
        if row.change is None:
            continue
        color, marker = LOOKS[row.verdict]
        low, high = (row.change if end is None else end for end in (row.low, row.high))
        shown = [min(max(end, -reach), reach) for end in (low, high)]
        ax.plot(shown, [place, place], color=color, linewidth=2.0, solid_capstyle="butt")
        if -reach <= row.change <= reach:
            fill: Literal["none", "full"] = "none" if row.verdict == "not decided" else "full"
            ax.plot(row.change, place, marker, color=color, markersize=6, fillstyle=fill, clip_on=False)
        if low < -reach:
            _arrowhead(ax, place, -reach, _span(low, min(high, -reach), row, "from"), color)
        if high > reach:
            _arrowhead(ax, place, reach, _span(max(low, reach), high, row, "to"), color)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color=style.GRID, linewidth=0.8)
    ax.set_yticks(range(len(rows)), [name_of(row.metric) for row in rows], fontsize=SIZES[width])
    ax.xaxis.set_major_locator(MaxNLocator(8 if width == style.WIDE else 3, symmetric=True))
    unit = " pt" if rows[0].kind == "share" else "%"
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.signed(value, "ms").replace("%", unit)))


def _span(low: float, high: float, row: Difference, word: str) -> str:
    """Return the part of an interval beyond the axis: all of it, or its end with ``from`` or ``to``."""
    if (row.low, row.high) == (low, high):
        return f"{text.signed(low, row.kind)} to {text.signed(high, row.kind)}"
    if row.low is None:
        return text.signed(row.change, row.kind)
    return f"{word} {text.signed(row.low if word == 'from' else row.high, row.kind)}"


def _arrowhead(ax: Axes, place: int, edge: float, value: str, color: str) -> None:
    """Mark a value beyond the axis with an arrowhead at the edge, and the value above it."""
    marker, align = (">", "right") if edge > 0 else ("<", "left")
    ax.plot(edge, place, marker, color=color, markersize=7, clip_on=False)
    ax.annotate(
        value,
        (edge, place),
        xytext=(-7 if edge > 0 else 7, 4),
        textcoords="offset points",
        fontsize=9,
        ha=align,
        color=style.MUTED,
    )


def _values(ax: Axes, rows: Sequence[Difference], head: str, width: int) -> None:
    """Write the values of both sides to the right of the plot."""
    shown = [
        (f"{value_of(row.base, row.kind)} → {value_of(row.candidate, row.kind)}", place)
        for place, row in enumerate(rows)
    ]
    for says, place in [(head, -1), *shown]:
        ax.annotate(
            says,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(MARGINS[width].right - 2, 0),
            textcoords="offset points",
            fontsize=SIZES[width],
            ha="right",
            va="center",
            color=style.MUTED if place < 0 else style.INK,
            annotation_clip=False,
        )


def _legend(ax: Axes, rows: Sequence[Difference], tolerance: str, width: int) -> None:
    """Explain the markers that occur, and the band."""
    found = {row.verdict for row in rows if row.change is not None}
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=color, marker=marker, markersize=6, linestyle="",
               fillstyle="none" if verdict == "not decided" else "full", label=verdict)
        for verdict, (color, marker) in LOOKS.items() if verdict in found
    ]  # fmt: skip
    handles.append(Patch(facecolor=style.GRID, label=f"tolerance ±{tolerance}"))
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-(MARGINS[width].left - 4) / ax.get_window_extent().width, 1),
        ncols=6 if width == style.WIDE else 3,
        frameon=False,
        fontsize=10,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.2,
        labelspacing=0.3,
        borderpad=0,
        borderaxespad=0.3,
        labelcolor=style.MUTED,
    )
