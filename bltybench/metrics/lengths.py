"""Lengths that were wanted against those that came, and what the run spent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Floats, floats

COLUMNS = ["what", "n", "wanted_mean", "actual_mean", "ratio", "within_2pct", "at_the_cap"]


def lengths(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return a row for prompts and one for answers, over the ok attempts of which both lengths are known.

    ``ratio`` is actual over wanted, of the sums; ``within_2pct`` the share of attempts whose length is within
    2% of what was wanted (or a token, where that is more); ``at_the_cap`` the share of answers that ended
    because max_tokens was reached. Actual lengths are the server's where it said them.
    """
    ok = attempts[attempts["ok"].to_numpy(dtype=np.bool_)]
    rows: list[dict[str, Any]] = []
    for what, wanted_column, column in (
        ("prompt", "wanted_prompt_tokens", "prompt_tokens"),
        ("answer", "max_tokens", "completion_tokens"),
    ):
        wanted, actual = floats(ok, wanted_column), floats(ok, column)
        known = ~(np.isnan(wanted) | np.isnan(actual))
        if not known.any():
            continue
        capped = (ok["finish_reason"].astype("object") == "length").to_numpy(dtype=np.bool_)[known]
        rows.append(
            _row(what, wanted[known], actual[known])
            | {"at_the_cap": float(capped.mean()) if what == "answer" else None}
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(what: str, wanted: Floats, actual: Floats) -> dict[str, Any]:
    near = np.abs(actual - wanted) <= np.maximum(0.02 * wanted, 1.0)
    return {
        "what": what,
        "n": len(wanted),
        "wanted_mean": float(wanted.mean()),
        "actual_mean": float(actual.mean()),
        "ratio": float(actual.sum() / wanted.sum()),
        "within_2pct": float(near.mean()),
    }
