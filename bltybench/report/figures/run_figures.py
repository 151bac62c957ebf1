"""The figures of a run's page, each with its sentence and data."""

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.capacity import capacity as find_capacity
from bltybench.metrics.policy_choice import TournamentResult
from bltybench.report import text
from bltybench.report.figures import capacity, panels, scales, style, tournament
from bltybench.report.figures.drawing import Drawing, drawing, hover, hover_shares
from bltybench.report.sentences import latency_sentence, timeline_sentence

EMPTY_HEIGHT = 34
"""Height of a panel without data, in pixels."""
PANEL_HEIGHT = 200
"""Height of a panel that is a figure of its own, in pixels."""
PANEL_TITLES = {
    "requests": "Requests over time",
    "tokens": "Tokens over time",
    "in_flight": "Requests in flight over time",
    "ttft": "Time to first token over time",
}


def draw_all(analysis: Analysis, result: TournamentResult | None = None) -> list[Drawing]:
    """Draw the figures of the page, in its order."""
    knee = find_capacity(analysis.stages) if result is None else None
    policies = [tournament.draw(result)] if result is not None and result.standings else []
    steps = policies or ([] if knee is None else [capacity.draw(knee)])
    return [timeline(analysis), *steps, latencies(analysis)]


def timeline(analysis: Analysis) -> Drawing:
    """Draw requests, the refusal rate, tokens, requests in flight, and TTFT on one time axis."""
    lines, rolling = analysis.timeline, analysis.rolling
    has_tokens = bool((lines["prompt_tokens"] + lines["completion_tokens"]).any())
    has_streams = bool(analysis.attempts["ttft_ms"].notna().any())
    painted = [name for name in panels.TIMED if name != "refusals" or lines["refused"].any()]

    def draw(width: int) -> Figure:
        heights = {
            "requests": 160,
            "refusals": 50,
            "tokens": 90 if has_tokens else EMPTY_HEIGHT,
            "in_flight": 70,
            "ttft": 90 if has_streams else EMPTY_HEIGHT,
        }
        figure, axes = style.panels(width, [heights[name] for name in painted], panels.margins(width))
        for ax, name in zip(axes, painted, strict=True):
            panels.TIMED[name](ax, analysis, width)
        scales.time_axis(axes, analysis, width)
        return figure

    title, says = "Timeline", timeline_sentence(analysis)
    data = {"timeline": lines, "rolling": rolling}
    if not lines["offered"].any():
        return Drawing("timeline", title, says, "", "", data, {})
    at_end = rolling.iloc[np.minimum(np.searchsorted(rolling["at_s"], lines["end_s"]), len(rolling) - 1)]
    columns = {
        "accepted": lines["accepted"],
        "refused": lines["refused"],
        "other": lines["other"],
        "refused, %": 100 * lines["refused"] / lines["offered"].where(lines["offered"] > 0),
        "tokens in": lines["prompt_tokens"],
        "tokens out": lines["completion_tokens"],
        "peak in flight": lines["in_flight_max"],
        "accepted, last 60 s": at_end["accepted"],
        "tokens, last 60 s": at_end["tokens"],
        "TTFT p50, last 60 s (ms)": at_end["ttft_p50_ms"],
        "TTFT p95, last 60 s (ms)": at_end["ttft_p95_ms"],
    }
    bins = zip(lines["start_s"], lines["end_s"], strict=True)
    shown = hover([f"{text.clock(start)} to {text.clock(end)}" for start, end in bins], columns)
    return drawing("timeline", title, says, draw, data, shown)


def latencies(analysis: Analysis) -> Drawing:
    """Draw distributions and histograms of call latency, attempt latency, TTFT, and ITL on a log axis."""
    data = panels.curves(analysis)
    title, says = "Latency", latency_sentence(analysis)
    if data.empty:
        return Drawing("latency", title, says, "", "", {"latency": data}, {})
    binned = panels.histograms(analysis, data)

    def draw(width: int) -> Figure:
        height = 220 if width == style.WIDE else 200
        margins = replace(panels.margins(width), between=40)
        figure, (ax, below) = style.panels(width, [height, 110], margins)
        panels.latency(ax, analysis, data, width)
        panels.frequencies(below, binned, width)
        scales.log_x(below, data["value_ms"].to_numpy(dtype=np.float64), width)
        return figure

    curves = {label: data[data["metric"] == name] for name, label, *_ in panels.CURVES}
    tables = {"latency": data, "latency_histogram": binned}
    return drawing("latency", title, says, draw, tables, hover_shares(curves))


def panel(analysis: Analysis, name: str) -> Drawing:
    """Draw one panel of the timeline: requests, tokens, in_flight, or ttft."""
    title, empty = PANEL_TITLES[name], _nothing_in(analysis, name)
    if empty is not None:
        return Drawing(name, title, empty, "", "", {}, {})

    def draw(width: int) -> Figure:
        figure, (ax,) = style.panels(width, [PANEL_HEIGHT], panels.margins(width))
        panels.TIMED[name](ax, analysis, width)
        scales.time_axis([ax], analysis, width)
        return figure

    return drawing(name, title, title, draw, {"timeline": analysis.timeline}, {})


def _nothing_in(analysis: Analysis, name: str) -> str | None:
    """Return why a panel would be empty; None if it would not."""
    if analysis.attempts.empty:
        return "Nothing was sent."
    if name == "tokens" and not analysis.count_of("total_tokens"):
        return "No response has a number of tokens."
    if name == "ttft" and not len(analysis.samples["ttft"]):
        return "No stream succeeded."
    return None
