"""Requested lengths of prompts and answers against the actual ones."""

from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import bools, floats

TOLERANCE = 0.02
"""Relative difference up to which a length counts as the requested one; at least one token."""

USED_COLUMNS = [
    "wanted_prompt_tokens", "prompt_tokens", "max_tokens", "completion_tokens", "finish_reason",
]  # fmt: skip
"""Columns of attempts that ``lengths`` reads."""
COLUMNS = ["what", "n", "wanted_mean", "actual_mean", "ratio", "within_2pct", "at_the_cap"]


def lengths(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return a row for prompts and one for answers, over the ok attempts with both lengths known.

    ``ratio`` is the sum of actual over requested tokens. ``within_2pct`` is the fraction of attempts within
    TOLERANCE, and ``at_the_cap`` the fraction of answers that ended at max_tokens. Actual lengths are the
    server's, if it reported any.
    """
    ok = attempts.loc[bools(attempts, "ok"), USED_COLUMNS]
    rows: list[dict[str, Any]] = []
    for what, requested_column, column in (
        ("prompt", "wanted_prompt_tokens", "prompt_tokens"),
        ("answer", "max_tokens", "completion_tokens"),
    ):
        requested, actual = floats(ok, requested_column), floats(ok, column)
        known = ~(np.isnan(requested) | np.isnan(actual))
        if not known.any():
            continue
        capped = (ok["finish_reason"].astype("object") == "length").to_numpy(dtype=np.bool_)[known]
        requested, actual = requested[known], actual[known]
        close = np.abs(actual - requested) <= np.maximum(TOLERANCE * requested, 1.0)
        rows.append(
            {
                "what": what,
                "n": len(requested),
                "wanted_mean": float(requested.mean()),
                "actual_mean": float(actual.mean()),
                "ratio": float(actual.sum() / requested.sum()),
                "within_2pct": float(close.mean()),
                "at_the_cap": float(capped.mean()) if what == "answer" else None,
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)
