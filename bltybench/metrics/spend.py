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
    """Sum up every attempt, including the warm-up, at the prices of its target and model.

    Older records have neither, so they are those of the only target and of the scenario's ``model``.
    """
    prompt = int(np.nansum(floats(attempts, "prompt_tokens")))
    completion = int(np.nansum(floats(attempts, "completion_tokens")))
    used = pd.DataFrame(
        {
            "target": attempts["target"],
            "model": attempts["requested_model"],
            "input": floats(attempts, "prompt_tokens"),
            "output": floats(attempts, "completion_tokens"),
        }
    )
    recorded = used.groupby(["target", "model"], dropna=False, observed=True).sum().reset_index()
    names = {"target": manifest.target.name, "model": model}
    tokens = recorded.astype(dict.fromkeys(names, "object")).fillna(names).groupby([*names]).sum()
    prices = [_price(manifest, target, name) for target, name in tokens.index]
    money = None
    if prices and None not in prices:
        per_million = pd.DataFrame([price for price in prices if price is not None], index=tokens.index)
        cost = tokens["input"] * per_million["input_per_million"]
        money = float((cost + tokens["output"] * per_million["output_per_million"]).sum()) / 1e6
    return Spent(int(attempts["sent_ns"].notna().sum()), prompt, completion, money)


def _price(manifest: Manifest, target: str, model: str) -> dict[str, float] | None:
    infos = [info for info in manifest.targets if info.name == target]
    return infos[0].prices.get(model) if infos else None
