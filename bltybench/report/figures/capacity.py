"""The figure of capacity: what a service let through, by what was asked of it, and where it fell behind."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bltybench.metrics.capacity import MIN_SUSTAINED, Capacity
from bltybench.metrics.frame import Floats, floats
from bltybench.report import text
from bltybench.report.figures import panels, style
from bltybench.report.figures.drawing import Drawing, drawing, hover

UNITS = {"rate": "calls a minute", "users": "users"}


def draw(found: Capacity) -> Drawing:
    """Accepted against offered, with TTFT p95 and the refused share under it."""
    points, load = found.points, floats(found.points, "load")
    edge = float(load.max()) * 1.06

    def paint(width: int) -> Figure:
        known = points["ttft_p95_ms"].notna().any()
        figure, axes = style.panels(width, [190, 90 if known else 34, 80], panels.margins(width))
        _accepted(axes[0], found, width)
        _line(axes[1], load, floats(points, "ttft_p95_ms"), (style.INK, "o"))
        panels.head(axes[1], "TTFT p95, ms", width)
        _line(axes[2], load, floats(points, "refused_share") * 100, (style.REFUSED, "s"))
        axes[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes[2].set_ylim(0, max(axes[2].get_ylim()[1], 1.0))
        panels.head(axes[2], f"Refused, of attempts, by {_offered(found)}", width)
        axes[-1].set_xlim(0, edge)
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short(value)))
        for ax in axes:
            if found.beyond is not None:
                ax.axvspan(
                    found.knee or 0.0, found.beyond, facecolor=style.GRID, alpha=0.6, linewidth=0, zorder=0
                )
        return figure

    shown = hover(
        [text.bounded(stage, 40) for stage in points["stage"]],
        {
            UNITS[found.unit]: load,
            "accepted a minute": points["accepted_per_min"],
            "refused, %": floats(points, "refused_share") * 100,
            "TTFT p95 (ms)": points["ttft_p95_ms"],
        },
        at=load / edge,
    )
    return drawing("capacity", "Capacity", sentence(found), paint, {"capacity": points}, shown)


def sentence(found: Capacity) -> str:
    """Say where the knee is."""
    unit, share = UNITS[found.unit], MIN_SUSTAINED[found.unit]
    measure = (
        f"at least {share:.0%} of what was due was accepted"
        if found.unit == "rate"
        else f"the accepted rate grew with the users, to at least {share:.0%} of in proportion"
    )
    highest = float(found.points["load"].max())
    if found.beyond is None:
        return f"No knee up to {text.compact(highest)} {unit}: {measure} at every load."
    if found.knee is None:
        return f"The knee lies below {text.compact(found.beyond)} {unit}, the lowest load that was tried."
    return (
        f"The knee lies between {text.compact(found.knee)} and {text.compact(found.beyond)} {unit}: "
        f"up to there {measure}."
    )


def _accepted(ax: Axes, found: Capacity, width: int) -> None:
    points = found.points
    load, accepted = floats(points, "load"), floats(points, "accepted_per_min")
    slope = float(points["ideal_per_min"].iloc[0] / load[0]) if load[0] > 0 else 1.0
    reach = float(load.max()) * 1.06
    ideal = "all accepted (y = x)" if found.unit == "rate" else "in proportion to the fewest users"
    ax.plot(
        [0, reach], [0, reach * slope], color=style.MUTED, linewidth=1.2, linestyle=(0, (4, 2)), label=ideal
    )
    _line(ax, load, accepted, (style.ACCEPTED, "o"), "accepted a minute")
    if found.knee is not None and found.beyond is not None:
        at = float(np.mean(accepted[np.abs(load - found.knee) <= 0.01 * found.knee]))
        ax.plot(found.knee, at, "D", markersize=10, color=style.INK, fillstyle="none", markeredgewidth=1.8,
                label="the knee")  # fmt: skip
    # As much of y = x as leaves the accepted rates half of the height.
    highest = max(float(accepted.max()), 1.0)
    ax.set_ylim(0, max(highest * 1.25, min(float(load.max()) * slope * 1.06, highest * 2)))
    panels.head(ax, f"Accepted a minute, by {_offered(found)}", width)


def _line(ax: Axes, x: Floats, y: Floats, look: tuple[str, str], label: str | None = None) -> None:
    colour, marker = look
    there = ~np.isnan(y)
    if not there.any():
        panels.nothing(ax, "n too small at every load")
        return
    ax.plot(x[there], y[there], marker, color=colour, markersize=6, linestyle="-", linewidth=1.6, label=label)
    ax.set_ylim(0, max(float(y[there].max()) * 1.2, 0.1))


def _offered(found: Capacity) -> str:
    return "calls due a minute" if found.unit == "rate" else "users"
