"""Display helpers for the notebooks in ``analysis/``."""

from typing import Any

import pandas as pd
from IPython.display import SVG
from pandas.io.formats.style import Styler

from bltybench.metrics.analysis import Analysis
from bltybench.report.figures import run_figures


def table(frame: pd.DataFrame) -> Styler:
    """Return a frame for display, with up to three decimals and a dash for missing values."""
    return frame.style.format(_cell, na_rep="–", escape="html").hide(axis="index")


def panel(run: Analysis, name: str) -> SVG:
    """Return one panel for display: requests, tokens, in_flight, ttft, or latency."""
    return SVG(data=run_figures.single(run, name))  # type: ignore[no-untyped-call]  # not annotated there


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
