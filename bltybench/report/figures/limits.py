"""The figures of the section on rate limits: decisions, Retry-After, and Remaining, compared with a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bltybench.metrics.frame import Floats, floats
from bltybench.metrics.limiter import remaining_counts, retry_after_waits
from bltybench.report.figures import panels, scales, style
from bltybench.report.figures.drawing import Drawing, drawing
from bltybench.report.figures.limits_hover import hover_bins, hover_remaining, hover_waits

HALF_WIDTH = 440
"""Width of a figure that shares a row of a wide page, and fills a narrow one."""
LEFT, RIGHT = panels.LABELS[style.NARROW], 14
MAX_BINS = 130
BIN_WIDTHS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
MAX_REFUSALS = 400
"""Maximum refusals to draw. The figure's data has all of them."""
VERDICT_STYLES = {
    "not contradicted": (style.ACCEPTED, "o"),
    "too short": (style.REFUSED, "^"),
    "longer than needed": (style.SECOND, "v"),
}


@dataclass(frozen=True, slots=True)
class ModelName:
    """The model that makes the predictions, as sentences name it."""

    text: str
    """With its article: "a token bucket"."""
    certain: bool
    """Whether no other model fits as well."""


def draw_all(decided: pd.DataFrame, model: ModelName | None) -> list[Drawing]:
    """Draw the figures that the run (``metrics.limiter.decisions``) has enough evidence for."""
    drawings: list[Drawing] = []
    known = decided[decided["observed"].notna()].reset_index(drop=True)
    if (known["observed"] == "refused").any():
        drawings.append(_evidence(known, model))
    waits = retry_after_waits(decided)
    if len(waits):
        drawings.append(_retry_after(waits, model))
    if model is not None:
        counts = remaining_counts(decided)
        if len(counts):
            drawings.append(_remaining(counts, model))
    return drawings


def _evidence(known: pd.DataFrame, model: ModelName | None) -> Drawing:
    """Draw accepted and refused requests over time, and below them the model's decisions."""
    at_s = floats(known, "at_s")
    edges = bins(at_s)
    panel_titles = {"observed": "Decisions of the API"}
    differs = np.zeros(len(known), dtype=np.bool_)
    if model is not None:
        panel_titles["predicted"] = f"Decisions of {model.text}"
        differs = (known["observed"] != known["predicted"]).to_numpy(dtype=np.bool_)
    counts = pd.DataFrame({"start_s": edges[:-1], "end_s": edges[1:]})
    for column in panel_titles:
        for decision in ("accepted", "refused"):
            chosen = (known[column] == decision).to_numpy(dtype=np.bool_)
            counts[f"{column}_{decision}"] = np.histogram(at_s[chosen], edges)[0]
    counts["differs"] = np.histogram(at_s[differs], edges)[0]
    heights = {name: counts[f"{name}_accepted"] + counts[f"{name}_refused"] for name in panel_titles}
    tallest = max(float(height.max()) for height in heights.values())

    def draw(width: int) -> Figure:
        figure, axes = style.panels(width, [130] * len(panel_titles), panels.margins(width))
        for ax, (name, title) in zip(axes, panel_titles.items(), strict=True):
            _bars(ax, counts, name)
            if name == "predicted" and differs.any():
                at = counts["differs"] > 0
                middle = (counts["start_s"] + counts["end_s"]) / 2
                ax.plot(middle[at], heights[name][at] + tallest * 0.09, "x", color=style.INK, markersize=6,
                        label=f"differs from the API ({int(differs.sum())})")  # fmt: skip
            ax.set_ylim(0, tallest * 1.2)
            short = "Decisions of the model" if name == "predicted" else title
            panels.head(ax, title if width == style.WIDE else short, width)
        scales.span_axis(axes, float(edges[0]), float(edges[-1]), width)
        return figure

    return drawing(
        "limits_evidence",
        "Evidence",
        evidence_sentence(known, int(differs.sum()), model),
        draw,
        {"limits_decisions": known, "limits_bins": counts},
        hover_bins(counts),
    )


def _bars(ax: Axes, counts: pd.DataFrame, name: str) -> None:
    edges = np.append(counts["start_s"], counts["end_s"].iloc[-1])
    accepted, refused = counts[f"{name}_accepted"], counts[f"{name}_refused"]
    style.stairs(ax, accepted, edges, facecolor=style.ACCEPTED, alpha=0.75, linewidth=0, label="accepted")
    if refused.any():
        style.stairs(ax, accepted + refused, edges, baseline=accepted, facecolor=style.PAPER,
                     edgecolor=style.REFUSED, hatch="//////", linewidth=0, label="refused")  # fmt: skip


def evidence_sentence(known: pd.DataFrame, differing: int, model: ModelName | None) -> str:
    """Return how many requests were accepted, and how many decisions the model predicts."""
    accepted = int((known["observed"] == "accepted").sum())
    text = f"The API accepted {accepted:,} of {len(known):,} requests"
    if model is None:
        return f"{text}. No rate limiter fits its decisions."
    candidate = "" if model.certain else ", one of the candidates,"
    same = f"{len(known) - differing:,} of {len(known):,}" if differing else f"all {len(known):,}"
    return f"{text}; {model.text}{candidate} decides {same} the same way."


def _retry_after(waits: pd.DataFrame, model: ModelName | None) -> Drawing:
    """Draw Retry-After and the wait that was needed, as far as it is known."""
    shown = waits.iloc[:: -(-len(waits) // MAX_REFUSALS)]
    given, by_model = floats(shown, "retry_after_s"), floats(shown, "needed_by_model_s")
    low, high = floats(shown, "needed_at_least_s"), floats(shown, "needed_at_most_s")
    top = 1.1 * max(1.0, *(float(np.nanmax(values, initial=0.0)) for values in (given, low, by_model)))
    high = np.minimum(np.where(np.isnan(high), np.inf, high), top)
    # The model's estimate, within what the responses allow.
    dots = np.clip(np.where(np.isnan(by_model), high, by_model), low, high)

    def plot(ax: Axes) -> None:
        for verdict, (color, marker) in VERDICT_STYLES.items():
            chosen = (shown["says"] == verdict).to_numpy(dtype=np.bool_)
            if not chosen.any():
                continue
            ax.vlines(given[chosen], low[chosen], high[chosen], color=color, linewidth=1.6, alpha=0.4)
            ax.plot(given[chosen], dots[chosen], marker, color=color, markersize=5, alpha=0.8,
                    linestyle="none", label=verdict)  # fmt: skip

    says = retry_sentence(waits, model)
    labels, keys = ("Retry-After, s", "Wait needed, s"), 2 + shown["says"].nunique()
    figure = _square(plot, top, labels, keys, rounding=True)
    title = "Retry-After compared with the wait needed"
    return _drawn_once("limits_retry_after", title, says, figure, waits, hover_waits(waits, top, _edges))


def retry_sentence(waits: pd.DataFrame, model: ModelName | None) -> str:
    """Return what the marks are, and the difference of Retry-After from the model's wait."""
    marks = "One mark per refusal" if len(waits) <= MAX_REFUSALS else "A selection of the refusals"
    difference = (waits["retry_after_s"] - waits["needed_by_model_s"]).dropna()
    if model is None or difference.empty:
        return f"{marks}, at its Retry-After. The bar shows the wait needed, as far as it is known."
    median = float(difference.median())
    if abs(median) < 0.05:
        return (
            f"{marks}. Half are within {float(difference.abs().median()):.1f} s of the wait of {model.text}."
        )
    sign = "longer" if median > 0 else "shorter"
    return f"{marks}. The median Retry-After is {abs(median):.1f} s {sign} than the wait of {model.text}."


def _remaining(counts: pd.DataFrame, model: ModelName) -> Drawing:
    """Draw Remaining as reported and as the model has it."""
    expected, announced = floats(counts, "expected"), floats(counts, "announced")
    responses = floats(counts, "answers")
    top = max(1.0, float(expected.max()), float(announced.max())) * 1.08

    def plot(ax: Axes) -> None:
        for decision, color, marker in (("accepted", style.ACCEPTED, "o"), ("refused", style.REFUSED, "D")):
            chosen = (counts["observed"] == decision).to_numpy(dtype=np.bool_)
            if chosen.any():
                ax.scatter(expected[chosen], announced[chosen], s=14 + 10 * np.sqrt(responses[chosen]),
                           color=color, marker=marker, alpha=0.6, linewidths=0, clip_on=False)  # fmt: skip
                ax.plot([], [], marker, color=color, markersize=5, linestyle="none",
                        label=f"{decision} requests")  # fmt: skip

    labels, keys = ("Remaining in the model", "Remaining as reported"), 1 + counts["observed"].nunique()
    says, figure = remaining_sentence(model), _square(plot, top, labels, keys)
    title = "Remaining compared with the model"
    return _drawn_once("limits_remaining", title, says, figure, counts, hover_remaining(counts, top, _edges))


def remaining_sentence(model: ModelName) -> str:
    """Return what the marks are."""
    return (
        f"One mark per value, larger for more responses. On the line, Remaining is that of {model.text}. An "
        "order of concurrent decisions that differs from the order of sending moves marks off it."
    )


def bins(at_s: Floats) -> Floats:
    """Return the edges of at most MAX_BINS equal bins that hold all of ``at_s``."""
    first, last = float(at_s.min()), float(at_s.max())
    width_s = next((w for w in BIN_WIDTHS_S if (last - first) / w <= MAX_BINS - 1), BIN_WIDTHS_S[-1])
    start = np.floor(first / width_s) * width_s
    edges: Floats = start + width_s * np.arange(int((last - start) / width_s) + 2)
    return edges


def _edges(_: int) -> list[float]:
    return [LEFT / HALF_WIDTH, 1 - RIGHT / HALF_WIDTH]


def _square(
    plot: Callable[[Axes], None], top: float, labels: tuple[str, str], keys: int, *, rounding: bool = False
) -> Callable[[], Figure]:
    """Return a function that draws values that should lie on the diagonal, or up to 1 below it."""

    def draw() -> Figure:
        margins = style.Margins(LEFT, RIGHT, 44 if keys < 4 else 74, 50, 0)
        figure, (ax,) = style.panels(HALF_WIDTH, [230], margins)
        if rounding:
            ax.fill_between([0, top], [-1, top - 1], [0, top], color=style.GRID, alpha=0.7, linewidth=0,
                            label="rounded up to seconds")  # fmt: skip
        ax.plot([0, top], [0, top], color=style.MUTED, linewidth=1.2, label="exact")
        plot(ax)
        ax.set_xlim(0, top)
        ax.set_ylim(0, top)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short(value)))
        ax.grid(axis="x", color=style.GRID, linewidth=0.8)
        ax.set_xlabel(labels[0], fontsize=11, color=style.MUTED, labelpad=8)
        panels.head(ax, labels[1], style.NARROW)
        return figure

    return draw


def _drawn_once(  # noqa: PLR0917  # as drawing.drawing
    name: str,
    title: str,
    says: str,
    draw: Callable[[], Figure],
    data: pd.DataFrame,
    hover: dict[str, Any],
) -> Drawing:
    """Draw a figure once for both page widths, with different element IDs."""
    with style.rc_context():
        wide = style.to_svg(draw(), f"{name}-w", says)
    return Drawing(name, title, says, wide, wide.replace(f"{name}-w-", f"{name}-n-"), {name: data}, hover)
