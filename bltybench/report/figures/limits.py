"""The figures of the section on rate limits: what was decided, Retry-After and Remaining against a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bltybench.metrics.frame import Floats, floats
from bltybench.metrics.limiter import remainders, waits
from bltybench.report.figures import panels, scales, style
from bltybench.report.figures.drawing import Drawing, drawing
from bltybench.report.figures.limits_hover import hover_bins, hover_remaining, hover_waits

HALF = 440
"""Width of a figure that has another beside it on a wide page, and the page's on a narrow one."""
LEFT, RIGHT = panels.LABELS[style.NARROW], 14
MOST_BINS = 130
BINS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
MOST_WAITS = 400
"""Refusals drawn; the data behind the figure has all."""
VERDICTS = {
    "not contradicted": (style.ACCEPTED, "o"),
    "too short": (style.REFUSED, "^"),
    "longer than needed": (style.SECOND, "v"),
}


@dataclass(frozen=True, slots=True)
class Named:
    """The model that predictions come from, in words."""

    words: str
    """With its article: “a token bucket”."""
    sure: bool
    """False where others explain what was seen as well."""


def draw_all(decided: pd.DataFrame, model: Named | None) -> list[Drawing]:
    """Draw what the evidence of a run (``metrics.limiter.decisions``) is enough for."""
    drawn: list[Drawing] = []
    known = decided[decided["observed"].notna()].reset_index(drop=True)
    if len(known) and (known["observed"] == "refused").any():
        drawn.append(_evidence(known, model))
    told = waits(decided)
    if len(told):
        drawn.append(_retry_after(told, model))
    if model is not None:
        said = remainders(decided)
        if len(said):
            drawn.append(_remaining(said, model))
    return drawn


def _evidence(known: pd.DataFrame, model: Named | None) -> Drawing:
    """Accepted and refused over time, and under it what the model would have decided."""
    edges = bins(floats(known, "at_s"))
    rows = [("observed", "What the API did")]
    if model is not None:
        rows.append(("predicted", f"What {model.words} would have done"))
    counts = pd.DataFrame({"start_s": edges[:-1], "end_s": edges[1:]})
    place = np.clip(np.searchsorted(edges, floats(known, "at_s"), side="right") - 1, 0, len(edges) - 2)
    for column, _ in rows:
        for fate in ("accepted", "refused"):
            chosen = (known[column] == fate).to_numpy(dtype=np.bool_)
            counts[f"{column}_{fate}"] = np.bincount(place[chosen], minlength=len(edges) - 1)
    differs = np.zeros(len(known), dtype=np.bool_)
    if model is not None:
        differs = (known["observed"] != known["predicted"]).to_numpy(dtype=np.bool_)
    counts["differs"] = np.bincount(place[differs], minlength=len(edges) - 1)

    def draw(width: int) -> Figure:
        figure, axes = style.panels(width, [130] * len(rows), panels.margins(width))
        tallest = max(
            float((counts[f"{name}_accepted"] + counts[f"{name}_refused"]).max()) for name, _ in rows
        )
        for ax, (name, title) in zip(axes, rows, strict=True):
            _bars(ax, counts, name)
            if name == "predicted" and differs.any():
                top = counts["predicted_accepted"] + counts["predicted_refused"]
                at = counts["differs"] > 0
                middle = (counts["start_s"] + counts["end_s"]) / 2
                ax.plot(middle[at], top[at] + tallest * 0.09, "x", color=style.INK, markersize=6,
                        label=f"not as the API did ({int(differs.sum())})")  # fmt: skip
            ax.set_ylim(0, tallest * 1.2)
            short = "What the model would have done" if name == "predicted" else title
            panels.head(ax, title if width == style.WIDE else short, width)
        scales.span_axis(axes, float(edges[0]), float(edges[-1]), width)
        return figure

    title = "The evidence"
    says = evidence_sentence(known, int(differs.sum()), model)
    data = {"limits_decisions": known, "limits_bins": counts}
    return drawing("limits_evidence", title, says, draw, data, hover_bins(counts))


def _bars(ax: Axes, counts: pd.DataFrame, name: str) -> None:
    edges = np.append(counts["start_s"], counts["end_s"].iloc[-1])
    accepted, refused = counts[f"{name}_accepted"], counts[f"{name}_refused"]
    ax.stairs(accepted, edges, fill=True, color=style.ACCEPTED, alpha=0.75, linewidth=0, label="accepted")
    if refused.any():
        ax.stairs(accepted + refused, edges, baseline=accepted, fill=True, facecolor=style.PAPER,
                  edgecolor=style.REFUSED, hatch="//////", linewidth=0, label="refused")  # fmt: skip


def evidence_sentence(known: pd.DataFrame, differing: int, model: Named | None) -> str:
    """Say how many were let in, and how many of the decisions the model makes as well."""
    accepted = int((known["observed"] == "accepted").sum())
    said = f"{accepted:,} of {len(known):,} requests were let in"
    if model is None:
        return f"{said}; no model of their rate explains which."
    maybe = "" if model.sure else ", one of those that explain it,"
    alike = len(known) - differing
    share = f"all {alike:,}" if not differing else f"{alike:,} of {len(known):,}"
    return f"{said}; {model.words}{maybe} decides {share} as the API did."


def _retry_after(told: pd.DataFrame, model: Named | None) -> Drawing:
    """Retry-After as told against the wait that was needed, as far as it is known."""
    step = -(-len(told) // MOST_WAITS)
    shown = told.iloc[::step]
    given, by_model = floats(shown, "retry_after_s"), floats(shown, "needed_by_model_s")
    least, most = floats(shown, "needed_at_least_s"), floats(shown, "needed_at_most_s")
    top = 1.1 * max(1.0, *(float(np.nanmax(each, initial=0.0)) for each in (given, least, by_model)))
    ends = np.minimum(np.where(np.isnan(most), np.inf, most), top)
    # The best guess, as far as what happened allows it.
    dots = np.clip(np.where(np.isnan(by_model), ends, by_model), least, ends)

    def draw() -> Figure:
        figure, ax = _half(2 + shown["says"].nunique())
        ax.fill_between([0, top], [-1, top - 1], [0, top], color=style.GRID, alpha=0.7, linewidth=0,
                        label="rounded up to seconds")  # fmt: skip
        ax.plot([0, top], [0, top], color=style.MUTED, linewidth=1.2, label="exactly as told")
        for verdict, (colour, marker) in VERDICTS.items():
            of = (shown["says"] == verdict).to_numpy(dtype=np.bool_)
            if not of.any():
                continue
            ax.vlines(given[of], least[of], ends[of], color=colour, linewidth=1.6, alpha=0.4)
            ax.plot(given[of], dots[of], marker, color=colour, markersize=5, alpha=0.8, linestyle="none",
                    label=f"{verdict} ({int((told['says'] == verdict).sum()):,})")  # fmt: skip
        _axes(ax, top, "Retry-After as told, s", "Wait that was needed, s")
        return figure

    return _drawn_once(
        "limits_retry_after",
        "Retry-After against what was needed",
        retry_sentence(told, model),
        draw,
        {"limits_retry_after": told},
        hover_waits(told, top, _edges),
    )


def retry_sentence(told: pd.DataFrame, model: Named | None) -> str:
    """Say how often Retry-After was contradicted, and by how much it differs from the model's wait."""
    short = int((told["says"] == "too short").sum())
    long = int((told["says"] == "longer than needed").sum())
    of = f"{len(told):,} refusals that named a Retry-After"
    if not short and not long:
        said = f"Nothing that followed contradicts the {of}"
    else:
        parts = [f"{short:,} were refused again after it was over"] if short else []
        parts += [f"{long:,} saw something let in more than a second before it was over"] if long else []
        said = f"Of {of}, {' and '.join(parts)}"
    off = (told["retry_after_s"] - told["needed_by_model_s"]).dropna()
    if model is None or off.empty:
        return f"{said}."
    middle = float(off.median())
    if abs(middle) < 0.05:
        return (
            f"{said}; half of them lie within {float(off.abs().median()):.1f} s of the wait of {model.words}."
        )
    more = "longer" if middle > 0 else "shorter"
    return f"{said}; in the median it is {abs(middle):.1f} s {more} than the wait of {model.words}."


def _remaining(said: pd.DataFrame, model: Named) -> Drawing:
    """Remaining as announced against what the model has left."""
    expected, announced = floats(said, "expected"), floats(said, "announced")
    answers = floats(said, "answers")
    top = max(1.0, float(expected.max()), float(announced.max())) * 1.08

    def draw() -> Figure:
        figure, ax = _half(1 + said["observed"].nunique())
        ax.plot([0, top], [0, top], color=style.MUTED, linewidth=1.2, label="as it should be")
        for fate, colour, marker in (("accepted", style.ACCEPTED, "o"), ("refused", style.REFUSED, "D")):
            of = (said["observed"] == fate).to_numpy(dtype=np.bool_)
            if of.any():
                ax.scatter(expected[of], announced[of], s=14 + 10 * np.sqrt(answers[of]), color=colour,
                           marker=marker, alpha=0.6, linewidths=0, clip_on=False)  # fmt: skip
                ax.plot([], [], marker, color=colour, markersize=5, linestyle="none",
                        label=f"on answers {fate}")  # fmt: skip
        _axes(ax, top, "Left by the model", "Remaining as announced")
        return figure

    return _drawn_once(
        "limits_remaining",
        "Remaining against what it should be",
        remaining_sentence(said, model),
        draw,
        {"limits_remaining": said},
        hover_remaining(said, top, _edges),
    )


def remaining_sentence(said: pd.DataFrame, model: Named) -> str:
    """Say how often Remaining was right, and what it was otherwise."""
    off = (said["announced"] - said["expected"]).to_numpy(dtype=np.int64)
    answers = said["answers"].to_numpy(dtype=np.int64)
    total, right = int(answers.sum()), int(answers[off == 0].sum())
    begun = f"Remaining was what {model.words} has left in {right:,} of {total:,} answers"
    if right == total:
        return f"{begun}."
    high, low = int(answers[off > 0].sum()), int(answers[off < 0].sum())
    most = int(off[np.abs(off).argmax()])
    return f"{begun}, more in {high:,} and less in {low:,}; at most it was off by {abs(most):,}."


def bins(at_s: Floats) -> Floats:
    """Return edges of equal bins, few enough to be seen, over all of ``at_s``."""
    first, last = float(at_s.min()), float(at_s.max())
    step = next((step for step in BINS_S if (last - first) / step <= MOST_BINS - 1), BINS_S[-1])
    start = np.floor(first / step) * step
    edges: Floats = start + step * np.arange(int((last - start) / step) + 2)
    return edges


def _half(keys: int) -> tuple[Figure, Axes]:
    """Return a figure with room for so many keys over it."""
    figure, (ax,) = style.panels(HALF, [230], style.Margins(LEFT, RIGHT, 44 if keys < 4 else 74, 50, 0))
    return figure, ax


def _edges(_: int) -> list[float]:
    return [LEFT / HALF, 1 - RIGHT / HALF]


def _drawn_once(  # noqa: PLR0917  # as drawing.drawing
    name: str,
    title: str,
    says: str,
    draw: Callable[[], Figure],
    data: dict[str, pd.DataFrame],
    hover: dict[str, Any],
) -> Drawing:
    """Draw a figure that is about as wide on any page: once, with ids of its own at both places."""
    with style.rc_context():
        wide = style.to_svg(draw(), f"{name}-w", says)
    return Drawing(name, title, says, wide, wide.replace(f"{name}-w-", f"{name}-n-"), data, hover)


def _axes(ax: Axes, top: float, x: str, y: str) -> None:
    """Give both axes the same span, so that the diagonal is where both agree."""
    ax.set_xlim(0, top)
    ax.set_ylim(0, top)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short(value)))
    ax.grid(axis="x", color=style.GRID, linewidth=0.8)
    ax.set_xlabel(x, fontsize=11, color=style.MUTED, labelpad=8)
    panels.head(ax, y, style.NARROW)
