"""What a run spent, as far as the server said: requests, tokens, and money where the target has prices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import floats
from bltybench.runs.manifest import Manifest


class Spent(NamedTuple):
    """Requests sent, tokens of the answers that came, and what they cost; None where no price is known."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None


def spent(attempts: pd.DataFrame, manifest: Manifest) -> Spent:
    """Add up every attempt, warm-up included: it was paid for.

    The price is that of the scenario's model, by whatever name the server answered.
    """
    prompt = int(np.nansum(floats(attempts, "prompt_tokens")))
    completion = int(np.nansum(floats(attempts, "completion_tokens")))
    price = manifest.target.prices.get(str(manifest.resolved.get("model")))
    money = None
    if price is not None:
        money = (prompt * price["input_per_million"] + completion * price["output_per_million"]) / 1e6
    return Spent(int(attempts["sent_ns"].notna().sum()), prompt, completion, money)
