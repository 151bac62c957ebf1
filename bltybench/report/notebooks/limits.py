"""Parts of a run's section on rate limits, as the notebook shows them. A run that sent nothing has none."""

import pandas as pd

from bltybench.metrics.analysis import Analysis
from bltybench.report import text
from bltybench.report.figures.drawing import Drawing
from bltybench.report.page.answer import answer, client_advice
from bltybench.report.page.limits_section import LimitsSection
from bltybench.report.summary import summarize

COLUMNS = ["property", "documented", "announced", "observed"]


def properties(limits: LimitsSection | None) -> pd.DataFrame:
    """Return the limits in words: ``property``, ``documented``, ``announced``, ``observed``."""
    return pd.DataFrame([] if limits is None else limits.rows, columns=COLUMNS)


def advice(run: Analysis, limits: LimitsSection | None) -> list[str]:
    """Return what the client should do, as the run's page does."""
    summary = summarize(run)
    found = client_advice(summary, limits, trusted=answer(summary, limits).trusted)
    return [text.sentence(f"{topic}: {says}" if topic else says) for topic, says in found]


def drawings(limits: LimitsSection | None) -> list[Drawing]:
    """Return the decisions over the model's, Retry-After over the wait needed, and Remaining."""
    return [] if limits is None else limits.drawings
