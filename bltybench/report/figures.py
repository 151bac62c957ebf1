"""The figures of the page: what each shows in this run, drawn wide and narrow, with its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bltybench.metrics.analysis import Analysis
from bltybench.report import panels, style
from bltybench.report.sentences import latency_sentence, timeline_sentence


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure: two drawings of it for two widths of page, what it says, and the data it was made of."""

    name: str
    title: str
    says: str
    """One sentence about this run."""
    wide: str
    narrow: str
    data: dict[str, pd.DataFrame]
    """By file name without its ending."""
    hover: dict[str, Any]
    """What the page's script shows under the pointer: plot edges (shares of the width), x range, columns."""


def draw_all(analysis: Analysis) -> list[Drawing]:
    """Draw the figures of the page, in its order."""
    return [hero(analysis), latencies(analysis)]


def hero(analysis: Analysis) -> Drawing:
    """Requests, tokens, in flight and TTFT on one time axis."""
    lines, rolled = analysis.timeline, analysis.rolling

    def draw(width: int) -> Figure:
        heights = [190, 110, 80, 110] if width == style.WIDE else [170, 110, 80, 110]
        figure, axes = style.panels(width, heights, panels.margins(width))
        for ax, paint in zip(axes, panels.TIMED.values(), strict=True):
            paint(ax, analysis, width)
        panels.time_axis(axes, analysis, width)
        return figure

    then = rolled.iloc[np.minimum(np.searchsorted(rolled["at_s"], lines["end_s"]), len(rolled) - 1)]
    columns = {
        "accepted": lines["accepted"],
        "refused": lines["refused"],
        "other": lines["other"],
        "tokens in": lines["prompt_tokens"],
        "tokens out": lines["completion_tokens"],
        "peak in flight": lines["in_flight_max"],
        "accepted, last 60 s": then["accepted"],
        "tokens, last 60 s": then["tokens"],
        "TTFT p50, last 60 s (ms)": then["ttft_p50_ms"],
        "TTFT p95, last 60 s (ms)": then["ttft_p95_ms"],
    }
    spans = zip(lines["start_s"], lines["end_s"], strict=True)
    hover = _hover([f"{style.clock(since)} to {style.clock(until)}" for since, until in spans], columns)
    title = "The run on one time axis"
    data = {"timeline": lines, "rolling": rolled}
    return drawing("timeline", title, timeline_sentence(analysis), draw, data, hover)


def latencies(analysis: Analysis) -> Drawing:
    """Distributions of call latency, attempt latency, TTFT and inter-token gaps on a logarithmic axis."""
    data = panels.curves(analysis)

    def draw(width: int) -> Figure:
        height = 260 if width == style.WIDE else 210
        figure, (ax,) = style.panels(width, [height], panels.margins(width))
        panels.latency(ax, analysis, data, width)
        return figure

    says = latency_sentence(analysis)
    return drawing("latency", "How long things took", says, draw, {"latency": data}, {})


def single(analysis: Analysis, name: str) -> str:
    """Return one panel (requests, tokens, in_flight, ttft, latency) by itself, as SVG in light colours."""
    with style.rc_context():
        figure, (ax,) = style.panels(style.WIDE, [220], panels.margins(style.WIDE))
        figure.set_facecolor("white")
        if name == "latency":
            panels.latency(ax, analysis, panels.curves(analysis), style.WIDE)
        else:
            panels.TIMED[name](ax, analysis, style.WIDE)
            panels.time_axis([ax], analysis, style.WIDE)
        return style.to_svg(figure, name, name, themed=False)


def drawing(  # noqa: PLR0917  # one call a figure, in the order of the page
    name: str,
    title: str,
    says: str,
    draw: Callable[[int], Figure],
    data: dict[str, pd.DataFrame],
    hover: dict[str, Any],
) -> Drawing:
    """Draw a figure at both widths."""
    with style.rc_context():
        wide = style.to_svg(draw(style.WIDE), f"{name}-w", says)
        narrow = style.to_svg(draw(style.NARROW), f"{name}-n", says)
    return Drawing(name, title, says, wide, narrow, data, hover)


def _hover(labels: list[str], columns: dict[str, Any]) -> dict[str, Any]:
    def edges(width: int) -> list[float]:
        room = panels.margins(width)
        return [room.left / width, 1 - room.right / width]

    return {
        "wide": edges(style.WIDE),
        "narrow": edges(style.NARROW),
        "labels": labels,
        "columns": {
            name: [None if pd.isna(value) else round(float(value), 1) for value in column]
            for name, column in columns.items()
        },
    }
