"""From attempts to sights, and what the headers claimed against what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bltybench.errors import UserError
from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.narrative import summary
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.headers.honesty import honesty
from bltybench.limits.models import FixedWindow
from bltybench.limits.observations.evidence import busiest, refusal_status, sights_of, stretch
from bltybench.limits.observations.observation import Observation
from bltybench.limits.observations.proportion import Proportion
from bltybench.scenario.file.limits_file import load_limits
from bltybench.scenario.target import RateLimit

NS = 1_000_000_000


def row(at_s: float, outcome: str = "ok", **fields: Any) -> dict[str, Any]:
    """One attempt as the store gives it back: it took 20 ms."""
    sent = round(at_s * NS)
    base: dict[str, Any] = {
        "sent_ns": sent,
        "headers_ns": sent + NS // 50,
        "end_ns": sent + NS // 50,
        "outcome": outcome,
        "status": {"ok": 200, "rate_limited": 429, "server_error": 503, "client_error": 400}.get(outcome),
        "error_type": None,
        "error_code": None,
        "limit_requests": None,
        "remaining_requests": None,
        "reset_requests_s": None,
        "retry_after_s": None,
        "header_dialect": None,
    }
    return base | fields


def verdicts(*rows: dict[str, Any]) -> list[bool | None]:
    return [sight.accepted for sight in sights_of(rows)]


def test_a_429_is_a_refusal_and_a_lost_answer_is_unknown() -> None:
    lost = row(2, "timeout", status=None, headers_ns=None)
    assert verdicts(row(0), row(1, "rate_limited"), lost) == [True, False, None]


def test_what_was_never_sent_says_nothing() -> None:
    assert verdicts(row(0), row(1, "transport_error", sent_ns=None)) == [True]


def test_a_mistake_of_the_client_or_a_bill_says_nothing() -> None:
    bill = row(2, "client_error", status=429, error_code="insufficient_quota")
    assert verdicts(row(0), row(1, "client_error"), bill) == [True]


@pytest.mark.parametrize(
    "said",
    [
        {"error_type": "overloaded_error"},
        {"error_code": "engine_overloaded"},
        {"error_message": "The engine is currently overloaded, please try again later"},
    ],
)
@pytest.mark.parametrize(("outcome", "status"), [("rate_limited", 429), ("server_error", 503)])
def test_overload_is_no_limit(outcome: str, status: int, said: dict[str, str]) -> None:
    busy = row(1, outcome, status=status, **said)
    assert verdicts(row(0), busy, row(2)) == [True, True]
    assert refusal_status([row(0), busy]) is None
    assert verdicts(row(0), busy, row(2, "rate_limited")) == [True, False]


@pytest.mark.parametrize("status", [503, 403])
def test_other_statuses_stand_in_where_nothing_is_a_429(status: int) -> None:
    outcome = "server_error" if status == 503 else "client_error"
    rows = [row(0), row(1, outcome, status=status)]
    assert refusal_status(rows) == status
    assert verdicts(*rows) == [True, False]


def test_a_503_beside_429s_is_an_error_that_was_let_in() -> None:
    assert verdicts(row(0), row(1, "rate_limited"), row(2, "server_error")) == [True, False, True]


@pytest.mark.parametrize("code", ["token_limit_exceeded", "concurrency_limit_exceeded"])
def test_refusals_by_another_limit_are_left_out(code: str) -> None:
    assert verdicts(row(0), row(1, "rate_limited", error_code=code)) == [True]


def test_a_slow_answer_was_still_decided_on_admission() -> None:
    slow = row(0, headers_ns=5 * NS, end_ns=5 * NS)
    (first, _) = sights_of([slow, row(1, "rate_limited")])
    assert first.decided_s == pytest.approx(0.05)


def test_remaining_that_never_falls_is_found_out() -> None:
    told = honesty([row(t / 10, remaining_requests=60) for t in range(5)])
    assert told.remaining_steps == Proportion(0, 4)
    assert honesty([row(t / 10, remaining_requests=60 - t) for t in range(5)]).remaining_steps == Proportion(
        4, 4
    )


def test_retry_after_that_is_too_short_is_found_out() -> None:
    rows = [row(0), row(1, "rate_limited", retry_after_s=2.0), row(3.1, "rate_limited", retry_after_s=2.0)]
    assert honesty(rows).retry_enough == Proportion(0, 1)
    assert honesty([*rows[:2], row(3.1)]).retry_enough == Proportion(1, 1)


def test_retry_after_that_is_too_long_is_found_out() -> None:
    rows = [row(0), row(1, "rate_limited", retry_after_s=60.0), row(3)]
    assert honesty(rows).retry_early == Proportion(1, 1)


def test_an_interval_is_wider_for_less() -> None:
    assert Proportion(0, 0).interval() is None
    few, many = Proportion(5, 5).interval(), Proportion(500, 500).interval()
    assert few is not None
    assert many is not None
    assert few[0] == pytest.approx(0.566, abs=0.01)
    assert many[0] > 0.99


def test_the_busiest_minute() -> None:
    seen = [Observation(t, t, True) for t in (0.0, 50.0, 55.0, 70.0, 111.0)]
    assert busiest(seen) == (3, 0.0)
    assert busiest([]) == (0, 0.0)


def test_a_fixed_window_that_gave_more_than_is_documented() -> None:
    """Two full windows meet at an edge: 20 within 60 s where 10 a minute are documented."""
    rows: list[dict[str, Any]] = []
    model = FixedWindow(10, 60.0)
    for at_s in [50.0 + step for step in range(200)]:
        rows.append(row(at_s, "ok" if model.decide(at_s).accepted else "rate_limited"))
    findings = find(rows, 0.0, 10)
    assert "fixed_window" in findings.verdict.families
    assert findings.verdict.best is not None
    assert findings.verdict.best.limit == 10
    assert "; consistent with a fixed window" in "".join(summary(findings))
    told = to_record(findings, "run")
    assert told.observed is not None
    assert told.observed.family == findings.verdict.best.family
    assert told.headers.without_retry_after.count == told.refused


def test_more_than_documented_is_said_with_the_time() -> None:
    rows = [row(t / 10) for t in range(12)] + [row(5, "rate_limited")]
    lines = summary(find(rows, 1_795_348_800.0, 10))
    assert "Documented: 10 per minute. Accepted: 12 within 60 s at 12:00:00 UTC." in lines


def test_of_a_long_run_the_stretch_that_tells_most_is_taken() -> None:
    seen = [Observation(float(t), float(t), t < 50 or t % 5 > 0) for t in range(100)]
    chosen = stretch(seen, most=40)
    assert len(chosen) == 40
    assert chosen[0].sent_s >= 45
    assert stretch(seen) == seen


def test_limits_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('tokens = false\n[requests]\nlimit = 5\nperiod_s = 2\nalgorithm = "sliding_log"\n')
    limits = load_limits(path)
    assert limits.requests == RateLimit(limit=5, period_s=2.0, algorithm="sliding_log")
    assert limits.tokens is None
    path.write_text("[requests]\nlimit = 0\n")
    with pytest.raises(UserError, match="limit"):
        load_limits(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_limits(tmp_path / "none.toml")


def test_never_refused_is_at_least() -> None:
    (line, *_) = summary(find([row(float(t)) for t in range(30)], 0.0, None))
    assert line.startswith("At least 30 requests are accepted within 60 s")


def drained(outcome: str = "rate_limited", **refusal: Any) -> list[dict[str, Any]]:
    """Forty tries, ten a second, of a window aligned to the clock."""
    model = FixedWindow(5, 2.0)
    return [
        row(t / 10) if model.decide(t / 10).accepted else row(t / 10, outcome, **refusal) for t in range(80)
    ]


def test_the_advice_follows_what_was_found() -> None:
    told = to_record(find(drained(), 0.0, 600), "run")
    assert "Plan for 150 requests per minute, not for the documented 600." in told.advice
    assert any("Set a retry delay yourself" in line for line in told.advice)
    assert not set(told.says) & set(told.advice)
    early = to_record(find(drained(retry_after_s=3.0), 0.0, None), "run")
    assert any("Following Retry-After is safe" in line for line in early.advice)


def test_a_status_that_stands_in_for_429_is_named() -> None:
    refused = to_record(find(drained(outcome="server_error", status=503), 0.0, None), "run")
    assert any("Treat a 503 as a refusal" in line for line in refused.advice)


def test_what_was_not_asked_is_not_said_to_be_open() -> None:
    """Of a probe that asked about slots alone, the limit of requests is no news."""
    nothing = Verdict("nothing_sent", 0, 0, 0, reason="nothing was sent")
    said = summary(find([], 0.0, None, nothing, asked=("concurrency",)))
    assert said
    assert not any("nothing was sent" in line for line in said)


def test_one_name_that_is_not_sure_is_said_with_the_reason() -> None:
    lumps = Fit("interval_refill", 20, (20, 20), 10.0, (9.9, 10.1), "clock", 0.0, 10, False, 0, 0)
    verdict = Verdict("ambiguous", 50, 30, 20, (lumps,), (lumps,), 0.9, "fewer than 5 periods were seen")
    (line, *_) = summary(find([row(0)], 0.0, None, verdict))
    assert line.startswith("The limiter may be an interval refill: 20 requests per 10 s")
    assert line.endswith("It can't be confirmed: fewer than 5 periods were seen.")


def test_where_nothing_is_explained_only_undisturbed_waits_tell_of_retry_after() -> None:
    """A ban that each refusal extends makes an honest wait too short for who asks in between."""
    rows: list[dict[str, Any]] = []
    at_s, until_s = 0.0, 0.0
    for number in range(128):
        refused = at_s < until_s or number % 16 > 4
        if refused:
            until_s = at_s + 5.0
        rows.append(row(at_s, "rate_limited" if refused else "ok", retry_after_s=5.0 if refused else None))
        at_s += 5.1 if number % 16 == 15 else 0.7
    verdict = Verdict("unknown", 128, 40, 88, reason="no family explains it")
    found = find(rows, 0.0, None, verdict)
    assert found.honesty.retry_enough.count == found.honesty.retry_enough.of > 0
    assert not any("Wait longer" in line for line in summary(found))
