"""Documented limits compared with the run: the most that any period of each limit contained."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd

from bltybench.metrics.concurrency import InFlight, in_flight, steps
from bltybench.metrics.frame import ACCEPTED, NS_PER_S, Floats, Ints, floats, ints
from bltybench.metrics.rates import best_rolling, request_times, token_events
from bltybench.metrics.routes import scopes
from bltybench.runs.manifest import TargetInfo
from bltybench.scenario.api.documented_limits import Limit

COMPARED_COLUMNS = ["at_ns", "sent_ns", "end_ns", "fate", "prompt_tokens", "completion_tokens"]
"""Columns of attempts that show how much of a limit was used."""
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
    target: str | None = None
    key: str | None = None
    model: str | None = None
    """What the limit applies to, of a run with several."""

    @property
    def owner(self) -> str:
        """What the limit applies to, in words; empty if to the whole run."""
        return ", ".join(filter(None, (self.target, self.key, self.model)))

    @property
    def each(self) -> str:
        """What has such a limit, after the limit: ``for each key``; empty if the whole run has it."""
        of = [name for name in ("target", "key", "model") if getattr(self, name) is not None]
        return f" for each {' and '.join(of)}" if of else ""


class WholeRun(NamedTuple):
    """What a limit of the whole run is compared with, so that it is computed once."""

    events: pd.DataFrame
    """``token_events``."""
    flying: InFlight


def compare(
    limits: Sequence[Limit], attempts: pd.DataFrame, events: pd.DataFrame, flying: InFlight
) -> list[ComparedLimit]:
    """Compare each documented limit with the run. ``events``: the attempts' ``token_events``.

    A run shorter than a period is not extrapolated.
    """
    return [_compare(limit, attempts, events, flying) for limit in limits]


def compare_scopes(
    targets: Sequence[TargetInfo],
    attempts: pd.DataFrame,
    everything: pd.DataFrame,
    whole: WholeRun,
    end_ns: int,
) -> list[ComparedLimit]:
    """Compare the documented limits of each key, model, and target that has its own.

    ``everything`` includes the warm-up, in which requests are in flight too. ``whole`` is what both hold.
    """
    with_warm_up = {str(of): rows for _, of, rows in scopes(targets, everything)}
    found: list[ComparedLimit] = []
    for target, of, rows in scopes(targets, attempts):
        part, events, flying = attempts, *whole
        if not (rows.all() and with_warm_up[str(of)].all()):
            part = attempts.loc[rows, COMPARED_COLUMNS]
            in_part = everything.loc[with_warm_up[str(of)], COMPARED_COLUMNS]
            events, flying = token_events(part), in_flight(steps(in_part), end_ns)
        compared = compare(target.documented, part, events, flying)
        found += [msgspec.structs.replace(limit, **of) for limit in compared]
    return found


def distinct(compared: Sequence[ComparedLimit]) -> list[ComparedLimit]:
    """Return each limit once: that of the key, model, or target that used the largest part of it."""
    found: dict[Limit, ComparedLimit] = {}
    for limit in sorted(compared, key=lambda one: one.share, reverse=True):
        found.setdefault(Limit(limit.what, limit.limit, limit.period_s), limit)
    return [limit for limit in compared if limit in found.values()]


def _compare(limit: Limit, attempts: pd.DataFrame, events: pd.DataFrame, flying: InFlight) -> ComparedLimit:
    if limit.period_s is None:
        highest, until_s = float(flying.max), flying.at_s
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
