"""Keys, models, and targets of a run with several: a row for each, and the parts with own limits."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.concurrency import in_flight, steps
from bltybench.metrics.frame import ACCEPTED, FATES, REFUSED, floats, ints
from bltybench.metrics.latency import shown
from bltybench.metrics.outcomes import ERRORS
from bltybench.metrics.rates import best_rolling, request_times, token_events
from bltybench.metrics.sample import Sample
from bltybench.runs.manifest import TargetInfo

COLUMNS_OF = {"target": "target", "key": "key", "model": "requested_model"}
"""Column of attempts by what a run can have several of."""
MAX_ROWS = 60
"""Maximum rows of one kind, largest first: a locustfile can request any number of models."""
COLUMNS = [
    *("by", "value", "attempts", *FATES, "refused_share", "errors_share"),
    *("offered_per_min", "accepted_per_min", "tokens_per_min", "in_flight_max"),
    *("ttft_p50_ms", "ttft_p95_ms", "latency_p50_ms", "latency_p95_ms"),
]


def by_route(attempts: pd.DataFrame, end_ns: int) -> pd.DataFrame:
    """Return a row for each target, key, and requested model, of those of which the run has several.

    Rates are those of the best rolling 60 s, latencies those of attempts. Percentiles are null if the sample
    is too small.
    """
    rows: list[dict[str, Any]] = []
    for by, column in COLUMNS_OF.items():
        sizes = attempts[column].value_counts()
        values = [str(value) for value in sizes[sizes > 0].index[:MAX_ROWS]]
        if len(values) > 1:
            parts = ((value, attempts[attempts[column] == value]) for value in sorted(values))
            rows += [{"by": by, "value": value} | _row(part, end_ns) for value, part in parts]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(part: pd.DataFrame, end_ns: int) -> dict[str, Any]:
    events = token_events(part)
    tokens = floats(events, "prompt_tokens") + floats(events, "completion_tokens")
    ttft, latency = Sample.of(floats(part, "ttft_ms")), Sample.of(floats(part, "latency_ms"))
    return {
        "attempts": len(part),
        **{fate: int((part["fate"] == fate).sum()) for fate in FATES},
        "refused_share": float((part["fate"] == REFUSED).mean()),
        "errors_share": float(part["outcome"].isin(ERRORS).mean()),
        "offered_per_min": best_rolling(request_times(part)).value,
        "accepted_per_min": best_rolling(request_times(part, ACCEPTED)).value,
        "tokens_per_min": best_rolling(ints(events, "at_ns"), tokens).value,
        "in_flight_max": in_flight(steps(part), end_ns).max,
        "ttft_p50_ms": shown(ttft, "p50"),
        "ttft_p95_ms": shown(ttft, "p95"),
        "latency_p50_ms": shown(latency, "p50"),
        "latency_p95_ms": shown(latency, "p95"),
    }


def scopes(
    targets: Sequence[TargetInfo], attempts: pd.DataFrame
) -> Iterator[tuple[TargetInfo, dict[str, str], np.ndarray]]:
    """Yield each part with documented limits of its own: its target, what it is of, and its rows.

    What all attempts have in common is not part of the description, so a run with one key has one part, with
    an empty description.
    """
    names = attempts["target"]
    for target in targets:
        of_target = names == target.name
        own = (of_target | names.isna() if target is targets[0] else of_target).to_numpy(dtype=np.bool_)
        columns = [COLUMNS_OF[per] for per in target.limits_per]
        columns = [column for column in columns if attempts.loc[own, column].nunique() > 1]
        described = {"target": target.name} if len(targets) > 1 else {}
        if not columns:
            yield target, described, own
            continue
        keys = attempts.loc[own, columns].astype("object")
        labels = {column: by for by, column in COLUMNS_OF.items()}
        for values, part in keys.groupby(list(keys.columns), dropna=False):
            of = {labels[column]: str(value) for column, value in zip(keys.columns, values, strict=True)}
            yield target, described | of, attempts.index.isin(part.index)
