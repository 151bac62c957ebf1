"""Spend of a run, from the server's counts: requests, tokens, and money if the target has prices."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import floats
from bltybench.runs.manifest import Manifest


class Spent(NamedTuple):
    """Requests sent, tokens of their answers, and the cost; None if the price is unknown."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None


def spent(attempts: pd.DataFrame, manifest: Manifest, model: str) -> Spent:
    """Sum up every attempt, including the warm-up, at the prices of the scenario's ``model``."""
    prompt = int(np.nansum(floats(attempts, "prompt_tokens")))
    completion = int(np.nansum(floats(attempts, "completion_tokens")))
    price = manifest.target.prices.get(model)
    money = None
    if price is not None:
        money = (prompt * price["input_per_million"] + completion * price["output_per_million"]) / 1e6
    return Spent(int(attempts["sent_ns"].notna().sum()), prompt, completion, money)
