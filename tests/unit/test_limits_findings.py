"""What a run shows about limits, for programs and in sentences."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support_runs import attempt_at

from bltybench.errors import UserError
from bltybench.limits.findings.advice import pace
from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.limits_toml import limits_toml, request_limit
from bltybench.limits.findings.narrative import summary
from bltybench.limits.findings.replay import agreement
from bltybench.limits.fit.result import Ban, Fit, Verdict
from bltybench.limits.models import FixedWindow, Model
from bltybench.limits.models.families import model_of
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.observation import Observation
from bltybench.limits.session import limits_toml_of
from bltybench.metrics.limiter import maker_of
from bltybench.runs.attempt import Attempt
from bltybench.scenario.file.scenario_file import load_limits
from bltybench.scenario.target import RateLimit, SandboxLimits


def test_find_identifies_a_fixed_window_that_accepts_more_than_is_documented() -> None:
    """Two full windows meet at an edge, so 20 are accepted within 60 s with 10 per minute documented."""
    rows: list[Attempt] = []
    model = FixedWindow(10, 60.0)
    for at_s in [50.0 + step for step in range(200)]:
        rows.append(attempt_at(at_s, "ok" if model.decide(at_s).accepted else "rate_limited"))
    findings = find(rows, 0.0, 10)
    assert "fixed_window" in findings.verdict.families
    assert findings.verdict.best is not None
    assert findings.verdict.best.limit == 10
    assert "; consistent with a fixed window" in "".join(summary(findings))
    told = to_record(findings, "run")
    assert told.observed is not None
    assert told.observed.family == findings.verdict.best.family
    assert told.headers.without_retry_after.count == told.refused


def test_summary_states_when_more_than_documented_was_accepted() -> None:
    rows = [attempt_at(t / 10) for t in range(12)] + [attempt_at(5, "rate_limited")]
    lines = summary(find(rows, 1_795_348_800.0, 10))
    assert "Documented: 10 per minute. Accepted: 12 within 60 s at 12:00:00 UTC." in lines


def answered_after(*waits_s: float) -> list[Attempt]:
    """Return rows of one window of 10 per 2 s, exhausted four times, with these waits in each."""
    rows: list[Attempt] = []
    model = FixedWindow(10, 2.0)
    for window in range(4):
        for number in range(40):
            at_s = 100.0 + 4 * window + number / 16
            accepted = model.decide(at_s).accepted
            row = attempt_at(at_s, "ok" if accepted else "rate_limited")
            if accepted and number < len(waits_s):
                late_ns = round((at_s + waits_s[number]) * 1e9)
                row = attempt_at(at_s, headers_ns=late_ns, end_ns=late_ns)
            rows.append(row)
    return rows


def test_a_period_shorter_than_accepted_requests_waited_is_not_reported_by_a_probe() -> None:
    prompt = find(answered_after(), 0.0, None, probed=True)
    assert prompt.verdict.best is not None
    assert prompt.verdict.best.period_s == pytest.approx(2.0, rel=0.1)
    late = find(answered_after(0.05, 0.05, 2.5, 5.0), 0.0, None, probed=True)
    assert late.verdict.best is None
    assert "waited up to 5 s" in late.verdict.reason
    assert any(
        "8 of 72 accepted requests waited, up to 5 s (usual: 0.02 s)" in line for line in summary(late)
    )


def test_a_period_longer_than_accepted_requests_waited_is_reported_with_the_wait() -> None:
    findings = find(answered_after(0.05, 0.7, 0.7), 0.0, None, probed=True)
    assert findings.verdict.best is not None
    assert any("waited, up to 0.7 s" in line for line in summary(findings))


def test_waits_of_an_ordinary_run_are_those_of_long_completions() -> None:
    findings = find(answered_after(0.05, 0.05, 2.5, 5.0), 0.0, None)
    assert findings.waits is None
    assert findings.verdict.best is not None


def test_a_run_without_refusals_reports_a_lower_bound() -> None:
    (line, *_) = summary(find([attempt_at(float(t)) for t in range(30)], 0.0, None))
    assert line.startswith("At least 30 requests are accepted within 60 s")


def drained(outcome: str = "rate_limited", **refusal: Any) -> list[Attempt]:
    """Ten requests per second to a window aligned to the clock."""
    model = FixedWindow(5, 2.0)
    return [
        attempt_at(t / 10) if model.decide(t / 10).accepted else attempt_at(t / 10, outcome, **refusal)
        for t in range(80)
    ]


def test_advice_follows_the_findings() -> None:
    told = to_record(find(drained(), 0.0, 600), "run")
    rate = "Rate: at most 119 requests per minute, one every 501 ms, not the documented 600."
    assert told.advice[0].startswith(rate)
    assert any("Refusals carry no Retry-After" in line for line in told.advice)
    assert not set(told.says) & set(told.advice)
    early = to_record(find(drained(retry_after_s=3.0), 0.0, None), "run")
    assert any("Retry-After is safe but longer than needed" in line for line in early.advice)


@pytest.mark.parametrize(
    ("rate_per_min", "words"),
    [
        (119.82, "at most 119 requests per minute, one every 501 ms"),
        (60.0, "at most 60 requests per minute, one every 1 s"),
        (10 * 60 / 7.0, "at most 85.7 requests per minute, one every 700 ms"),
        (99.99, "at most 99 requests per minute, one every 601 ms"),
        (0.0999, "at most 0.0999 requests per minute, one every 601 s"),
        (12_345.6, "at most 12,345 requests per minute, one every 4.87 ms"),
    ],
)
def test_pace_is_rounded_to_the_slower_side(rate_per_min: float, words: str) -> None:
    assert pace(rate_per_min) == words


def test_client_that_was_refused_for_many_periods_is_advised_to_stop_sending() -> None:
    rows = [attempt_at(t * 0.22, "ok" if t < 30 else "rate_limited") for t in range(402)]
    told = to_record(find(rows, 0.0, 60), "run")
    assert (told.status, told.refused) == ("unknown", 372)
    assert "refused requests count" in (told.reason or "")
    early = next(line for line in told.advice if line.startswith("Early retries: stop sending"))
    assert "Pauses of up to 220 ms did not end them" in early
    assert not any("1 s, then twice" in line for line in told.advice)


def test_refusals_by_other_limits_and_several_statuses_are_reported() -> None:
    rows = [attempt_at(float(t)) for t in range(30)]
    rows += [attempt_at(30 + t, "rate_limited", error_code="429 tokens") for t in range(12)]
    told = to_record(find(rows, 0.0, None), "run")
    assert (told.status, told.refused_by) == ("never_refused", {"tokens": 12})
    assert "only other limits refused" in told.says[0]
    assert "Refusals by the limit that the server names: tokens 12." in told.says
    assert any(line.startswith("After a refusal:") for line in told.advice)
    banned = [*drained(), *(attempt_at(8 + t / 10, "client_error", status=403) for t in range(9))]
    told = to_record(find(banned, 0.0, None), "run")
    assert told.refusal_statuses == {429: told.refused - 9, 403: 9}
    assert f"Refusals have several statuses: {told.refused - 9} with 429, 9 with 403." in told.says
    assert any(line.startswith("Status 403: treat it as a refusal") for line in told.advice)


@pytest.mark.parametrize("refusals", [1, 9])
def test_fewer_than_ten_refusals_support_no_limit(refusals: int) -> None:
    """At most nine in flight would fit these refusals, and so would many rates."""
    rows = [attempt_at(t / 10) for t in range(756)]
    rows += [attempt_at(7 * t + 0.05, "rate_limited") for t in range(1, refusals + 1)]
    told = to_record(find(rows, 0.0, 600), "run")
    assert (told.status, told.observed, told.in_flight, told.confidence) == ("unknown", None, None, None)
    assert (told.reason or "").startswith(f"{refusals} refusal")
    assert not any(line.startswith(("Rate:", "Burst:", "Concurrency:")) for line in told.advice)


def test_few_refusals_of_a_probe_are_enough() -> None:
    """A probe chooses its times, so that each refusal rules limiters out."""
    model = FixedWindow(10, 5.0)
    times = [start + i / 20 for start in (0, 5.2, 10.4, 15.6, 20.8) for i in range(11)]
    rows = [attempt_at(at_s, "ok" if model.decide(at_s).accepted else "rate_limited") for at_s in times]
    ordinary, probed = (find(rows, 0.0, 120, probed=probed).verdict for probed in (False, True))
    assert ordinary.refused == probed.refused == 5
    assert (ordinary.best, ordinary.status) == (None, "unknown")
    assert probed.best is not None
    assert probed.best.limit == 10


def test_window_advice_explains_what_its_boundary_accepts() -> None:
    best = Fit("fixed_window", 60, (60, 60), 60.0, (60.0, 60.0), "clock", 0.0, None, None, 0, 0)
    verdict = Verdict("found", 200, 120, 80, (best,), (best,), 0.9)
    lines = to_record(find([attempt_at(0)], 0.0, 60, verdict, probed=True), "run").advice
    assert lines[0] == "Rate: at most 60 requests per minute, one every 1 s."
    assert any(line.startswith("Burst: each window accepts 60 requests") for line in lines)
    assert any("up to 120 requests can be accepted within 60 s" in line for line in lines)


def test_advice_names_the_status_that_stands_in_for_a_429() -> None:
    refused = to_record(find(drained(outcome="server_error", status=503), 0.0, None), "run")
    assert any(line.startswith("Status 503: treat it as a refusal") for line in refused.advice)


def test_summary_skips_the_request_limit_if_it_was_not_probed() -> None:
    nothing = Verdict("nothing_sent", 0, 0, 0, reason="nothing was sent")
    lines = summary(find([], 0.0, None, nothing, asked=("concurrency",)))
    assert lines
    assert not any("nothing was sent" in line for line in lines)


def test_an_ambiguous_family_is_reported_with_the_reason() -> None:
    refill = Fit("interval_refill", 20, (20, 20), 10.0, (9.9, 10.1), "clock", 0.0, 10, False, 0, 0)
    verdict = Verdict("ambiguous", 50, 30, 20, (refill,), (refill,), 0.9, "fewer than 5 periods were seen")
    (line, *_) = summary(find([attempt_at(0)], 0.0, None, verdict, probed=True))
    assert line.startswith("The limiter may be an interval refill: 20 requests per 10 s")
    assert line.endswith("It can't be confirmed: fewer than 5 periods were seen.")


def test_without_a_fit_only_undisturbed_waits_count_for_retry_after() -> None:
    """A ban that each refusal extends makes an accurate wait too short for a client that sends meanwhile."""
    rows: list[Attempt] = []
    at_s, until_s = 0.0, 0.0
    for number in range(128):
        refused = at_s < until_s or number % 16 > 4
        if refused:
            until_s = at_s + 5.0
        rows.append(
            attempt_at(at_s, "rate_limited" if refused else "ok", retry_after_s=5.0 if refused else None)
        )
        at_s += 5.1 if number % 16 == 15 else 0.7
    verdict = Verdict("unknown", 128, 40, 88, reason="no family explains it")
    found = find(rows, 0.0, None, verdict)
    assert found.honesty.retry_enough.count == found.honesty.retry_enough.of > 0
    assert not any("Wait longer" in line for line in summary(found))


@pytest.mark.parametrize(
    ("restarts", "early"),
    [
        (True, "stop sending while you are refused, because each refusal restarts the ban."),
        (None, "stop sending while you are refused, because each refusal may restart the ban."),
        (False, "avoid them. All are refused until the ban ends."),
    ],
)
def test_advice_after_a_ban_is_to_wait_it_out_and_not_to_probe_again(
    *, restarts: bool | None, early: str
) -> None:
    best = Fit("sliding_log", 12, (12, 12), 30.0, (20.0, 31.0), None, None, None, False, 9, 70)
    inner = Fit("sliding_log", 12, (12, 12), 10.0, (9.0, 12.0), None, None, None, False, 0, 0)
    ban = Ban((19.5, 21.0), restarts, (inner,))
    verdict = Verdict("unknown", 90, 40, 50, (best,), reason="a refusal starts a ban", ban=ban)
    rows = [attempt_at(float(at_s), "rate_limited" if at_s % 2 else "ok") for at_s in range(6)]
    record = to_record(find(rows, 0.0, 60, verdict), "run")
    assert record.ban is not None
    assert record.ban.length_range_s == (19.5, 21.0)
    (found, *_) = record.says
    assert found.startswith("A refusal starts a ban of 19.5 to 21 s")
    assert ("each further refusal restarts it" in found) is (restarts is True)
    assert "Outside bans, the server accepts 12 requests per 9 to 12 s." in found
    advice = record.advice
    assert advice[0] == "Rate: at most 60 requests per minute, one every 1 s. A refusal starts a ban."
    assert f"Early retries: {early}" in advice
    assert any("wait 21 s without sending, until the ban has ended" in line for line in advice)
    assert not any(line.startswith("Probe again") for line in advice)


def answer(question: str, value: float | str | bool | None) -> Answer:
    return Answer(question=question, value=value, says="")


def test_limits_toml_holds_every_finding_that_the_sandbox_can_enforce(tmp_path: Path) -> None:
    best = Fit("fixed_window", 20, (20, 20), 10.0, (9.9, 10.1), "other", 1003.0, None, None, 0, 0)
    answers = [
        answer("concurrency_limit", 4),
        answer("concurrency_excess", "queued"),
        answer("cancelled_frees_slot", False),
        answer("malformed_counts", True),
        answer("unknown_model_counts", False),
        answer("models_endpoint_counts", True),
        answer("limit_per_key", False),
        answer("limit_per_model", True),
        answer("refused_counts", True),
        answer("tokens_charged", "reserved"),
        answer("token_limit", 1000),
        answer("token_period_s", 60.0),
        answer("token_algorithm", "token_bucket"),
    ]
    path = tmp_path / "limits.toml"
    path.write_text(limits_toml(best, "a-run", answers))
    assert load_limits(path) == SandboxLimits(
        requests=RateLimit(limit=20, period_s=10.0, phase_s=3.0, count_refused=True),
        tokens=RateLimit(limit=1000, period_s=60.0, algorithm="token_bucket"),
        concurrency=4,
        concurrency_excess="queued",
        cancelled_keeps_slot=True,
        per=("model",),
        charged_errors=(400,),
        charged_endpoints=("models",),
        tokens_charged="reserved",
    )
    assert "Unknown" not in path.read_text()


PERIODS_S = (0.33371234, 6.99684321, 7.00004321, 61.2345678)


@pytest.mark.parametrize("period_s", PERIODS_S)
@pytest.mark.parametrize("family", ["fixed_window", "sliding_counter", "interval_refill"])
def test_limits_toml_describes_the_fitted_limiter_at_any_period(family: str, period_s: float) -> None:
    """10^8 periods have passed since 1970, so a phase belongs to the period exactly as it is written."""
    edge_s = 1_795_358_417.3 + 0.694 * period_s
    fit = Fit(family, 12, (12, 12), period_s, (period_s, period_s), "other", edge_s, 4, None, 0, 0)
    observed = decided(fit.model(), edge_s - 12 * period_s, period_s)
    replayed = agreement(observed, partial(model_of, request_limit(limits_toml(fit, "a-run"))))
    assert replayed.count == replayed.of == 200
    record = to_record(
        find([attempt_at(0)], 0.0, 60, Verdict("found", 1, 1, 0, (fit,), (fit,), 0.9), probed=True), "run"
    )
    make = maker_of(record.observed)
    assert make is not None
    assert agreement(observed, make) == replayed


@pytest.mark.parametrize("period_s", PERIODS_S)
def test_a_limiter_that_does_not_make_the_decisions_of_the_run_is_not_found(period_s: float) -> None:
    edge_s = 1_795_358_417.3
    fit = Fit("fixed_window", 12, (12, 12), period_s, (period_s, period_s), "other", edge_s, None, None, 0, 0)
    observed = decided(replace(fit, edge_s=edge_s + 0.4 * period_s).model(), edge_s, period_s)
    rows = [attempt_at(one.sent_s, "ok" if one.accepted else "rate_limited") for one in observed]
    findings = find(rows, 0.0, 60, Verdict("found", 200, 0, 0, (fit,), (fit,), 0.9), probed=True)
    assert findings.replayed is not None
    assert findings.replayed.count < 0.9 * findings.replayed.of
    assert findings.verdict.status == "ambiguous"
    reason = f"makes only {findings.replayed.count} of the API's 200 decisions"
    (line,) = [line for line in summary(findings) if "of the API's" in line]
    assert "The limiter may be a fixed window" in line
    assert f"It can't be confirmed: a limiter with these parameters {reason}" in line
    assert limits_toml_of(findings, "a-run") is None
    record = to_record(findings, "run")
    assert record.replayed is not None
    assert (record.replayed.count, record.status) == (findings.replayed.count, "ambiguous")
    assert reason in str(record.reason)


def test_a_limiter_gets_those_of_the_equivalent_parameters_that_make_the_decisions() -> None:
    edge_s = 1_795_358_417.3
    right = Fit("fixed_window", 12, (12, 12), 7.0, (6.9, 7.1), "other", edge_s, None, None, 0, 0)
    middle = replace(right, period_s=6.97, variants=(replace(right, period_s=7.02), right))
    observed = decided(right.model(), edge_s - 84.0, 7.0)
    rows = [attempt_at(one.sent_s, "ok" if one.accepted else "rate_limited") for one in observed]
    findings = find(rows, 0.0, 60, Verdict("found", 200, 0, 0, (middle,), (middle,), 0.9), probed=True)
    assert findings.verdict.status == "found"
    assert findings.verdict.best is not None
    assert findings.verdict.best.period_s == 7.0
    assert findings.replayed is not None
    assert findings.replayed.count >= 0.99 * findings.replayed.of


def decided(model: Model, start_s: float, period_s: float) -> list[Observation]:
    """Return 200 requests at irregular times within 12 periods, as a model decides on them."""
    rng = random.Random(period_s)
    times = sorted(start_s + rng.uniform(0, 12) * period_s for _ in range(200))
    return [Observation(at_s, at_s + 0.0001, model.decide(at_s + 0.00005).accepted) for at_s in times]


def test_limits_toml_disables_and_names_what_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(limits_toml(None, "a-run", [answer("token_limit", 1000)]))
    assert load_limits(path) == SandboxLimits(requests=None, tokens=None, concurrency=None)
    assert "# Unknown, and not enforced: requests, tokens, concurrency." in path.read_text()


def test_limits_toml_is_loaded_and_validated(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('tokens = false\n[requests]\nlimit = 5\nperiod_s = 2\nalgorithm = "sliding_log"\n')
    limits = load_limits(path)
    assert limits.requests == RateLimit(limit=5, period_s=2.0, algorithm="sliding_log")
    assert limits.tokens is None
    path.write_text("[requests]\nlimit = 0\n")
    with pytest.raises(UserError, match="limit"):
        load_limits(path)
    with pytest.raises(UserError, match="limits file not found"):
        load_limits(tmp_path / "none.toml")
