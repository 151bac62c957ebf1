"""The look of all figures: one color per meaning, and SVG that takes its colors from the page."""

import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from bltybench.metrics.frame import Floats

# Placeholders: in the page, each becomes a CSS variable, so that one drawing suits light, dark, and print.
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

WIDE, NARROW = 1040, 400
"""Widths of drawings, in pixels."""

FONT = "'DejaVu Sans'"
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"

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
    """Space around and between the plots, in pixels."""

    left: int
    right: int
    top: int
    bottom: int
    between: int


def panels(width: int, heights: list[int], margins: Margins) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``width`` pixels, with plots of ``heights`` above each other on one x axis."""
    total = margins.top + margins.bottom + sum(heights) + margins.between * (len(heights) - 1)
    # SVG has 72 points per inch, and a page shows a point as a pixel.
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
        # matplotlib computes the ticks of visible axes even if they show nothing, which is slow.
        ax.xaxis.set_visible(ax is axes[-1])
    return figure, axes


def plain(ax: Axes) -> None:
    """Reduce a plot to faint horizontal lines and a base line."""
    ax.set_facecolor("none")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, pad=6)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def stairs(
    ax: Axes, values: ArrayLike, edges: Floats, *, baseline: ArrayLike = 0.0, fill: bool = True, **look: Any
) -> None:
    """Draw bars or their outline as one shape, in a plot whose limits are set.

    ``Axes.stairs`` would also compute the extent of the shape, which takes longer than drawing it.
    """
    heights = np.asarray(values, dtype=np.float64)
    base: Any = baseline  # the stubs take only a number
    ax.add_artist(StepPatch(heights, edges, baseline=base, fill=fill, **look))


def short(value: float) -> str:
    """Return a number for an axis: 60, 1,500, 20k, 1.5M."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:,.10g}"


def to_svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as inline SVG with unique ids. The same run gives the same text.

    CSS variables replace the placeholder colors, and the font is the page's.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - written by matplotlib just now
    for child in list(root):
        if child.tag == f"{SVG}metadata" or child.find(f"{SVG}style") is not None:
            root.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        element.tail = "\n"
        if element.text is not None and not element.text.strip():
            element.text = None
        element.attrib = {
            key.removeprefix(XLINK): _attribute(key, value, name) for key, value in element.attrib.items()
        }
    size = {"width", "height"}
    kept = {key: value for key, value in root.attrib.items() if key not in size}
    root.attrib = {"role": "img", "aria-label": title, "xmlns": SVG.strip("{}"), **kept}
    return ET.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, name: str) -> str:
    """Return an attribute with ids that start with ``name``, and with the page's colors and font."""
    if key == "id":
        return f"{name}-{value}"
    if key == f"{XLINK}href":
        return f"#{name}-{value[1:]}"
    if key == "style":
        declarations = (declaration.split(": ", 1) for declaration in value.split("; "))
        return "; ".join(f"{prop}: {_value(setting, name)}" for prop, setting in declarations)
    return _value(value, name)


def _value(value: str, name: str) -> str:
    if FONT in value:
        return value.partition(FONT)[0] + "inherit"
    if value in VARIABLES:
        return f"var({VARIABLES[value]})"
    return value.replace("url(#", f"url(#{name}-")


def rc_context() -> AbstractContextManager[None]:
    """Return a context with this project's look, whatever the user's matplotlibrc contains."""
    settings: Any = dict(mpl.rcParamsDefault) | RC
    # Setting the backend would import pyplot, and SVG does not need it.
    del settings["backend"]
    return mpl.rc_context(settings)
