"""The tournament's figure: what each policy achieved and wasted, with intervals."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bltybench.metrics.policy_choice import IntervalEstimate, Standing, TournamentResult
from bltybench.report.figures import style
from bltybench.report.figures.drawing import Drawing, drawing

ROW_HEIGHT, HEAD, FOOT, GAP = 24, 34, 30, 22
"""Heights of a row, the title of a panel, and its axis, and the space between panels, in pixels."""
LABELS = {style.WIDE: 206, style.NARROW: 158}
"""Space for the names of the policies, in pixels, by width of the drawing."""

TOO_FEW = "too few calls"


def _success_percent(one: Standing) -> IntervalEstimate:
    value, low, high = (
        None if part is None else 100 * part for part in msgspec.structs.astuple(one.ok_share)
    )
    return IntervalEstimate(value or 0.0, low, None if high is None else min(high, 100.0))


Pick = Callable[[Standing], IntervalEstimate | None]
PANELS: tuple[tuple[str, str, tuple[tuple[str, str, Pick], ...]], ...] = (
    ("Goodput per minute", style.ACCEPTED, (("", "o", lambda one: one.goodput_per_min),)),
    ("Success rate, %", style.ACCEPTED, (("", "o", _success_percent),)),
    ("Refusals per success", style.REFUSED, (("", "s", lambda one: one.refusals_per_success),)),
    (
        "Success in, s",
        style.INK,
        (("p50", "o", lambda one: one.success_p50_s), ("p95", "D", lambda one: one.success_p95_s)),
    ),
)
"""Title, color, and values of each panel."""


def draw(result: TournamentResult) -> Drawing:
    """Draw a row for each policy, the best at the top."""
    rows = result.standings

    def paint(width: int) -> Figure:
        across = len(PANELS) if width == style.WIDE else 1
        down = len(PANELS) // across
        height = len(rows) * ROW_HEIGHT
        total = down * (HEAD + height + FOOT)
        figure = Figure(figsize=(width / 72, total / 72), dpi=72, facecolor="none")
        space = (width - LABELS[width] - 14 - GAP * (across - 1)) / across
        for number, (title, color, values) in enumerate(PANELS):
            left = LABELS[width] + (number % across) * (space + GAP)
            bottom = total - (number // across) * (HEAD + height + FOOT) - HEAD - height
            ax = figure.add_axes((left / width, bottom / total, space / width, height / total))
            _panel(ax, title, rows, color, values, named=number % across == 0)
        return figure

    data = {"tournament": pd.DataFrame([_record(one) for one in rows])}
    return drawing("tournament", "Client policies", result.recommendation, paint, data, {})


def _panel(
    ax: Axes,
    title: str,
    rows: Sequence[Standing],
    color: str,
    values: tuple[tuple[str, str, Pick], ...],
    *,
    named: bool,
) -> None:
    style.plain(ax)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color=style.GRID, linewidth=0.8)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), [one.policy for one in rows] if named else [""] * len(rows))
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=style.INK, pad=10)
    highest = 0.0
    for name, marker, pick in values:
        filled = color if name == values[0][0] else style.PAPER
        ax.plot([], [], marker, color=color, markersize=6, markerfacecolor=filled, label=name)
        for at, estimate in enumerate(pick(one) for one in rows):
            if estimate is None:
                continue
            low, high = estimate.low, estimate.high
            if low is not None and high is not None:
                ax.plot([low, high], [at, at], color=color, linewidth=2, alpha=0.55, solid_capstyle="butt")
            ax.plot(estimate.value, at, marker, color=color, markersize=6, markerfacecolor=filled)
            highest = max(highest, high or estimate.value)
    if not any(pick(one) for one in rows for _, _, pick in values):
        ax.text(0.5, 0.5, TOO_FEW, transform=ax.transAxes, ha="center", va="center", color=style.MUTED)
    ax.set_xlim(-0.02 * (highest or 1.0), 1.04 * (highest or 1.0))
    if len(values) > 1:
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9,
                  borderaxespad=0.1, handletextpad=0.1, columnspacing=0.8)  # fmt: skip


def _record(one: Standing) -> dict[str, object]:
    record: dict[str, object] = {"policy": one.policy, "rank": one.rank}
    for name in ("goodput_per_min", "ok_share", "refusals_per_success", "success_p50_s", "success_p95_s"):
        estimate: IntervalEstimate | None = getattr(one, name)
        parts = (
            (np.nan, np.nan, np.nan) if estimate is None else (estimate.value, estimate.low, estimate.high)
        )
        record |= dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
    return record
