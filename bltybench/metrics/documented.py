"""Documented limits compared with the run: the most that any period of each limit contained."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pandas as pd

from bltybench.metrics.concurrency import InFlight
from bltybench.metrics.frame import ACCEPTED, NS_PER_S, Floats, Ints, floats, ints
from bltybench.metrics.rates import best_rolling, request_times
from bltybench.scenario.api.documented_limits import Limit

TOKEN_COLUMNS = {
    "tokens": ["prompt_tokens", "completion_tokens"],
    "input_tokens": ["prompt_tokens"],
    "output_tokens": ["completion_tokens"],
}


class ComparedLimit(Limit, frozen=True, kw_only=True):
    """A documented limit, and the most of it that the run used."""

    highest: float
    """Accepted requests, or their tokens, in any period of the limit's length; or the peak in flight."""
    until_s: float | None
    """End of that period, or when the peak was first reached. None if nothing was sent."""
    share: float
    """``highest`` as a fraction of the limit, which can exceed 1."""


def compare(
    limits: Sequence[Limit], attempts: pd.DataFrame, events: pd.DataFrame, in_flight: InFlight
) -> list[ComparedLimit]:
    """Compare each documented limit with the run. ``events``: the attempts' ``token_events``.

    A run shorter than a period is not extrapolated.
    """
    return [_compare(limit, attempts, events, in_flight) for limit in limits]


def _compare(
    limit: Limit, attempts: pd.DataFrame, events: pd.DataFrame, in_flight: InFlight
) -> ComparedLimit:
    if limit.period_s is None:
        highest, until_s = float(in_flight.max), in_flight.at_s
    else:
        top = best_rolling(*_weighted(limit, attempts, events), round(limit.period_s * NS_PER_S))
        highest, until_s = top.value, None if top.until_ns is None else top.until_ns / NS_PER_S
    return ComparedLimit(
        *msgspec.structs.astuple(limit), highest=highest, until_s=until_s, share=highest / limit.limit
    )


def _weighted(limit: Limit, attempts: pd.DataFrame, events: pd.DataFrame) -> tuple[Ints, Floats | None]:
    """Return the times of what the limit counts, and the amounts, None for 1 each."""
    if limit.what == "requests":
        return request_times(attempts, ACCEPTED), None
    columns = [floats(events, name) for name in TOKEN_COLUMNS[limit.what]]
    return ints(events, "at_ns"), np.sum(columns, axis=0)
