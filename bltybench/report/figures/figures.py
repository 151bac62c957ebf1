"""The figures of the page: what each shows in this run, drawn wide and narrow, with its data."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.capacity import capacity as find_capacity
from bltybench.report import text
from bltybench.report.figures import capacity, panels, scales, style
from bltybench.report.figures.drawing import Drawing, drawing, hover, hover_shares
from bltybench.report.sentences import latency_sentence, timeline_sentence

EMPTY = 34
"""Height of a panel that has nothing to show, in pixels."""


def draw_all(analysis: Analysis) -> list[Drawing]:
    """Draw the figures of the page, in its order."""
    found = find_capacity(analysis.stages)
    return [hero(analysis), *([] if found is None else [capacity.draw(found)]), latencies(analysis)]


def hero(analysis: Analysis) -> Drawing:
    """Requests, tokens, in flight and TTFT on one time axis."""
    lines, rolled = analysis.timeline, analysis.rolling

    tokens = bool((lines["prompt_tokens"] + lines["completion_tokens"]).any())
    streams = bool(analysis.attempts["ttft_ms"].notna().any())

    def draw(width: int) -> Figure:
        first = 190 if width == style.WIDE else 170
        heights = [first, 110 if tokens else EMPTY, 80, 110 if streams else EMPTY]
        figure, axes = style.panels(width, heights, panels.margins(width))
        for ax, paint in zip(axes, panels.TIMED.values(), strict=True):
            paint(ax, analysis, width)
        scales.time_axis(axes, analysis, width)
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
    shown = hover([f"{text.clock(since)} to {text.clock(until)}" for since, until in spans], columns)
    title = "The run on one time axis"
    data = {"timeline": lines, "rolling": rolled}
    if not lines["offered"].any():
        return Drawing("timeline", title, timeline_sentence(analysis), "", "", data, {})
    return drawing("timeline", title, timeline_sentence(analysis), draw, data, shown)


def latencies(analysis: Analysis) -> Drawing:
    """Distributions of call latency, attempt latency, TTFT and inter-token gaps on a logarithmic axis."""
    data = panels.curves(analysis)

    def draw(width: int) -> Figure:
        height = 260 if width == style.WIDE else 210
        figure, (ax,) = style.panels(width, [height], panels.margins(width))
        panels.latency(ax, analysis, data, width)
        return figure

    says = latency_sentence(analysis)
    if data.empty:
        return Drawing("latency", "How long things took", says, "", "", {"latency": data}, {})
    named = {label: data[data["metric"] == name] for name, label, *_ in panels.CURVES}
    return drawing("latency", "How long things took", says, draw, {"latency": data}, hover_shares(named))


def single(analysis: Analysis, name: str) -> str:
    """Return one panel (requests, tokens, in_flight, ttft, latency) by itself, as SVG in light colours."""
    with style.rc_context():
        figure, (ax,) = style.panels(style.WIDE, [220], panels.margins(style.WIDE))
        figure.set_facecolor("white")
        if name == "latency":
            panels.latency(ax, analysis, panels.curves(analysis), style.WIDE)
        else:
            panels.TIMED[name](ax, analysis, style.WIDE)
            scales.time_axis([ax], analysis, style.WIDE)
        return style.to_svg(figure, name, name, themed=False)
