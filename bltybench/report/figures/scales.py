"""Axes: the time of a run, and latencies on a logarithmic scale."""

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import Floats, floats
from bltybench.report import text
from bltybench.report.figures import style


def log_axis(ax: Axes, values_ms: Floats, width: int) -> None:
    """Set the axes of a plot of distributions: latency, logarithmic, and 0 to 100%."""
    log_x(ax, values_ms, width)
    ax.set_ylim(0, 100)
    ax.yaxis.set_major_locator(FixedLocator([0, 25, 50, 75, 90, 100]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))


def log_x(ax: Axes, values_ms: Floats, width: int) -> None:
    """Set the x axis for latencies, logarithmic."""
    low, high = log_range(values_ms)
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator(_log_ticks(low, high, dense=width == style.WIDE)))
    ax.xaxis.set_minor_locator(FixedLocator([]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _duration(value)))
    ax.grid(axis="x", color=style.GRID, linewidth=0.8)


def log_range(values_ms: Floats) -> tuple[float, float]:
    """Return the limits of a logarithmic axis."""
    positive = values_ms[values_ms > 0]
    if len(positive) == 0:
        return 1.0, 1000.0
    return float(positive.min()) * 0.8, float(positive.max()) * 1.25


def time_axis(axes: list[Axes], analysis: Analysis, width: int) -> None:
    """Set the time axis that plots share, and shade the stages."""
    end_s = float(analysis.timeline["end_s"].iloc[-1])
    _shade(axes, analysis.stages, end_s, width)
    span_axis(axes, 0.0, end_s, width)


def span_axis(axes: list[Axes], start_s: float, end_s: float, width: int) -> None:
    """Set a shared axis for part of the run's time."""
    axes[-1].set_xlim(start_s, end_s)
    ticks = _time_ticks(start_s, end_s, 10 if width == style.WIDE else 5)
    for ax in axes:
        ax.xaxis.set_major_locator(FixedLocator(ticks))
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.clock(value)))


def _shade(axes: list[Axes], stages: pd.DataFrame, end_s: float, width: int) -> None:
    """Shade every second stage, and label the stages in the first plot if they are wide enough."""
    labeled = len(stages) * 70 <= width
    min_label_s = 58 * end_s / width
    bounds = zip(stages["stage"], floats(stages, "begin_s"), floats(stages, "end_s"), strict=True)
    for index, (name, begin, end) in enumerate(bounds):
        low, high = max(float(begin), 0.0), min(float(end), end_s)
        if index % 2 == 0:
            for ax in axes:
                ax.axvspan(low, high, facecolor=style.GRID, alpha=0.45, linewidth=0, zorder=0)
        if labeled and high - low > min_label_s:
            axes[0].annotate(
                text.bounded(_rounded(str(name).rpartition(": ")[2]), 14),
                ((low + high) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -11),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=style.MUTED,
                bbox={"facecolor": style.PAPER, "alpha": 0.8, "linewidth": 0, "pad": 1.5},
            )


def _rounded(name: str) -> str:
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.4g}", name)


def _time_ticks(start_s: float, end_s: float, max_ticks: int) -> list[float]:
    steps = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
    span_s = end_s - start_s
    step = next((step for step in steps if span_s / step <= max_ticks), span_s)
    first = np.ceil(start_s / step) * step
    return [float(x) for x in np.arange(first, end_s + step / 1000, step)]


def _log_ticks(low: float, high: float, *, dense: bool) -> list[float]:
    steps = (1, 2, 5) if dense and high / low < 1e4 else (1,)
    ticks = [step * 10.0**power for power in range(-3, 8) for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def _duration(ms: float) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"
