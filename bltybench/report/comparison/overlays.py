"""The distributions of all sides in one plot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bltybench.metrics.latency import ecdf
from bltybench.report import text
from bltybench.report.comparison.model import ComparedSide
from bltybench.report.figures import panels, scales, style
from bltybench.report.figures.drawing import Drawing, drawing, hover_shares

LOOKS: list[tuple[str, Any]] = [
    (style.MUTED, (0, (4, 2))),
    (style.ACCEPTED, "-"),
    (style.PROMPT, (0, (6, 2, 1, 2))),
    (style.OTHER, (0, (2, 1))),
    (style.SECOND, (0, (8, 2))),
]
"""Color and dashes of each side, the base first. Further candidates repeat the looks after the base's."""

DISTRIBUTIONS = {"ttft": "TTFT", "itl": "Inter-token latency", "latency": "Call latency"}


class Curve(NamedTuple):
    """The distribution of one run."""

    side: int
    label: str
    run_id: str
    values: pd.DataFrame


def draw_distributions(sides: Sequence[ComparedSide]) -> list[Drawing]:
    """Draw every distribution with any values."""
    return [
        _distribution(sample, title, sides)
        for sample, title in DISTRIBUTIONS.items()
        if any(len(run.samples[sample]) for side in sides for run in side.runs)
    ]


def _distribution(sample: str, title: str, sides: Sequence[ComparedSide]) -> Drawing:
    curves = [
        Curve(
            index,
            side.label,
            run.manifest.run_id,
            ecdf(run.samples[sample]).rename(columns={"value": "value_ms"}),
        )
        for index, side in enumerate(sides)
        for run in side.runs
    ]
    values = pd.concat([curve.values["value_ms"] for curve in curves]).to_numpy(dtype=np.float64)

    def draw(width: int) -> Figure:
        figure, (ax,) = style.panels(width, [220 if width == style.WIDE else 190], panels.margins(width))
        for curve in curves:
            color, dashes = LOOKS[0] if curve.side == 0 else LOOKS[1 + (curve.side - 1) % (len(LOOKS) - 1)]
            panels.distribution(ax, curve.values, text.bounded(curve.label, 40), color, dashes)
        scales.log_axis(ax, values, width)
        panels.head(ax, panels.DISTRIBUTION, width)
        return figure

    says = f"Half took at most {'; '.join(_median(side, sample) for side in sides)}."
    data = pd.concat(
        [curve.values.assign(side=curve.label, run=curve.run_id) for curve in curves], ignore_index=True
    )[["side", "run", "value_ms", "share"]]
    shown: dict[str, pd.DataFrame] = {}
    for curve in curves:
        repeated = len(sides[curve.side].runs) > 1
        shown[text.bounded(curve.label, 30) + (f" ({curve.run_id})" if repeated else "")] = curve.values
    name = f"overlay-{sample}"
    return drawing(name, title, says, draw, {name: data}, hover_shares(shown))


def _median(side: ComparedSide, sample: str) -> str:
    medians = [run.samples[sample].quantile(0.5) for run in side.runs if len(run.samples[sample])]
    median = float(np.mean(medians)) if medians else None
    return f"{text.milliseconds(median)} ({text.bounded(side.label, 40)})"
