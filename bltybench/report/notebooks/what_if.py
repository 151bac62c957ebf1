"""The functions behind the cells that readers edit and rerun."""

import numpy as np
import pandas as pd

from bltybench.limits.models.families import FAMILIES, with_article
from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import ACCEPTED, FATES, NS_PER_S, REFUSED, bools, ints
from bltybench.report import text


def per_window(run: Analysis, window_s: float) -> pd.DataFrame:
    """Count requests in successive windows: ``start_s``, ``offered``, and the number of each fate."""
    window = (ints(run.attempts, "at_ns") // round(window_s * NS_PER_S)).astype(np.int64)
    counted = pd.DataFrame({"window": window, "fate": run.attempts["fate"].astype("object")})
    wide = (
        counted.groupby(["window", "fate"])
        .size()
        .unstack(fill_value=0)
        .reindex(columns=list(FATES), fill_value=0)
    )
    wide.insert(0, "offered", wide.sum(axis=1))
    wide.insert(0, "start_s", wide.index.to_numpy(dtype=np.float64) * window_s)
    return wide.reset_index(drop=True).rename_axis(columns=None)


def cost(run: Analysis, prompt_price: float, completion_price: float) -> str:
    """Return what the run's tokens cost, at prices per million tokens."""
    spent = run.spent
    if not spent.prompt_tokens and not spent.completion_tokens:
        return "No response has a number of tokens, so the cost is unknown."
    total = (spent.prompt_tokens * prompt_price + spent.completion_tokens * completion_price) / 1e6
    ok = int(bools(run.calls, "ok").sum())
    says = (
        f"{spent.prompt_tokens:,} prompt tokens at {prompt_price:g} and {spent.completion_tokens:,} "
        f"completion tokens at {completion_price:g} per million cost {total:,.4f}"
    )
    return f"{says}, or {1000 * total / ok:,.3f} per 1,000 successful calls." if ok else f"{says}."


def within(run: Analysis, max_ms: float) -> pd.DataFrame:
    """Return the fraction of latencies of at most ``max_ms``: ``metric``, ``n``, ``within_share``."""
    rows = [
        (name, len(sample), float((sample.values <= max_ms).mean()))
        for name, sample in run.samples.items()
        if len(sample) and name != "schedule_delay"
    ]
    return pd.DataFrame(rows, columns=["metric", "n", "within_share"])


def time_at(run: Analysis, levels: list[int]) -> pd.DataFrame:
    """Return how long each number was reached: ``in_flight`` (or more), ``lasted_s``, ``time_share``."""
    times, level = ints(run.steps, "at_ns"), ints(run.steps, "in_flight")
    lasted_s = np.diff(times, append=times[-1:]) / NS_PER_S
    total_s = run.end_ns / NS_PER_S
    rows = [(number, float(lasted_s[level >= number].sum())) for number in levels if run.steps.size]
    frame = pd.DataFrame(rows, columns=["in_flight", "lasted_s"])
    return frame.assign(time_share=frame["lasted_s"] / total_s if total_s else 0.0)


def replay(run: Analysis, family: str, limit: int, period_s: float) -> str:
    """Return how many of the run's requests another limiter would accept, at the times they were sent.

    ``family`` is one of ``limits.models.families.FAMILIES``. The times are Unix time, to which fixed windows
    are aligned.
    """
    sent = run.attempts[run.attempts["sent_ns"].notna()].sort_values("at_ns")
    if sent.empty:
        return "Nothing was sent, so there is nothing to replay."
    model = FAMILIES[family].model(limit, period_s)
    start_s = run.manifest.clock.wall_ns / NS_PER_S
    predicted = np.array([model.decide(start_s + at_ns / NS_PER_S).accepted for at_ns in ints(sent, "at_ns")])
    fate = sent["fate"].astype("object").to_numpy()
    accepted, refused = fate == ACCEPTED, fate == REFUSED
    known = accepted | refused
    if not known.any():
        return "No response shows a decision of the limiter, so there is nothing to replay."
    same = int((predicted[known] == accepted[known]).sum())
    return (
        f"{text.sentence(with_article(family))} of {limit:,} per {period_s:g} s would accept "
        f"{int(predicted.sum()):,} of these {text.count(len(sent), 'request')}. The API accepted "
        f"{int(accepted.sum()):,}. Both decide {same:,} of {int(known.sum()):,} the same way."
    )
