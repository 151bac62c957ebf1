"""A figure for a page: drawn wide and narrow, what it says, its data, what shows under the pointer."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure: two drawings of it for two widths of page, what it says, and the data it was made of."""

    name: str
    title: str
    says: str
    """One sentence about this run."""
    wide: str
    """Empty, as ``narrow`` is, where there is nothing to see: then only the sentence is shown."""
    narrow: str
    data: dict[str, pd.DataFrame]
    """By file name without its ending."""
    hover: dict[str, Any]
    """What the page's script shows under the pointer: ``hover``."""


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


def hover(
    labels: list[str],
    columns: dict[str, Any],
    at: Floats | None = None,
    edges: Callable[[int], list[float]] | None = None,
) -> dict[str, Any]:
    """Return what the page's script shows under the pointer.

    A label and a value of each column for every place along the x axis: places of equal width, or those
    nearest to ``at`` (shares of the axis). ``edges`` says where the axis lies in a drawing of a width (shares
    of it), where that is not as ``panels.margins`` has it.
    """
    between = edges or _edges
    places = {} if at is None else {"at": [round(float(place), 4) for place in at]}
    return places | {
        "wide": between(style.WIDE),
        "narrow": between(style.NARROW),
        "labels": labels,
        "columns": {
            name: [None if pd.isna(value) else round(float(value), 1) for value in column]
            for name, column in columns.items()
        },
    }


def _edges(width: int) -> list[float]:
    room = panels.margins(width)
    return [room.left / width, 1 - room.right / width]


def hover_shares(curves: dict[str, pd.DataFrame], places: int = 80) -> dict[str, Any]:
    """Return what to show under the pointer of distributions on a logarithmic axis: ``scales.log_axis``."""
    drawn = {name: curve for name, curve in curves.items() if len(curve)}
    if not drawn:
        return {}
    values = np.concatenate([floats(curve, "value_ms") for curve in drawn.values()])
    low, high = scales.log_range(values)
    at = (np.arange(places) + 0.5) / places
    limits = low * (high / low) ** at
    columns = {}
    for name, curve in drawn.items():
        ms, share = floats(curve, "value_ms"), floats(curve, "share")
        columns[f"{name}, %"] = np.append(0.0, share * 100)[np.searchsorted(ms, limits, side="right")]
    return hover([f"at most {text.milliseconds(limit)}" for limit in limits], columns)


def hover_rows(
    labels: list[str], columns: dict[str, Any], room: Mapping[int, style.Margins]
) -> dict[str, Any]:
    """Return what to show under the pointer of rows under one another, as high as one another."""
    if not labels:
        return {}
    edges = {"wide": style.WIDE, "narrow": style.NARROW}
    tall = len(labels) * 24 + 10
    total = tall + room[style.WIDE].top + room[style.WIDE].bottom
    top = room[style.WIDE].top / total
    return {
        "rows": [round(top, 4), round(top + tall / total, 4)],
        **{name: [room[width].left / width, 1 - room[width].right / width] for name, width in edges.items()},
        "labels": labels,
        "columns": {name: [round(float(value), 1) for value in column] for name, column in columns.items()},
    }


def write_data(drawings: Iterable[Drawing], folder: Path) -> None:
    """Write the data behind every figure as CSV, so that anyone can draw it anew."""
    folder.mkdir(exist_ok=True)
    for each in drawings:
        for name, data in each.data.items():
            written = data.to_csv(index=False, float_format="%.10g", lineterminator="\n")
            write_atomically(folder / f"{name}.csv", written.encode())
