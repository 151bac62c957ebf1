"""The capacity figure: the accepted rate by load, and the knee."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bltybench.metrics.capacity import MIN_SUSTAINED, Capacity
from bltybench.metrics.frame import Floats, floats
from bltybench.report import text
from bltybench.report.figures import panels, style
from bltybench.report.figures.drawing import Drawing, drawing, hover

UNITS = {"rate": "calls per minute", "users": "users"}
AXES = {"rate": "calls due per minute", "users": "users"}


def draw(capacity: Capacity) -> Drawing:
    """Draw the accepted rate against the load, with TTFT p95 and the refusal rate below."""
    points, load = capacity.points, floats(capacity.points, "load")
    edge = float(load.max()) * 1.06

    def paint(width: int) -> Figure:
        known = points["ttft_p95_ms"].notna().any()
        figure, axes = style.panels(width, [190, 90 if known else 34, 80], panels.margins(width))
        _accepted(axes[0], capacity, width)
        _line(axes[1], load, floats(points, "ttft_p95_ms"), (style.INK, "o"))
        panels.head(axes[1], "TTFT p95, ms", width)
        _line(axes[2], load, floats(points, "refused_share") * 100, (style.REFUSED, "s"))
        axes[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes[2].set_ylim(0, max(axes[2].get_ylim()[1], 1.0))
        panels.head(axes[2], f"Refusal rate, by {AXES[capacity.unit]}", width)
        axes[-1].set_xlim(0, edge)
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short(value)))
        if capacity.beyond is not None:
            band = (capacity.knee or 0.0, capacity.beyond)
            for ax in axes:
                ax.axvspan(*band, facecolor=style.GRID, alpha=0.6, linewidth=0, zorder=0)
        return figure

    shown = hover(
        [text.bounded(stage, 40) for stage in points["stage"]],
        {
            UNITS[capacity.unit]: load,
            "accepted per minute": points["accepted_per_min"],
            "refused, %": floats(points, "refused_share") * 100,
            "TTFT p95 (ms)": points["ttft_p95_ms"],
        },
        at=load / edge,
    )
    return drawing("capacity", "Capacity", sentence(capacity), paint, {"capacity": points}, shown)


def sentence(capacity: Capacity) -> str:
    """Return the position of the knee."""
    unit, fraction = UNITS[capacity.unit], MIN_SUSTAINED[capacity.unit]
    criterion = (
        f"the server accepted at least {fraction:.0%} of the calls due"
        if capacity.unit == "rate"
        else f"the accepted rate grew at least {fraction:.0%} as much as the number of users"
    )
    highest = text.compact(float(capacity.points["load"].max()))
    if capacity.beyond is None:
        return f"There is no knee up to {highest} {unit}: {criterion} at every load."
    beyond = text.compact(capacity.beyond)
    if capacity.knee is None:
        return f"The knee is below {beyond} {unit}, the lowest load tried."
    return f"The knee is between {text.compact(capacity.knee)} and {beyond} {unit}: below it, {criterion}."


def _accepted(ax: Axes, capacity: Capacity, width: int) -> None:
    points = capacity.points
    load, accepted = floats(points, "load"), floats(points, "accepted_per_min")
    slope = float(points["ideal_per_min"].iloc[0] / load[0]) if load[0] > 0 else 1.0
    reach = float(load.max()) * 1.06
    ideal = "all accepted (y = x)" if capacity.unit == "rate" else "in proportion to the fewest users"
    ax.plot(
        [0, reach], [0, reach * slope], color=style.MUTED, linewidth=1.2, linestyle=(0, (4, 2)), label=ideal
    )
    _line(ax, load, accepted, (style.ACCEPTED, "o"), "accepted per minute")
    if capacity.knee is not None and capacity.beyond is not None:
        at = float(np.mean(accepted[np.abs(load - capacity.knee) <= 0.01 * capacity.knee]))
        ax.plot(capacity.knee, at, "D", markersize=10, color=style.INK, fillstyle="none", markeredgewidth=1.8,
                label="knee")  # fmt: skip
    # Show as much of y = x as leaves half of the height to the accepted rates.
    highest = max(float(accepted.max()), 1.0)
    ax.set_ylim(0, max(highest * 1.25, min(float(load.max()) * slope * 1.06, highest * 2)))
    panels.head(ax, f"Accepted per minute, by {AXES[capacity.unit]}", width)


def _line(ax: Axes, x: Floats, y: Floats, look: tuple[str, str], label: str | None = None) -> None:
    color, marker = look
    known = ~np.isnan(y)
    if not known.any():
        panels.nothing(ax, "n too small at every load")
        return
    ax.plot(x[known], y[known], marker, color=color, markersize=6, linestyle="-", linewidth=1.6, label=label)
    ax.set_ylim(0, max(float(y[known].max()) * 1.2, 0.1))
