"""What a run's refusals are enough to claim, and what they are not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support_runs import attempt, attempt_at

from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.model import FindingsRecord
from bltybench.limits.fit.in_flight import fit_concurrency
from bltybench.limits.models import FirstHitWindow, FixedWindow, SlidingCounter, SlidingLog, TokenBucket
from bltybench.limits.models.base import Model
from bltybench.runs.attempt import Attempt, Outcome

NS = 1_000_000_000
CLAIMS = ("Rate:", "Burst:", "Window boundary:", "Concurrency:")

Accepts = Callable[[float], bool]


def concluded(rows: Sequence[Attempt], documented: int | None = None) -> FindingsRecord:
    """Return the findings of an ordinary run."""
    return to_record(find(rows, 0.0, documented), "run")


def claims(record: FindingsRecord) -> list[str]:
    """Return the advice that needs a limit."""
    return [line for line in record.advice if line.startswith(CLAIMS)]


def row(sent_s: float, accepted: bool, *, takes_s: float = 0.2, **fields: Any) -> Attempt:
    """Return one attempt of a plain response; a refusal takes 4 ms."""
    sent = round(sent_s * NS)
    end = sent + round((takes_s if accepted else 0.004) * NS)
    outcome = {} if accepted else {"outcome": Outcome.RATE_LIMITED, "status": 429}
    return attempt(sent_ns=sent, headers_ns=end, end_ns=end, **(outcome | fields))


def random_load(accepts: Accepts, per_s: float, seconds: float, seed: int) -> list[Attempt]:
    """Return requests at random times."""
    rng, at_s, rows = random.Random(seed), 0.0, []
    while (at_s := at_s + rng.expovariate(per_s)) < seconds:
        rows.append(row(at_s, accepts(at_s)))
    return rows


def users(accepts: Accepts, count: int, seconds: float, retry_s: float, seed: int) -> list[Attempt]:
    """Return the requests of users who think for a second, and wait for ``retry_s`` after a refusal."""
    rng = random.Random(seed)
    due, rows = sorted(rng.uniform(0, 2) for _ in range(count)), []
    while due and (at_s := due.pop(0)) < seconds:
        accepted = accepts(at_s)
        rows.append(row(at_s, accepted))
        due = sorted([*due, at_s + (0.2 + rng.expovariate(1) if accepted else retry_s * rng.uniform(1, 1.2))])
    return rows


@pytest.mark.parametrize("refusals", [1, 5, 9])
@pytest.mark.parametrize(
    "refusal",
    [{}, {"error_code": "concurrency_limit_exceeded"}, {"status": 503, "outcome": Outcome.SERVER_ERROR}],
)
def test_less_than_ten_refusals_support_no_claim(refusals: int, refusal: dict[str, Any]) -> None:
    """Each refusal comes while three requests are in flight, so that a concurrency limit would fit too."""
    rows = [row(i / 4, True, takes_s=0.9) for i in range(756)]
    rows += [row(17.3 * i + 0.1, False, **refusal) for i in range(1, refusals + 1)]
    told = concluded(rows, 600)
    assert (told.observed, told.in_flight, told.confidence) == (None, None, None)
    assert claims(told) == []
    if told.refused:
        assert told.reason is not None
        assert "at least 10 are needed" in told.reason


@pytest.mark.parametrize("fraction", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_refusals_support_no_claim(fraction: float, seed: int) -> None:
    rng = random.Random(seed)
    told = concluded(random_load(lambda _: rng.random() > fraction, 8, 75, seed))
    assert told.refused >= 5
    assert told.status == "unknown"
    assert claims(told) == []


@pytest.mark.parametrize("stray", [20])
def test_limit_that_leaves_refusals_unexplained_is_not_claimed(stray: int) -> None:
    """A window explains 12 refusals. Others, at random, hide among hundreds of acceptances."""
    model, rng = FixedWindow(100, 10.0), random.Random(stray)
    chosen = {rng.randrange(480) for _ in range(stray)}
    rows = []
    for i in range(480):
        at_s = i / 9.9 + (5 * (i // 240))
        rows.append(row(at_s, i not in chosen and model.decide(at_s).accepted))
    for at_s in (89.0, 99.0):
        rows += [row(at_s + i / 250, model.decide(at_s + i / 250).accepted) for i in range(106)]
    told = concluded(rows)
    assert told.refused >= 10
    assert told.observed is None
    assert claims(told) == []


LIMITERS: dict[str, Callable[[], Model]] = {
    "fixed window": lambda: FixedWindow(60, 30.0, 11.0),
    "window from the first request": lambda: FirstHitWindow(40, 20.0),
    "sliding log": lambda: SlidingLog(50, 25.0),
    "sliding counter": lambda: SlidingCounter(45, 15.0),
    "token bucket": lambda: TokenBucket(60, 30.0, 12),
}


@pytest.mark.parametrize("name", LIMITERS)
@pytest.mark.parametrize("load", ["random", "users", "hurried users"])
def test_claimed_rate_never_exceeds_the_limit(name: str, load: str) -> None:
    model = LIMITERS[name]()

    def accepts(at_s: float) -> bool:
        return model.decide(at_s).accepted

    if load == "random":
        rows = random_load(accepts, 1.4 * model.limit / model.period_s, 80, 3)
    else:
        retry_s = 7.0 if load == "users" else 1.5
        rows = users(accepts, 12, 70, retry_s, 5)
    told = concluded(rows)
    actual = model.limit * 60 / model.period_s
    if told.slowest is None:
        assert told.reason
        assert claims(told) == []
    else:
        assert told.slowest.rate_to_send_per_min <= 1.02 * actual
        assert told.slowest.rate_to_send_per_min >= 0.5 * actual


def test_wide_range_of_rates_is_no_claim_and_names_what_is_missing() -> None:
    """A single burst shows how much is accepted in a row, but hardly when it refills."""
    rows = [row(i / 50, i < 30) for i in range(60)] + [row(40 + i, True) for i in range(5)]
    told = concluded(rows)
    assert told.observed is None
    assert "at more times after a refusal" in (told.reason or "")
    assert claims(told) == []


def test_rate_that_was_never_sustained_is_no_claim() -> None:
    """Bursts show 8 per second, and nothing shows whether that is accepted for longer than a burst."""
    model = SlidingLog(8, 1.0)
    times = [11.3 * burst + i / 20 for burst in range(12) for i in range(40)]
    told = concluded([row(at_s, model.decide(at_s).accepted) for at_s in times])
    assert told.status == "unknown"
    assert (told.reason or "").startswith("rates from ")
    assert claims(told) == []


def test_claimed_rate_is_at_most_what_was_sustained() -> None:
    """The limit is 240 per minute, but half of the time nothing is sent."""
    model = SlidingLog(40, 10.0)
    times = [20 * pause + 10.1 * i / 50 for pause in range(9) for i in range(70)]
    told = concluded([row(at_s, model.decide(at_s).accepted) for at_s in times])
    assert told.slowest is not None
    assert told.slowest.rate_per_min == 240
    assert 120 <= told.slowest.rate_to_send_per_min < 200
    assert "does not show that more is accepted for long" in told.advice[0]


def test_single_recovery_supports_only_a_documented_limit() -> None:
    model = FixedWindow(60, 60.0)
    rows = random_load(lambda at_s: model.decide(10 + at_s).accepted, 2, 75, 10)
    told = concluded(rows)
    assert told.observed is None
    assert "after a refusal" in (told.reason or "")
    assert claims(told) == []
    documented = concluded(rows, 60)
    assert documented.slowest is not None
    assert documented.slowest.rate_to_send_per_min == 60


def test_part_of_a_long_run_is_fitted_with_its_history() -> None:
    """A part that begins within a window would show less than the window accepts."""
    limit = 170
    rows: list[Attempt] = []
    for window in range(1500 // limit):
        sent_s = [i / 20 for i in range(limit)] + [limit / 20 + 2 * i for i in range(22)]
        rows += [
            attempt_at(60 * window + at_s + 0.5, "ok" if i < limit else "rate_limited")
            for i, at_s in enumerate(sent_s)
        ]
    told = concluded(rows)
    assert told.observed is not None
    low, high = told.observed.limit_range
    assert limit - 1 <= low <= high == limit
    assert told.observed.period_s == 60.0


def test_refusals_at_the_end_of_a_long_run_count() -> None:
    rows = [attempt_at(i / 10) for i in range(2000)] + [
        attempt_at(200 + i / 10, "rate_limited") for i in range(50)
    ]
    told = concluded(rows)
    assert (told.refused, told.status) == (50, "unknown")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("slots", "burst"), [(1, 12), (4, 20), (9, 30), (25, 64)])
def test_bursts_show_the_limit_in_flight_in_any_order(slots: int, burst: int, seed: int) -> None:
    """A burst is sent within a millisecond, and the server decides in an order of its own."""
    rng, rows = random.Random(seed), []
    for at_s in (0.0, 5.0, 11.0):
        accepted = rng.sample(range(burst), slots)
        for i in range(burst):
            fields = {"takes_s": rng.uniform(1.5, 2.5)} if i in accepted else {}
            rows.append(row(at_s + i / 1000 / burst, i in accepted, **fields))
    told = fit_concurrency(rows)
    assert told is not None
    assert told.limit_range == (slots, slots)
    record = concluded(rows)
    assert record.in_flight is not None
    assert f"Concurrency: at most {slots} requests in flight" in "".join(record.advice)


@pytest.mark.parametrize("burst", [8, 30])
def test_server_that_queues_is_not_said_to_refuse(burst: int) -> None:
    """It holds whole bursts, so a few refusals with less in flight have another cause."""
    rows = [
        row(at_s + i / 1000, True, takes_s=0.3 * (i // 4 + 1)) for at_s in (0.0, 20.0) for i in range(burst)
    ]
    for at_s in (40.0, 50.0):
        rows.append(row(at_s, True, takes_s=3.0))
        rows += [row(at_s + 0.5 + i / 20, False) for i in range(8)]
    told = fit_concurrency(rows)
    assert told is None or not told.explains
    assert concluded(rows).in_flight is None


def test_requests_too_short_to_overlap_for_sure_show_no_limit_in_flight() -> None:
    rows = []
    for at_s in range(6):
        rows += [row(at_s + i / 10_000, i < 8, takes_s=0.005) for i in range(12)]
    told = fit_concurrency(rows)
    assert told is not None
    assert told.limit_range[0] < 4 <= told.limit_range[1]
    assert not told.explains
