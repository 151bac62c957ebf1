"""One look for all figures: fixed colours per meaning, drawn as SVG that takes its colours from the page."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# A colour here is a stand-in that becomes a CSS variable in the page, so that one drawing is right in light,
# in dark and in print. The page's stylesheet holds the real ones.
ACCEPTED = "#0a7f80"
REFUSED = "#e8590b"
OTHER = "#70409b"
PROMPT = "#3564c1"
COMPLETION = "#5f8ce6"
INK = "#16181d"
MUTED = "#6a7079"
GRID = "#dfe2e6"
PAPER = "#fffffe"
SECOND = "#9a6700"

VARIABLES = {
    ACCEPTED: "--accepted",
    REFUSED: "--refused",
    OTHER: "--other",
    PROMPT: "--prompt",
    COMPLETION: "--completion",
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    SECOND: "--second",
}

WIDE = 1040
NARROW = 400

RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bltybench",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "hatch.linewidth": 1.1,
    "axes.linewidth": 0.8,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.unicode_minus": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "path.simplify": True,
}


@dataclass(frozen=True, slots=True)
class Margins:
    """Room around the plots, in pixels."""

    left: int
    right: int
    top: int
    bottom: int
    between: int


def panels(width: int, heights: list[int], margins: Margins) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``width`` pixels with one plot under another, all on one x axis."""
    total = margins.top + margins.bottom + sum(heights) + margins.between * (len(heights) - 1)
    # SVG counts 72 points to the inch and a page takes a point for a pixel.
    figure = Figure(figsize=(width / 72, total / 72), dpi=72, facecolor="none")
    axes: list[Axes] = []
    top = float(total - margins.top)
    for height in heights:
        box = (
            margins.left / width,
            (top - height) / total,
            (width - margins.left - margins.right) / width,
            height / total,
        )
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
        top -= height + margins.between
    for ax in axes:
        plain(ax)
        # The ticks of an axis that shows nothing would be made all the same, slower than a line is drawn.
        ax.xaxis.set_visible(ax is axes[-1])
    return figure, axes


def plain(ax: Axes) -> None:
    """Leave of a plot only what carries information: faint horizontal lines and a base."""
    ax.set_facecolor("none")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, pad=6)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """Return a number as an axis shows it: 60, 1,500, 20k, 1.5M."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:,.10g}"


def to_svg(figure: Figure, name: str, title: str, *, themed: bool = True) -> str:
    """Return the figure as inline SVG: same bytes for the same run, and ids of its own.

    Its colours are those of the page where ``themed``, else the stand-ins.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<defs>\s*<style type=.*?</defs>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "inherit" if themed else "sans-serif", svg)
    for colour, variable in VARIABLES.items() if themed else ():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'\bwidth="[\d.]+pt" height="[\d.]+pt"|\bheight="[\d.]+pt" ', "", svg, count=1)
    svg = re.sub(r"^<svg ", f'<svg role="img" aria-label="{escape(title)}" ', svg, count=1)
    return re.sub(r"\n\s*", "\n", svg)


def rc_context() -> Any:
    """Return the context in which figures are drawn: our look, whatever the user's matplotlibrc says."""
    everything: Any = dict(mpl.rcParamsDefault) | RC
    return mpl.rc_context(everything)
