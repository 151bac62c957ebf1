"""A limiter model compared with the API: simulated servers with accurate and with wrong headers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from support_runs import attempt, table

from bltybench.limits.findings.model import FitRecord
from bltybench.limits.models.base import Model
from bltybench.limits.models.families import FAMILIES
from bltybench.metrics.limiter import DECISIONS, decisions, maker_of, remaining_counts, retry_after_waits
from bltybench.report.run_limits import most_informative
from bltybench.runs.attempt import Attempt, Outcome

NS = 1_000_000_000
START_S = 1_795_348_800.0


def served(
    make: Callable[[], Model], retry: Callable[[float], float | None] = math.ceil, count: int = 120
) -> list[Attempt]:
    """Ten requests per second. Each is decided 5 ms after it was sent and answered 5 ms later."""
    model, rows = make(), []
    for i in range(count):
        sent = i * NS // 10
        decision = model.decide(START_S + sent / NS + 0.005)
        wait_s = decision.retry_after_s
        rows.append(
            attempt(
                sent_ns=sent,
                headers_ns=sent + NS // 100,
                end_ns=sent + NS // 100,
                outcome=Outcome.OK if decision.accepted else Outcome.RATE_LIMITED,
                status=200 if decision.accepted else 429,
                limit_requests=decision.limit,
                remaining_requests=math.floor(decision.remaining + 1e-9),
                retry_after_s=None if wait_s is None else retry(wait_s),
            )
        )
    return rows


def later(row: Attempt, ns: int) -> Attempt:
    moved = {name: getattr(row, name) + ns for name in ("sent_ns", "headers_ns", "end_ns")}
    return replace(row, **moved)


def fit(family: str) -> FitRecord:
    return FitRecord(
        family=family,
        limit=7,
        limit_range=(7, 7),
        period_s=2.0,
        period_range_s=(2.0, 2.0),
        rate_per_min=210.0,
        phase=None,
        phase_s=0.7 if family in {"fixed_window", "sliding_counter"} else None,
        ticks=4 if family == "interval_refill" else None,
        count_refused=None,
        contradictions=0,
    )


def maker(family: str) -> Callable[[], Model]:
    make = maker_of(fit(family))
    assert make is not None
    return make


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "leaky_queue"])
def test_accurate_server_matches_its_model(family: str) -> None:
    make = maker(family)
    decided = decisions(served(make), START_S, make)
    assert tuple(decided.columns) == DECISIONS
    assert set(decided["observed"]) == {"accepted", "refused"}
    assert decided["predicted"].tolist() == decided["observed"].tolist()
    waits = retry_after_waits(decided)
    assert set(waits["says"]) == {"not contradicted"}
    assert (waits["needed_by_model_s"] <= waits["retry_after_s"]).all()
    counts = remaining_counts(decided)
    assert counts["announced"].tolist() == counts["expected"].tolist()
    assert counts["answers"].sum() == len(decided)


def test_wrong_retry_after_is_detected_and_missing_one_is_not_judged() -> None:
    make = maker("fixed_window")
    short = retry_after_waits(decisions(served(make, lambda wait: wait / 4), START_S, make))
    assert (short["says"] == "too short").sum() > len(short) / 2
    long = retry_after_waits(decisions(served(make, lambda wait: wait + 5), START_S, make))
    ended = long["needed_at_most_s"].notna()
    assert set(long["says"][ended]) == {"longer than needed"}
    # No request followed the last refusals, so nothing contradicts them.
    assert set(long["says"][~ended]) <= {"not contradicted"}
    assert retry_after_waits(decisions(served(make, lambda _: None), START_S, make)).empty


def test_model_of_another_family_decides_differently() -> None:
    decided = decisions(served(maker("fixed_window")), START_S, maker("token_bucket"))
    assert (decided["observed"] != decided["predicted"]).sum() > 10


def test_without_a_model_only_the_observed_decisions_are_known() -> None:
    make = maker("sliding_log")
    decided = decisions(served(make), START_S, None)
    assert decided["predicted"].isna().all()
    assert remaining_counts(decided).empty
    assert retry_after_waits(decided)["needed_at_most_s"].notna().any()
    assert maker_of(None) is None
    assert maker_of(fit("witchcraft")) is None
    assert decisions([], START_S, make).empty


def test_lost_response_between_acceptances_counts_as_accepted() -> None:
    make = maker("sliding_log")
    rows = served(make)
    lost: dict[str, Any] = {"status": None, "headers_ns": None, "remaining_requests": None}
    rows[2] = replace(rows[2], outcome=Outcome.TIMEOUT, **lost)
    decided = decisions(rows, START_S, make)
    known = decided["observed"].notna()
    assert (decided["observed"] == decided["predicted"])[known].all()
    assert not known[2]


def test_most_informative_part_of_a_long_run_has_the_recoveries() -> None:
    make = maker("fixed_window")
    quiet = [replace(row, outcome=Outcome.OK, status=200) for row in served(make)]
    busy = [later(row, 12 * NS) for row in served(make)]
    whole = table(*busy, *quiet, replace(busy[0], sent_ns=None))
    part = whole.take(most_informative(whole, 110))
    assert part.num_rows == 110 - 13  # the refusals before the first recovery have an unknown cause
    assert part["sent_ns"][0].as_py() > 11 * NS
    assert len(most_informative(whole, 1000)) == 240


def test_concurrency_limit_predicts_decisions_without_a_model() -> None:
    # Each takes 0.5 s and one is sent every 0.1 s, so with three slots two in five are refused.
    rows, ends = list[Attempt](), list[int]()
    for row in served(lambda: FAMILIES["sliding_log"].model(7, 2.0)):
        sent = row.sent_ns or 0
        ends = [end for end in ends if end > sent]
        fits = len(ends) < 3
        end = sent + (NS // 2 - NS // 50 if fits else NS // 100)
        outcome = Outcome.OK if fits else Outcome.RATE_LIMITED
        rows.append(replace(row, end_ns=end, outcome=outcome, status=200 if fits else 429))
        ends += [end] if fits else []
    decided = decisions(rows, START_S, None, slots=3)
    assert set(decided["observed"]) == {"accepted", "refused"}
    assert decided["predicted"].tolist() == decided["observed"].tolist()
    more = decisions(rows, START_S, None, slots=4)
    assert (more["predicted"] == "accepted").sum() > (more["observed"] == "accepted").sum()
