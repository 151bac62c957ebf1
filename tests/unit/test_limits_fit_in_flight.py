"""Concurrency limits, distinguished from rate limits by the attempts of an ordinary run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support_runs import attempt

from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.fit.in_flight import fit_concurrency
from bltybench.limits.models import SlidingLog
from bltybench.runs.attempt import Attempt, Outcome

NS = 1_000_000_000


def row(sent_s: float, takes_s: float, status: int, **fields: Any) -> Attempt:
    """Return one attempt; a refusal takes 2 ms."""
    sent = round(sent_s * NS)
    return attempt(
        sent_ns=sent,
        headers_ns=sent + round((takes_s / 2 if status == 200 else 0.002) * NS),
        end_ns=sent + round((takes_s if status == 200 else 0.002) * NS),
        outcome={200: Outcome.OK, 429: Outcome.RATE_LIMITED, 503: Outcome.SERVER_ERROR}[status],
        status=status,
        **fields,
    )


def crowd(count: int = 160) -> Iterator[tuple[float, float]]:
    """Yield irregular send times, and how long each response takes."""
    at_s = 0.0
    for i in range(count):
        at_s += 0.013 + 0.029 * ((i * 7) % 5) / 5
        yield at_s, 0.11 + 0.13 * ((i * 11) % 7) / 7


def by_slots(slots: int, status: int = 429, **fields: Any) -> list[Attempt]:
    """Return the attempts of a crowd against a server with ``slots`` slots."""
    rows: list[Attempt] = []
    ends: list[float] = []
    for at_s, takes_s in crowd():
        ends = [end for end in ends if end > at_s + 0.001]
        if len(ends) < slots:
            ends.append(at_s + takes_s - 0.001)
            rows.append(row(at_s, takes_s, 200))
        else:
            rows.append(row(at_s, takes_s, status, **fields))
    return rows


@pytest.mark.parametrize("slots", [1, 3, 5])
@pytest.mark.parametrize("status", [429, 503])
def test_a_concurrency_limit_is_found_and_no_rate_limit(slots: int, status: int) -> None:
    rows = by_slots(slots, status)
    limit = fit_concurrency(rows)
    assert limit is not None
    assert limit.explains
    assert limit.limit_range[0] <= slots <= limit.limit_range[1]
    found = to_record(find(rows, 0.0, None), "run")
    assert found.status == "unknown"
    assert found.observed is None
    assert found.in_flight is not None
    assert found.in_flight.limit == limit.limit
    assert any(f"at most {limit.limit} requests in flight" in line for line in found.advice)


def test_refusals_that_mention_concurrency_count() -> None:
    limit = fit_concurrency(by_slots(3, error_code="concurrency_limit_exceeded"))
    assert limit is not None
    assert limit.explains


def test_a_rate_limit_is_not_mistaken_for_a_concurrency_limit() -> None:
    model = SlidingLog(12, 1.0)
    rows = [row(at_s, takes_s, 200 if model.decide(at_s).accepted else 429) for at_s, takes_s in crowd()]
    limit = fit_concurrency(rows)
    assert limit is not None
    assert not limit.explains
    assert find(rows, 0.0, None).in_flight is None


def test_refusals_that_both_limits_explain_are_reported_as_both() -> None:
    # Two bursts a minute apart: 20 per minute, or 20 in flight.
    bursts = [
        row(minute * 60 + i / 200, 2.0, 200 if i < 20 else 429) for minute in range(2) for i in range(30)
    ]
    both = to_record(find(bursts, 0.0, None), "run")
    assert both.status == "unknown"
    assert both.in_flight is not None
    assert both.in_flight.limit_range[0] <= 20 <= both.in_flight.limit_range[1]
    assert any("It could also be a rate limit: rates from" in line for line in both.says)
    # A refusal with nothing in flight shows a rate limit.
    alone = find([*bursts, row(30.0, 2.0, 429), row(35.0, 2.0, 429)], 0.0, None)
    assert alone.in_flight is None


def test_no_limit_is_found_without_both_refusals_and_acceptances() -> None:
    assert fit_concurrency([row(0.0, 1.0, 200)]) is None
    assert fit_concurrency([row(0.0, 1.0, 429)]) is None
