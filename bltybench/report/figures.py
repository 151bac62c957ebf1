"""The figures of the page: what each shows in this run, drawn wide and narrow, with its data."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.capacity import capacity as find_capacity
from bltybench.report import capacity, panels, style
from bltybench.report.drawing import Drawing, drawing, hover, hover_shares
from bltybench.report.sentences import latency_sentence, timeline_sentence


def draw_all(analysis: Analysis) -> list[Drawing]:
    """Draw the figures of the page, in its order."""
    found = find_capacity(analysis.stages)
    return [hero(analysis), *([] if found is None else [capacity.draw(found)]), latencies(analysis)]


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
    shown = hover([f"{style.clock(since)} to {style.clock(until)}" for since, until in spans], columns)
    title = "The run on one time axis"
    data = {"timeline": lines, "rolling": rolled}
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
            panels.time_axis([ax], analysis, style.WIDE)
        return style.to_svg(figure, name, name, themed=False)
