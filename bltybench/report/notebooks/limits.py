"""Parts of a run's section on rate limits, as the notebook shows them. A run that sent nothing has none."""

import pandas as pd

from bltybench.report.figures.drawing import Drawing
from bltybench.report.page.limits_section import LimitsSection

COLUMNS = ["property", "documented", "announced", "observed"]


def properties(limits: LimitsSection | None) -> pd.DataFrame:
    """Return the limits in words: ``property``, ``documented``, ``announced``, ``observed``."""
    return pd.DataFrame([] if limits is None else limits.rows, columns=COLUMNS)


def advice(limits: LimitsSection | None) -> list[str]:
    """Return what the client should do."""
    return [] if limits is None else list(limits.record.advice)


def drawings(limits: LimitsSection | None) -> list[Drawing]:
    """Return the decisions over the model's, Retry-After over the wait needed, and Remaining."""
    return [] if limits is None else limits.drawings
