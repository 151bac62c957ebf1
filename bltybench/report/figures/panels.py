"""The panels of figures. Each paints one plot of a run."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import NS_PER_S, Floats, estimated_tokens, floats, ints
from bltybench.metrics.latency import ecdf, histogram
from bltybench.report.figures import scales, style
from bltybench.scenario.api.documented_limits import MINUTE_S, TOKENS, What, amounts, limits_on

MAX_DOTS = 1500
"""Maximum number of single measurements in the TTFT panel: more would only be a cloud."""

LABELS = {style.WIDE: 52, style.NARROW: 40}
"""Space for the labels left of the plots, in pixels, by width of the drawing."""


def margins(width: int) -> style.Margins:
    """Return the margins in a drawing of this width."""
    if width == style.WIDE:
        return style.Margins(LABELS[width], 14, 36, 32, 44)
    return style.Margins(LABELS[width], 8, 70, 30, 70)


def requests(ax: Axes, analysis: Analysis, width: int) -> None:
    """Paint attempts by fate in each bin, and offered and accepted requests over the last 60 s."""
    lines, rolled = analysis.timeline, analysis.rolling
    per_min = 60 / float(lines["end_s"].iloc[0])
    base, bins = np.zeros(len(lines)), _bins(lines)
    parts = (
        ("accepted", style.ACCEPTED, None),
        ("refused", style.REFUSED, "/////"),
        ("other", style.OTHER, "xxxxx"),
    )
    for fate, color, hatch in parts:
        height = lines[fate].to_numpy(dtype=np.float64) * per_min
        if fate != "accepted" and not height.any():
            continue
        # One shape for all bins: separate bars take longer to draw than the rest of the page.
        style.stairs(ax, base + height, bins, baseline=base, label=fate, linewidth=0 if hatch else 0.8,
                     facecolor=style.PAPER if hatch else (color, 0.35), edgecolor=color,
                     hatch=hatch)  # fmt: skip
        base = base + height
    ax.plot(rolled["at_s"], rolled["offered"], color=style.MUTED, linewidth=1.3, linestyle=(0, (4, 2)),
            label="offered, last 60 s")  # fmt: skip
    ax.plot(
        rolled["at_s"], rolled["accepted"], color=style.ACCEPTED, linewidth=2.2, label="accepted, last 60 s"
    )
    _scale(ax, _lines(analysis, "requests"), float(rolled["offered"].max()), base, bins)
    head(ax, "Requests per minute", width)


def refusals(ax: Axes, analysis: Analysis, width: int) -> None:
    """Paint the refusal rate in each bin."""
    lines = analysis.timeline
    share = 100 * lines["refused"] / lines["offered"].where(lines["offered"] > 0)
    style.stairs(ax, share.fillna(0.0), _bins(lines), facecolor=style.PAPER, edgecolor=style.REFUSED,
                 hatch="/////", linewidth=0)  # fmt: skip
    ax.set_ylim(0, 100)
    ax.yaxis.set_major_locator(FixedLocator([0, 50, 100]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    head(ax, "Refusal rate", width)


def tokens(ax: Axes, analysis: Analysis, width: int) -> None:
    """Paint tokens in and out in each bin, and both over the last 60 s."""
    lines, rolled = analysis.timeline, analysis.rolling
    per_min = 60 / float(lines["end_s"].iloc[0])
    prompt = lines["prompt_tokens"].to_numpy(dtype=np.float64) * per_min
    completion = lines["completion_tokens"].to_numpy(dtype=np.float64) * per_min
    bins = _bins(lines)
    style.stairs(ax, prompt, bins, facecolor=(style.PROMPT, 0.55), edgecolor=style.PROMPT, linewidth=0.8,
                 label="in")  # fmt: skip
    style.stairs(ax, prompt + completion, bins, baseline=prompt, facecolor=style.PAPER, linewidth=0,
                 edgecolor=style.COMPLETION, hatch="\\\\\\\\\\", label="out")  # fmt: skip
    ax.plot(rolled["at_s"], rolled["tokens"], color=style.PROMPT, linewidth=2.0, label="both, last 60 s")
    both = prompt + completion
    if both.any():
        limits = _lines(analysis, *TOKENS)
        _scale(ax, limits, float(rolled["tokens"].max()), both, bins)
    else:
        nothing(ax, "no response reported its tokens")
    estimated = bool(estimated_tokens(analysis.attempts).any())
    head(ax, "Tokens per minute, estimated" if estimated else "Tokens per minute", width)


def in_flight(ax: Axes, analysis: Analysis, width: int) -> None:
    """Paint mean and peak of the attempts in flight."""
    lines, rolled = analysis.timeline, analysis.rolling
    style.stairs(ax, lines["in_flight_mean"], _bins(lines), facecolor=style.ACCEPTED, alpha=0.3, linewidth=0,
                 label="mean")  # fmt: skip
    peak = rolled["in_flight_max"].to_numpy()[1:]
    edges = floats(rolled, "at_s")
    style.stairs(ax, peak, edges, fill=False, edgecolor=style.ACCEPTED, linewidth=1.4, label="peak")
    _scale(ax, _lines(analysis, "concurrency"), float(peak.max()))
    head(ax, "Requests in flight", width)


def _bins(lines: pd.DataFrame) -> Floats:
    """Return the edges of the timeline's bins."""
    return np.append(floats(lines, "start_s"), float(lines["end_s"].iloc[-1]))


def ttft(ax: Axes, analysis: Analysis, width: int) -> None:
    """Paint TTFT of each stream, and its percentiles over the last 60 s."""
    rolled, attempts = analysis.rolling, analysis.attempts
    streams = attempts.loc[attempts["ttft_ms"].notna(), ["at_ns", "ttft_ms"]]
    at, ms = ints(streams, "at_ns") / NS_PER_S, floats(streams, "ttft_ms")
    if len(ms) == 0:
        nothing(ax, "no stream succeeded")
        head(ax, "TTFT, ms", width)
        return
    # Every k-th stream, not a random sample: the same run must give the same picture.
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
    ax.set_ylim(0, max(float(ms.max()) * 1.1, 1.0))
    head(ax, "TTFT, ms", width)


DISTRIBUTION = "Cumulative distribution"
HISTOGRAM = "Histogram: percentage of values per bin"
HISTOGRAM_BINS = 48
"""Bins of equal width on the logarithmic axis."""

CURVES = (
    ("ttft", "TTFT", style.ACCEPTED, "-"),
    ("latency", "call latency", style.PROMPT, (0, (6, 2))),
    ("attempt_latency", "attempt latency", style.OTHER, (0, (2, 2))),
    ("itl", "ITL", style.SECOND, (0, (6, 2, 1, 2))),
)


def curves(analysis: Analysis) -> pd.DataFrame:
    """Return the data of ``latency``: ``metric``, ``value_ms``, ``share`` at or below it."""
    parts = [ecdf(analysis.samples[name]).assign(metric=name) for name, *_ in CURVES]
    joined = pd.concat(parts, ignore_index=True).rename(columns={"value": "value_ms"})
    return joined[["metric", "value_ms", "share"]]


def latency(ax: Axes, analysis: Analysis, data: pd.DataFrame, width: int) -> None:
    """Paint the distributions of ``curves`` on a logarithmic axis."""
    for name, label, color, dashes in CURVES:
        curve = data[data["metric"] == name]
        if len(curve):
            named = f"{label} (n {len(analysis.samples[name]):,})"
            distribution(ax, curve, named, color, dashes)
    if data.empty:
        nothing(ax, "nothing succeeded")
    scales.log_axis(ax, data["value_ms"].to_numpy(dtype=np.float64), width)
    head(ax, DISTRIBUTION, width)


def histograms(analysis: Analysis, data: pd.DataFrame) -> pd.DataFrame:
    """Return the histograms of ``curves``: ``metric``, ``from_ms``, ``to_ms``, ``count``, ``share``."""
    edges = np.geomspace(*scales.log_range(data["value_ms"].to_numpy(dtype=np.float64)), HISTOGRAM_BINS + 1)
    parts: list[pd.DataFrame] = []
    for name, *_ in CURVES:
        count = histogram(analysis.samples[name], edges)
        if count.any():
            columns = {"metric": name, "from_ms": edges[:-1], "to_ms": edges[1:], "count": count}
            parts.append(pd.DataFrame(columns | {"share": count / count.sum()}))
    return pd.concat(parts, ignore_index=True)


def frequencies(ax: Axes, bins: pd.DataFrame, width: int) -> None:
    """Paint ``histograms``, below the distributions and on their axis."""
    for name, label, color, dashes in CURVES:
        rows = bins[bins["metric"] == name]
        if len(rows):
            edges = np.append(rows["from_ms"], rows["to_ms"].iloc[-1])
            style.stairs(ax, rows["share"] * 100, edges, fill=False, edgecolor=color, linestyle=dashes,
                         linewidth=1.5, label=label)  # fmt: skip
    ax.set_ylim(0, float(bins["share"].max()) * 108)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    ax.grid(axis="x", color=style.GRID, linewidth=0.8)
    ax.annotate(
        HISTOGRAM, (0, 1), xycoords="axes fraction", xytext=(-LABELS[width], 12),
        textcoords="offset points", fontsize=13, fontweight="bold", color=style.INK,
    )  # fmt: skip


def distribution(ax: Axes, curve: pd.DataFrame, label: str, color: str, dashes: Any) -> None:
    """Paint one distribution: ``value_ms``, ``share`` at or below it."""
    ax.step(
        curve["value_ms"],
        curve["share"] * 100,
        where="post",
        color=color,
        linestyle=dashes,
        linewidth=1.8,
        label=label,
        # A few steps would be invisible without markers.
        marker="o" if len(curve) < 4 else None,
        markersize=5,
    )


TIMED: dict[str, Callable[[Axes, Analysis, int], None]] = {
    "requests": requests,
    "refusals": refusals,
    "tokens": tokens,
    "in_flight": in_flight,
    "ttft": ttft,
}
"""The panels on the time axis, from the top."""


def _lines(analysis: Analysis, *whats: What) -> list[tuple[float, str]]:
    """Return the height and the label of each documented limit in a panel of rates per minute."""
    lines: list[tuple[float, str]] = []
    for limit in limits_on(analysis.limits, *whats):
        usual = limit.what == whats[0] and limit.period_s in {None, MINUTE_S}
        label = f"{limit.limit:,}" if usual else amounts([limit])
        # Less than a whole period can hold all of a long period's limit, so its line is a mean.
        mean = ", on average" if (limit.period_s or 0.0) > MINUTE_S else ""
        lines.append((limit.per_min, f"limit {label}{mean}"))
    return lines


def _scale(
    ax: Axes,
    limits: Sequence[tuple[float, str]],
    lines: float,
    bars: Floats | None = None,
    edges: Floats | None = None,
) -> None:
    """Set the height of a plot from its highest line and bar, and draw the documented limits.

    Bars that would flatten everything else are cut off, and a limit far above is omitted. Markers and the
    legend show both.
    """
    top, tallest = max(lines, 1.0), 0.0 if bars is None else float(bars.max())
    far = 2.5 * max(top, tallest)
    for index, (height, label) in enumerate(limits):
        if height <= far:
            ax.axhline(height, color=style.INK, linewidth=1.2, linestyle=(0, (1, 1.6, *(3, 1.6) * index)),
                       label=label)  # fmt: skip
            top = max(top, height)
        else:
            ax.plot([], [], "^", color=style.MUTED, markersize=5, label=f"{label}, far above")
    if bars is not None and edges is not None and tallest > 4 * top:
        top *= 2
        cut = bars > top * 1.12
        middle = (edges[:-1] + edges[1:])[cut] / 2
        ax.plot(middle, np.full(len(middle), top * 1.05), "^", color=style.INK, markersize=5,
                label=f"cut off, up to {tallest:,.0f}")  # fmt: skip
    else:
        top = max(top, tallest)
    ax.set_ylim(0, top * 1.12)


def head(ax: Axes, title: str, width: int) -> None:
    """Add the title of a panel, and its legend next to it (wide) or below it (narrow)."""
    box, wide = ax.get_window_extent(), width == style.WIDE
    keyed = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    labels = sorted(keyed, key=_legend_order)
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


def _legend_order(label: str) -> int:
    """Return the position in the legend: bars, then lines, then the limit."""
    return 2 if label.startswith(("limit", "cut off")) else 1 if "60 s" in label else 0


def nothing(ax: Axes, why: str) -> None:
    """Write in an empty plot why it is empty, and hide its y axis."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=style.MUTED)
    ax.yaxis.set_visible(False)
