"""A limiter's model beside what happened: made servers whose headers tell the truth, or do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from bltybench.limits.models.base import Model
from bltybench.limits.models.families import FAMILIES
from bltybench.metrics.limiter import COLUMNS, DECISIONS, decisions, maker_of, remainders, telling, waits

NS = 1_000_000_000
START_S = 1_795_348_800.0


def served(
    make: Callable[[], Model], retry: Callable[[float], float | None] = math.ceil, count: int = 120
) -> list[dict[str, Any]]:
    """Ten requests a second; each is decided on 5 ms after it was sent and answered 5 ms later."""
    model, rows = make(), []
    for i in range(count):
        sent = i * NS // 10
        said = model.decide(START_S + sent / NS + 0.005)
        base = dict.fromkeys(COLUMNS)
        rows.append(
            base
            | {
                "sent_ns": sent,
                "headers_ns": sent + NS // 100,
                "end_ns": sent + NS // 100,
                "outcome": "ok" if said.accepted else "rate_limited",
                "status": 200 if said.accepted else 429,
                "limit_requests": said.limit,
                "remaining_requests": math.floor(said.remaining + 1e-9),
                "retry_after_s": None if said.retry_after_s is None else retry(said.retry_after_s),
            }
        )
    return rows


def fit(family: str) -> dict[str, Any]:
    return {
        "family": family,
        "limit": 7,
        "period_s": 2.0,
        "phase_s": 0.7 if family in {"fixed_window", "sliding_counter"} else None,
        "ticks": 4 if family == "interval_refill" else None,
        "count_refused": None,
    }


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "leaky_queue"])
def test_an_honest_server_is_what_its_model_says(family: str) -> None:
    make = maker_of(fit(family))
    assert make is not None
    decided = decisions(served(make), START_S, make)
    assert tuple(decided.columns) == DECISIONS
    assert set(decided["observed"]) == {"accepted", "refused"}
    assert decided["predicted"].tolist() == decided["observed"].tolist()
    told = waits(decided)
    assert set(told["says"]) == {"not contradicted"}
    assert (told["needed_by_model_s"] <= told["retry_after_s"]).all()
    said = remainders(decided)
    assert said["announced"].tolist() == said["expected"].tolist()
    assert said["answers"].sum() == len(decided)


def test_a_retry_after_that_is_too_short_or_too_long_is_seen() -> None:
    make = maker_of(fit("fixed_window"))
    assert make is not None
    short = waits(decisions(served(make, lambda wait: wait / 4), START_S, make))
    assert (short["says"] == "too short").sum() > len(short) / 2
    long = waits(decisions(served(make, lambda wait: wait + 5), START_S, make))
    ended = long["needed_at_most_s"].notna()
    assert set(long["says"][ended]) == {"longer than needed"}
    # Nothing came after the last ones, so nothing contradicts them.
    assert set(long["says"][~ended]) <= {"not contradicted"}
    none = waits(decisions(served(make, lambda _: None), START_S, make))
    assert none.empty


def test_another_model_decides_otherwise() -> None:
    window, bucket = maker_of(fit("fixed_window")), maker_of(fit("token_bucket"))
    assert window is not None
    decided = decisions(served(window), START_S, bucket)
    assert (decided["observed"] != decided["predicted"]).sum() > 10


def test_without_a_model_there_is_the_evidence_alone() -> None:
    make = maker_of(fit("sliding_log"))
    assert make is not None
    decided = decisions(served(make), START_S, None)
    assert decided["predicted"].isna().all()
    assert remainders(decided).empty
    assert waits(decided)["needed_at_most_s"].notna().any()
    assert maker_of(None) is None
    assert maker_of({"family": "witchcraft"}) is None
    assert decisions([], START_S, make).empty


def test_a_lost_answer_between_two_acceptances_was_one() -> None:
    make = maker_of(fit("sliding_log"))
    assert make is not None
    rows = served(make)
    rows[2] |= {"outcome": "timeout", "status": None, "headers_ns": None, "remaining_requests": None}
    decided = decisions(rows, START_S, make)
    known = decided["observed"].notna()
    assert (decided["observed"] == decided["predicted"])[known].all()
    assert not known[2]


def test_of_a_long_run_the_part_that_tells_most_is_taken() -> None:
    make = maker_of(fit("fixed_window"))
    assert make is not None
    quiet = [row | {"outcome": "ok", "status": 200} for row in served(make)]
    busy = [row | {"sent_ns": row["sent_ns"] + 12 * NS} for row in served(make)]
    unsent = busy[0] | {"sent_ns": None}
    columns = {name: [row[name] for row in [*busy, *quiet, unsent]] for name in COLUMNS}
    columns["status"] = pa.array(columns["status"], pa.int16())
    columns["sent_ns"] = pa.array(columns["sent_ns"], pa.int64())
    whole = pa.table(columns)
    part = whole.take(telling(whole, 110))
    assert part.num_rows == 110
    assert part["sent_ns"][0].as_py() > 11 * NS
    assert len(telling(whole, 1000)) == 240


def test_a_limit_of_requests_in_flight_predicts_as_well() -> None:
    # Each takes half a second and one is sent each tenth: with three slots two in five are refused.
    rows, ends = served(lambda: FAMILIES["sliding_log"].model(7, 2.0)), list[int]()
    for row in rows:
        ends = [end for end in ends if end > row["sent_ns"]]
        fits = len(ends) < 3
        end = row["sent_ns"] + (NS // 2 - NS // 50 if fits else NS // 100)
        row |= {"end_ns": end, "outcome": "ok" if fits else "rate_limited", "status": 200 if fits else 429}
        ends += [end] if fits else []
    decided = decisions(rows, START_S, None, slots=3)
    assert set(decided["observed"]) == {"accepted", "refused"}
    assert decided["predicted"].tolist() == decided["observed"].tolist()
    more = decisions(rows, START_S, None, slots=4)
    assert (more["predicted"] == "accepted").sum() > (more["observed"] == "accepted").sum()
