"""The panels that figures are made of: each paints one plot of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import NS_PER_S, Floats, floats, ints
from bltybench.metrics.latency import ecdf
from bltybench.report import style, text

MAX_DOTS = 1500
"""Single measurements drawn in the TTFT panel; more than that is a cloud anyway."""

LABELS = {style.WIDE: 52, style.NARROW: 40}
"""Room for the labels left of the plots, in pixels, by width of drawing."""


def margins(width: int) -> style.Margins:
    """Return the room around plots in a drawing of this width."""
    if width == style.WIDE:
        return style.Margins(LABELS[width], 14, 40, 32, 52)
    return style.Margins(LABELS[width], 8, 70, 30, 70)


def requests(ax: Axes, analysis: Analysis, width: int) -> None:
    """Attempts by fate in each bin, and the rolling 60 s of what was offered and accepted."""
    lines, rolled = analysis.timeline, analysis.rolling
    bin_s = float(lines["end_s"].iloc[0])
    per_min = 60 / bin_s
    base, bins = np.zeros(len(lines)), _bins(lines)
    parts = (
        ("accepted", style.ACCEPTED, None),
        ("refused", style.REFUSED, "/////"),
        ("other", style.OTHER, "xxxxx"),
    )
    for fate, colour, hatch in parts:
        height = lines[fate].to_numpy(dtype=np.float64) * per_min
        if fate != "accepted" and not height.any():
            continue
        # One shape for all bins: a bar for each takes longer to draw than all the rest of the page.
        ax.stairs(base + height, bins, baseline=base, fill=True, label=fate, linewidth=0,
                  facecolor=style.PAPER if hatch else colour, edgecolor=colour, hatch=hatch,
                  alpha=None if hatch else 0.35)  # fmt: skip
        base = base + height
    ax.plot(rolled["at_s"], rolled["offered"], color=style.MUTED, linewidth=1.3, linestyle=(0, (4, 2)),
            label="offered, last 60 s")  # fmt: skip
    ax.plot(
        rolled["at_s"], rolled["accepted"], color=style.ACCEPTED, linewidth=2.2, label="accepted, last 60 s"
    )
    _scale(ax, analysis.manifest.target.requests_per_min, float(rolled["offered"].max()), float(base.max()))
    head(ax, "Requests a minute", width)


def tokens(ax: Axes, analysis: Analysis, width: int) -> None:
    """Tokens in and out in each bin, and the rolling 60 s of both."""
    lines, rolled = analysis.timeline, analysis.rolling
    bin_s = float(lines["end_s"].iloc[0])
    per_min = 60 / bin_s
    prompt = lines["prompt_tokens"].to_numpy(dtype=np.float64) * per_min
    completion = lines["completion_tokens"].to_numpy(dtype=np.float64) * per_min
    bins = _bins(lines)
    ax.stairs(prompt, bins, fill=True, color=style.PROMPT, alpha=0.55, linewidth=0, label="in")
    ax.stairs(prompt + completion, bins, baseline=prompt, fill=True, color=style.COMPLETION, alpha=0.8,
              linewidth=0, label="out")  # fmt: skip
    ax.plot(rolled["at_s"], rolled["tokens"], color=style.PROMPT, linewidth=2.0, label="both, last 60 s")
    tallest = float((prompt + completion).max())
    _scale(ax, analysis.manifest.target.tokens_per_min, float(rolled["tokens"].max()), tallest)
    head(ax, "Tokens a minute", width)


def in_flight(ax: Axes, analysis: Analysis, width: int) -> None:
    """Mean and peak of open attempts."""
    lines, rolled = analysis.timeline, analysis.rolling
    ax.stairs(lines["in_flight_mean"], _bins(lines), fill=True, color=style.ACCEPTED, alpha=0.3, linewidth=0,
              label="mean")  # fmt: skip
    peak = rolled["in_flight_max"].to_numpy()[1:]
    ax.stairs(peak, rolled["at_s"], color=style.ACCEPTED, linewidth=1.4, label="peak")
    _scale(ax, analysis.manifest.target.concurrency, float(peak.max()))
    head(ax, "Requests in flight", width)


def _bins(lines: pd.DataFrame) -> Floats:
    """Return the edges of the timeline's bins, one more than there are bins."""
    return np.append(floats(lines, "start_s"), float(lines["end_s"].iloc[-1]))


def ttft(ax: Axes, analysis: Analysis, width: int) -> None:
    """TTFT of each stream, and its percentiles over the last 60 s."""
    rolled, attempts = analysis.rolling, analysis.attempts
    streams = attempts.loc[attempts["ttft_ms"].notna(), ["at_ns", "ttft_ms"]]
    at, ms = ints(streams, "at_ns") / NS_PER_S, floats(streams, "ttft_ms")
    # Every k-th, not a random draw: the same run must give the same picture.
    step = max(1, -(-len(at) // MAX_DOTS))
    ax.scatter(
        at[::step], ms[::step], s=16, color=style.ACCEPTED, alpha=0.6, linewidths=0, label="each stream"
    )
    p50, p95 = floats(rolled, "ttft_p50_ms"), floats(rolled, "ttft_p95_ms")
    if not np.isnan(p50).all():
        ax.plot(rolled["at_s"], p50, color=style.INK, linewidth=1.8, label="p50, last 60 s")
    if not np.isnan(p95).all():
        ax.plot(
            rolled["at_s"], p95, color=style.INK, linewidth=1.3, linestyle=(0, (4, 2)), label="p95, last 60 s"
        )
    ax.set_ylim(0, max(float(ms.max()) * 1.1, 1.0) if len(ms) else 1.0)
    if len(ms) == 0:
        nothing(ax, "no stream succeeded")
    head(ax, "TTFT, ms", width)


CURVES = (
    ("ttft", "TTFT", style.ACCEPTED, "-"),
    ("latency", "call latency", style.PROMPT, (0, (6, 2))),
    ("attempt_latency", "attempt latency", style.OTHER, (0, (2, 2))),
    ("itl", "ITL", style.SECOND, (0, (6, 2, 1, 2))),
)


def curves(analysis: Analysis) -> pd.DataFrame:
    """Return the distributions behind ``latency``: ``metric``, ``value_ms``, ``share`` at or below it."""
    parts = [ecdf(analysis.samples[name]).assign(metric=name) for name, *_ in CURVES]
    joined = pd.concat(parts, ignore_index=True).rename(columns={"value": "value_ms"})
    return joined[["metric", "value_ms", "share"]]


def latency(ax: Axes, analysis: Analysis, data: pd.DataFrame, width: int) -> None:
    """Distributions (``data``: those of ``curves``) on a logarithmic axis."""
    for name, label, colour, dashes in CURVES:
        curve = data[data["metric"] == name]
        if len(curve):
            named = f"{label} (n {len(analysis.samples[name]):,})"
            distribution(ax, curve, named, colour, dashes)
    if data.empty:
        nothing(ax, "nothing succeeded")
    log_axis(ax, data["value_ms"].to_numpy(dtype=np.float64), width)
    head(ax, "Share that took at most so long", width)


def distribution(ax: Axes, curve: pd.DataFrame, label: str, colour: str, dashes: Any) -> None:
    """Draw one distribution: ``value_ms``, ``share`` at or below it."""
    ax.step(
        curve["value_ms"],
        curve["share"] * 100,
        where="post",
        color=colour,
        linestyle=dashes,
        linewidth=1.8,
        label=label,
    )


def log_axis(ax: Axes, values_ms: Floats, width: int) -> None:
    """Give a plot of distributions its axes: times on a logarithmic one, shares from none to all."""
    low, high = log_range(values_ms)
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(0, 100)
    ax.yaxis.set_major_locator(FixedLocator([0, 25, 50, 75, 90, 100]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    ax.xaxis.set_major_locator(FixedLocator(_log_ticks(low, high, dense=width == style.WIDE)))
    ax.xaxis.set_minor_locator(FixedLocator([]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _duration(value)))
    ax.grid(axis="x", color=style.GRID, linewidth=0.8)


def log_range(values_ms: Floats) -> tuple[float, float]:
    """Return from where to where a logarithmic axis of times goes."""
    positive = values_ms[values_ms > 0]
    if len(positive) == 0:
        return 1.0, 1000.0
    return float(positive.min()) * 0.8, float(positive.max()) * 1.25


def time_axis(axes: list[Axes], analysis: Analysis, width: int) -> None:
    """Give plots that share it the run's time axis."""
    end_s = float(analysis.timeline["end_s"].iloc[-1])
    _shade(axes, analysis.stages, end_s, width)
    span_axis(axes, 0.0, end_s, width)


def span_axis(axes: list[Axes], start_s: float, end_s: float, width: int) -> None:
    """Give plots that share it an axis of part of the run's time."""
    axes[-1].set_xlim(start_s, end_s)
    ticks = _time_ticks(start_s, end_s, 10 if width == style.WIDE else 5)
    for ax in axes:
        ax.xaxis.set_major_locator(FixedLocator(ticks))
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.clock(value)))


def _shade(axes: list[Axes], stages: pd.DataFrame, end_s: float, width: int) -> None:
    """Shade every second stage, and name them over the first plot where there is room."""
    named = len(stages) * 70 <= width
    bounds = zip(stages["stage"], floats(stages, "begin_s"), floats(stages, "end_s"), strict=True)
    for place, (name, begin, end) in enumerate(bounds):
        low, high = max(float(begin), 0.0), min(float(end), end_s)
        if place % 2 == 0:
            for ax in axes:
                ax.axvspan(low, high, facecolor=style.GRID, alpha=0.45, linewidth=0, zorder=0)
        if named and high > low:
            axes[0].annotate(
                text.bounded(str(name).rpartition(": ")[2], 14),
                ((low + high) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -11),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=style.MUTED,
                bbox={"facecolor": style.PAPER, "alpha": 0.8, "linewidth": 0, "pad": 1.5},
            )


TIMED: dict[str, Callable[[Axes, Analysis, int], None]] = {
    "requests": requests,
    "tokens": tokens,
    "in_flight": in_flight,
    "ttft": ttft,
}
"""The panels that share the time axis, from the top."""


def _scale(ax: Axes, limit: int | None, lines: float, bins: float = 0.0) -> None:
    """Choose the height of a plot from its highest line and its tallest bin, and draw the documented limit.

    What would flatten everything else is cut off or left out, and the key says so.
    """
    top = max(lines, 1.0)
    if limit is not None and limit <= 2.5 * max(top, bins):
        ax.axhline(limit, color=style.INK, linewidth=1.2, linestyle=(0, (1, 1.6)), label=f"limit {limit:,}")
        top = max(top, float(limit))
    elif limit is not None:
        ax.plot([], [], "^", color=style.MUTED, markersize=5, label=f"limit {limit:,}, far above")
    if bins > 4 * top:
        top *= 2
        ax.plot([], [], "^", color=style.MUTED, markersize=5, label=f"cut off, up to {bins:,.0f}")
    else:
        top = max(top, bins)
    ax.set_ylim(0, top * 1.12)


def head(ax: Axes, title: str, width: int) -> None:
    """Put a panel's name over its left corner, and its key beside it (wide) or under it (narrow)."""
    box, wide = ax.get_window_extent(), width == style.WIDE
    keyed = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    labels = sorted(keyed, key=_place_in_key)
    columns = 6 if wide else 3 if sum(map(len, labels)) < 70 else 2
    above = 12 if wide else 12 + 16 * -(-len(labels) // columns)
    ax.annotate(
        title,
        (0, 1),
        xycoords="axes fraction",
        xytext=(-LABELS[width], above),
        textcoords="offset points",
        fontsize=13,
        fontweight="bold",
        color=style.INK,
    )
    if not labels:
        return
    left = -LABELS[width] / box.width
    ax.legend(
        [keyed[label] for label in labels],
        labels,
        bbox_to_anchor=(1, 1 + 3 / box.height) if wide else (left, 1 + 4 / box.height),
        loc="lower right" if wide else "lower left",
        ncols=columns,
        frameon=False,
        fontsize=11 if wide else 10,
        handlelength=1.5,
        handletextpad=0.5,
        columnspacing=1.4 if wide else 0.9,
        labelspacing=0.3,
        borderpad=0,
        borderaxespad=0.4,
        labelcolor=style.MUTED,
    )


def _place_in_key(label: str) -> int:
    """Bars first, then lines, the limit last."""
    return 2 if label.startswith(("limit", "cut off")) else 1 if "60 s" in label else 0


def nothing(ax: Axes, why: str) -> None:
    """Say in an empty plot why it is empty."""
    ax.text(0.5, 0.45, why, transform=ax.transAxes, ha="center", color=style.MUTED)


def _time_ticks(start_s: float, end_s: float, most: int) -> list[float]:
    steps = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
    span_s = end_s - start_s
    step = next((step for step in steps if span_s / step <= most), span_s)
    first = np.ceil(start_s / step) * step
    return [float(x) for x in np.arange(first, end_s + step / 1000, step)]


def _log_ticks(low: float, high: float, *, dense: bool) -> list[float]:
    steps = (1, 2, 5) if dense and high / low < 1e4 else (1,)
    ticks = [step * 10.0**power for power in range(-3, 8) for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def _duration(ms: float) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"
