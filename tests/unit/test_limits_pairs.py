"""Two limits at once: as one model, their fit, and what is reported about them."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_runs import attempt_at

from benchmarks.limit_pairs import Pair, judge, make_pair
from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.limits_toml import limits_toml, request_limit
from bltybench.limits.findings.narrative import summary
from bltybench.limits.findings.replay import agreement
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.models import AllOf, Both, FixedWindow, SlidingLog, TokenBucket
from bltybench.limits.models.families import model_of
from bltybench.limits.observations.observation import Observation
from bltybench.limits.pairs.select import fit_limits
from bltybench.limits.session import limits_toml_of
from bltybench.metrics.limiter import maker_of
from bltybench.policies.advice.known_limits import measured_limits
from bltybench.runs.attempt import Attempt

START_S = 1_795_358_400.0
MAX_REQUESTS = 260
untimed = settings(deadline=None, max_examples=40)


@untimed
@given(
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=40),
    limits=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_both_limits_decide_as_they_do_side_by_side(gaps: list[float], limits: tuple[int, int]) -> None:
    both = Both(SlidingLog(limits[0], 5.0), TokenBucket(limits[1], 3.0))
    apart = AllOf([SlidingLog(limits[0], 5.0), TokenBucket(limits[1], 3.0)])
    t_s = 0.0
    for gap_s in gaps:
        t_s += gap_s
        expected = apart.decide_each(t_s, [1.0, 1.0])
        decision = both.decide(t_s)
        assert decision.accepted == all(one.accepted for one in expected)
        assert decision.remaining == min(one.remaining for one in expected)
        waits = [one.retry_after_s for one in expected if one.retry_after_s is not None]
        assert decision.retry_after_s == (pytest.approx(max(waits)) if waits else None)


def test_two_limits_that_count_refused_requests_are_not_one_model() -> None:
    with pytest.raises(ValueError, match="refused"):
        Both(SlidingLog(2, 5.0, count_refused=True), TokenBucket(1, 3.0))


def traffic(pair: Pair, rng: random.Random) -> list[Observation]:
    """Send bursts that exhaust both limits after idle intervals, and poll while refused."""
    observed: list[Observation] = []
    (short, long), at_s = pair.models, START_S
    step_s = short.period_s / 6
    for idle in (1.3, 0.4, 1.7):
        at_s += idle * long.period_s * rng.uniform(0.9, 1.1)
        refused_s, end_s = at_s, at_s + 1.5 * long.period_s
        while at_s < end_s and len(observed) < MAX_REQUESTS:
            accepted = pair.decide(at_s).accepted
            observed.append(Observation(at_s, at_s + 0.004, accepted, at_s + 0.004))
            refused_s = refused_s if not accepted else at_s
            # Refusals of the long limit last: poll at growing intervals.
            pause_s = rng.choice((0.005, 0.005, step_s))
            poll_s = max(step_s * rng.uniform(0.6, 1.4), (at_s - refused_s) / 8)
            at_s += pause_s if accepted else poll_s
    return observed


def test_two_limits_are_found_and_their_refusals_attributed() -> None:
    """A fixed window and a bucket, two logs, and a log and a window."""
    judged = []
    kinds = ("fixed_window, token_bucket", "sliding_log, sliding_log", "sliding_log, fixed_window")
    for seed, kind in enumerate(kinds):
        rng = random.Random(seed)
        pair = make_pair(kind, 24, 20.0, rng)
        verdict = fit_limits(traffic(pair, rng))
        judged.append(judge(verdict, pair))
        if verdict.status == "found" and verdict.best is not None and verdict.best.also is not None:
            alone = [verdict.best.refusals, verdict.best.also.refusals]
            assert sorted(filter(None, alone)) == pytest.approx(sorted(pair.alone), abs=3)
    assert judged.count("right") >= 2, judged
    assert "wrong" not in judged


def test_two_limits_are_not_claimed_if_one_explains_the_run() -> None:
    rng = random.Random(4)
    short, _ = make_pair("sliding_log, sliding_log", 24, 20.0, rng).models
    verdict = fit_limits(traffic(Pair(short, SlidingLog(10_000, 20.0)), rng))
    assert not verdict.has_two_limits
    assert "sliding_log" in verdict.families


def found_pair() -> tuple[Fit, list[Attempt], list[Observation]]:
    """Return a window and a bucket as a fit, with a run that both of them limit."""
    second = Fit("token_bucket", 4, (4, 4), 2.0, (2.0, 2.0), None, None, None, None, 0, 0, refusals=0)
    first = Fit("fixed_window", 30, (30, 30), 30.0, (30.0, 30.0), "clock", START_S, None, None, 0, 0)
    times = [START_S + number / 5 for number in range(300)]
    pair = Pair(second.model(), first.model())
    rows = [(at_s, pair.decide(at_s + 0.01).accepted) for at_s in times]
    fit = replace(first, also=replace(second, refusals=pair.alone[0]), refusals=pair.alone[1])
    observed = [Observation(at_s, at_s + 0.02, accepted) for at_s, accepted in rows]
    attempts = [attempt_at(at_s, "ok" if accepted else "rate_limited") for at_s, accepted in rows]
    return fit, attempts, observed


def test_two_limits_are_reported_and_replayed_alike_everywhere() -> None:
    fit, attempts, observed = found_pair()
    refused = sum(not one.accepted for one in observed)
    verdict = Verdict("found", 300, 300 - refused, refused, (), (fit,), 0.9)
    findings = find(attempts, 0.0, None, verdict, probed=True)
    assert findings.replayed is not None
    assert findings.replayed.count == 300
    text = " ".join(summary(findings))
    assert "two limits. The first is a fixed window: 30 requests per 30 s" in text
    assert "The second is a token bucket: 120 requests per minute, with bursts of up to 4." in text
    assert fit.also is not None
    assert f"{fit.refusals} came from the first alone, {fit.also.refusals} from the second alone" in text
    assert "Burst: at most 4 requests" in text
    toml = str(limits_toml_of(findings, "a-run"))
    assert "[requests.also]" in toml
    record = to_record(findings, "a-run")
    assert record.observed is not None
    assert record.observed.also is not None
    assert (record.observed.refusals, record.observed.also.refusals) == (fit.refusals, fit.also.refusals)
    make = maker_of(record.observed)
    assert make is not None
    measured = measured_limits(record).requests
    assert measured is not None
    for model in (make, partial(model_of, request_limit(toml)), partial(model_of, measured)):
        assert agreement(observed, model).count == 300
    assert agreement(observed, lambda: FixedWindow(30, 30.0)).count < 300
    assert request_limit(limits_toml(fit, "")).also is not None


def test_a_longer_limit_that_does_not_refill_is_told_from_the_one_that_is_found() -> None:
    rng, at_s = random.Random(1), START_S
    attempts: list[Attempt] = []
    pair = Both(SlidingLog(6, 2.0), FixedWindow(80, 86_400.0))
    while len(attempts) < 180:
        at_s += rng.choice((0.05, 0.05, 0.4, 1.1))
        outcome = "ok" if pair.decide(at_s).accepted else "rate_limited"
        attempts.append(attempt_at(at_s - 0.005, outcome))
    findings = find(attempts, 0.0, None, probed=True)
    verdict = findings.verdict
    assert "sliding_log" in verdict.families, verdict.reason
    assert verdict.exhausted is not None
    assert verdict.exhausted.accepted == 80
    assert not verdict.accepts_more
    text = " ".join(summary(findings))
    assert f"does not explain the last {verdict.exhausted.refused} refusals" in text
    assert "at most 80 requests in more than" in text
    record = to_record(findings, "a-run").exhausted
    assert record is not None
    assert record.accepted == 80


def test_a_limit_that_is_exhausted_at_the_end_of_a_run_is_no_sign_of_a_longer_one() -> None:
    log, at_s = SlidingLog(6, 2.0), START_S
    observed: list[Observation] = []
    for number in range(90):
        at_s += 0.15 if number % 9 else 0.8
        at_s = at_s if number < 70 else observed[69].sent_s + 0.02 * (number - 69)
        observed.append(Observation(at_s, at_s + 0.01, log.decide(at_s + 0.005).accepted))
    assert observed[-1].accepted is False
    assert fit_limits(observed).exhausted is None


def test_a_second_limit_about_as_short_as_the_responses_may_be_one_of_requests_in_flight() -> None:
    fit, attempts, _ = found_pair()
    slow = [msgspec.structs.replace(one, end_ns=one.end_ns + 10**9) for one in attempts]
    verdict = find(slow, 0.0, None, Verdict("found", 300, 0, 0, (), (fit,), 0.9), probed=True).verdict
    assert verdict.best is None
    assert "requests in flight" in verdict.reason


def test_a_short_limit_that_no_minute_tested_may_not_be_the_only_one() -> None:
    fit = Fit("sliding_log", 5, (5, 5), 1.0, (1.0, 1.0), None, None, None, None, 0, 0)
    verdict = Verdict("found", 3, 3, 0, (), (fit,), 0.9)
    attempts = [attempt_at(START_S + number, "ok") for number in range(3)]
    untested = "At most 3 were accepted within 60 s"
    assert untested in " ".join(summary(find(attempts, 0.0, None, verdict, probed=True)))
    assert untested not in " ".join(summary(find(attempts, 0.0, 300, verdict, probed=True)))
