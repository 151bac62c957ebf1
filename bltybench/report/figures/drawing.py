"""A figure for a page: SVG for wide and narrow screens, its sentence, its data, and its hover values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bltybench.metrics.frame import Floats, floats
from bltybench.report import text
from bltybench.report.figures import panels, scales, style
from bltybench.runs.folder import write_atomically

HoverData = dict[str, Any]
"""Values that report.js shows under the pointer, as JSON."""
HOVER_PLACES = 80
"""Places of a distribution that have hover values."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure."""

    name: str
    title: str
    says: str
    """One sentence about this run."""
    wide: str
    """SVG. Empty, like ``narrow``, if there is nothing to draw: the page then shows the sentence only."""
    narrow: str
    data: dict[str, pd.DataFrame]
    """By file name without extension."""
    hover: HoverData


def drawing(  # noqa: PLR0917 - one call per figure, in the order of the page
    name: str,
    title: str,
    says: str,
    draw: Callable[[int], Figure],
    data: dict[str, pd.DataFrame],
    hover: HoverData,
) -> Drawing:
    """Draw a figure at both widths."""
    with style.rc_context():
        wide = style.to_svg(draw(style.WIDE), f"{name}-w", says)
        narrow = style.to_svg(draw(style.NARROW), f"{name}-n", says)
    return Drawing(name, title, says, wide, narrow, data, hover)


def hover(
    labels: list[str],
    columns: dict[str, Any],
    at: Floats | None = None,
    edges: Callable[[int], list[float]] | None = None,
) -> HoverData:
    """Return hover values: a label, and a value of each column, for each place along the x axis.

    Places have equal width, or are those nearest to ``at`` (fractions of the axis). ``edges`` returns the
    ends of the axis, as fractions of a drawing of a given width, if they differ from ``panels.margins``.
    """
    ends = edges or (lambda width: _ends(panels.margins(width), width))
    places = {} if at is None else {"at": [round(float(place), 4) for place in at]}
    return places | {
        "wide": ends(style.WIDE),
        "narrow": ends(style.NARROW),
        "labels": labels,
        "columns": {
            name: [None if pd.isna(value) else round(float(value), 1) for value in column]
            for name, column in columns.items()
        },
    }


def hover_shares(curves: dict[str, pd.DataFrame]) -> HoverData:
    """Return hover values for distributions on a logarithmic axis (``scales.log_axis``)."""
    drawn = {name: curve for name, curve in curves.items() if len(curve)}
    if not drawn:
        return {}
    low, high = scales.log_range(np.concatenate([floats(curve, "value_ms") for curve in drawn.values()]))
    limits = low * (high / low) ** ((np.arange(HOVER_PLACES) + 0.5) / HOVER_PLACES)
    columns = {}
    for name, curve in drawn.items():
        ms, share = floats(curve, "value_ms"), floats(curve, "share")
        columns[f"{name}, %"] = np.append(0.0, share * 100)[np.searchsorted(ms, limits, side="right")]
    return hover([f"at most {text.milliseconds(limit)}" for limit in limits], columns)


def hover_rows(labels: list[str], columns: dict[str, Any], margins: Mapping[int, style.Margins]) -> HoverData:
    """Return hover values for rows of equal height."""
    if not labels:
        return {}
    height = len(labels) * 24 + 10
    total = height + margins[style.WIDE].top + margins[style.WIDE].bottom
    top = margins[style.WIDE].top / total
    rows = {"rows": [round(top, 4), round(top + height / total, 4)]}
    return rows | hover(labels, columns, edges=lambda width: _ends(margins[width], width))


def _ends(margins: style.Margins, width: int) -> list[float]:
    return [margins.left / width, 1 - margins.right / width]


def write_data(drawings: Iterable[Drawing], directory: Path) -> None:
    """Write the data of every figure as CSV."""
    directory.mkdir(exist_ok=True)
    for figure in drawings:
        for name, data in figure.data.items():
            written = data.to_csv(index=False, float_format="%.10g", lineterminator="\n")
            write_atomically(directory / f"{name}.csv", written.encode())
