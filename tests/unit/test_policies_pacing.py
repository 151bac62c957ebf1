from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from support_pacing import ONE, RNG, SECOND, SENT, SIZE, batch, limits, run, sent_s

from bltybench.cli import main
from bltybench.limits.observations.classify import Decision
from bltybench.policies.pacing.header_pacer import HeaderPacer
from bltybench.policies.pacing.pacer import AnnouncedLimit, SentRequest
from bltybench.policies.pacing.pacers import AdaptivePacer, AimdPacer, pacer_of
from bltybench.policies.simulation import Simulation
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.pacing import PACINGS, PacingName
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import RateLimit


def test_even_pacing_sends_at_the_rate_of_the_limit() -> None:
    calls = run(batch(5), limits(), "even")
    assert sent_s(calls) == pytest.approx([0, 2, 4, 6, 8], abs=1e-4)
    assert not any(call.refusals for call in calls)


def test_bucket_pacing_sends_a_burst_and_then_just_below_the_rate_of_the_limit() -> None:
    calls = run(batch(7), limits(algorithm="token_bucket"), "token_bucket")
    assert sent_s(calls) == pytest.approx([0, 0, 0, 0, 2.02, 4.04, 6.06], abs=1e-4)
    # A sliding log accepts the burst, but not the refill of the bucket before the period is over.
    assert any(call.refusals for call in run(batch(7), limits(), "token_bucket"))


def test_bucket_pacing_counts_tokens_too() -> None:
    tokens = limits(100, tokens=RateLimit(limit=20, period_s=10, algorithm="token_bucket"))
    calls = run(batch(4), tokens, "token_bucket")
    assert sent_s(calls) == pytest.approx([0, 0, 5.05, 10.1], abs=1e-4)
    assert not any(call.refusals for call in calls)


@pytest.mark.parametrize("pacing", ["token_bucket", "even", "limiter"])
def test_pacing_keeps_limits_on_input_and_output_tokens(pacing: PacingName) -> None:
    rule = RateLimit(limit=120, period_s=10, algorithm="token_bucket")
    for prompt, completion in ((60, 1), (1, 60)):
        sizes = (CallSize(prompt, completion), CallSize(2, 2))
        calls = run(
            replace(batch(7), sizes=sizes), limits(100, input_tokens=rule, output_tokens=rule), pacing
        )
        assert not any(call.refusals for call in calls)
        # 246 tokens of one direction, of which 120 fit immediately.
        assert sent_s(calls)[-1] == pytest.approx(10.5, rel=0.02)


@pytest.mark.parametrize(
    ("pacing", "times_s"), [("even", [0, 2, 4, 6, 8]), ("token_bucket", [0, 0, 2.02, 4.04, 6.06])]
)
def test_bucket_pacing_keeps_every_limit_of_a_chain(pacing: PacingName, times_s: list[float]) -> None:
    day = RateLimit(limit=50_000, period_s=86_400, algorithm="token_bucket")
    slow = RateLimit(limit=2, period_s=4.0, algorithm="token_bucket", also=day)
    chain = limits(requests=RateLimit(limit=9, period_s=3.0, algorithm="token_bucket", also=slow))
    calls = run(batch(5), chain, pacing)
    assert sent_s(calls) == pytest.approx(times_s, abs=1e-4)
    assert not any(call.refusals for call in calls)


def test_aimd_raises_its_rate_until_a_refusal_halves_it() -> None:
    pacer = AimdPacer()
    pacer.send(0.0, SIZE)
    assert pacer.wait_s(0.0, SIZE, RNG) == 1
    pacer.send(20.0, SIZE)  # the rate is now 2 per second
    assert pacer.wait_s(20.0, SIZE, RNG) == pytest.approx(0.5)
    pacer.answer(SENT, 20.0, None, refused=False)
    pacer.answer(SENT, 20.0, None, refused=True)
    pacer.answer(SENT, 20.5, None, refused=True)  # of the former rate
    pacer.send(20.5, SIZE)
    assert pacer.wait_s(20.5, SIZE, RNG) == pytest.approx(1 / 1.025)


def announced(limit: int, remaining: int, reset_s: float, *, tokens: bool = False) -> AnnouncedLimit:
    return AnnouncedLimit(tokens, limit, remaining, reset_s)


def test_header_pacing_sends_one_request_until_the_first_response() -> None:
    pacer = HeaderPacer()
    assert pacer.wait_s(0.0, SIZE, RNG) == 0
    pacer.send(0.0, SIZE)
    assert pacer.wait_s(0.0, SIZE, RNG) == inf
    pacer.answer(SENT, 1.0, None, refused=False)
    assert pacer.wait_s(1.0, SIZE, RNG) == 0  # nothing was announced


def test_header_pacing_spends_what_remains_and_then_what_refills() -> None:
    pacer = HeaderPacer()
    pacer.send(0.0, SIZE)
    pacer.hear(SENT, 0.0, [announced(4, 2, 8.0), announced(1000, 500, 8.0, tokens=True)])
    pacer.answer(SENT, 0.0, None, refused=False)
    for at_s in (0.1, 0.2):
        assert pacer.wait_s(at_s, SIZE, RNG) == 0
        pacer.send(at_s, SIZE)
    # Two were used, and refill within 8 s.
    assert pacer.wait_s(1.0, SIZE, RNG) == pytest.approx(3.0)
    assert pacer.wait_s(1.0, CallSize(600, 0), RNG) == pytest.approx(3.0)
    assert pacer.wait_s(1.0, CallSize(5000, 0), RNG) == pytest.approx(3.0)  # never fits the tokens
    assert pacer.wait_s(9.0, SIZE, RNG) == 0


def test_header_pacing_uses_the_latest_decision_on_requests_that_were_in_flight_together() -> None:
    pacer = HeaderPacer()
    sent = [SentRequest(at_s / 1000, SIZE) for at_s in range(3)]
    for request in sent:
        pacer.send(*request)
    # The server decided on the second one last, and on the third one first.
    for request, remaining in ((sent[2], 3), (sent[1], 1), (sent[0], 2)):
        pacer.hear(request, 0.05, [announced(4, remaining, 8.0)])
        pacer.answer(request, 0.05, None, refused=False)
    assert pacer.wait_s(0.1, SIZE, RNG) == 0
    pacer.send(0.1, SIZE)
    assert pacer.wait_s(0.2, SIZE, RNG) > 2
    pacer.hear(SentRequest(0.1, SIZE), 0.3, [announced(4, 3, 9.0)])  # of the next window
    assert pacer.wait_s(0.4, SIZE, RNG) == 0


def test_header_pacing_waits_as_a_refusal_announces_but_at_most_a_minute() -> None:
    pacer = HeaderPacer()
    pacer.send(0.0, SIZE)
    pacer.answer(SENT, 1.0, 5.0, refused=True)
    assert pacer.wait_s(2.0, SIZE, RNG) == 4
    pacer.send(6.0, SIZE)
    pacer.answer(SentRequest(6.0, SIZE), 6.0, 86_400.0, refused=True)
    assert pacer.wait_s(6.0, SIZE, RNG) == 60


def test_header_pacing_never_waits_endlessly_without_a_request_in_flight() -> None:
    pacer = HeaderPacer()
    pacer.send(0.0, SIZE)
    pacer.hear(SENT, 0.0, [announced(4, 4, 0.0)])
    pacer.answer(SENT, 0.0, None, refused=False)
    for _ in range(4):
        assert pacer.wait_s(1.0, SIZE, RNG) == 0
        pacer.send(1.0, SIZE)
    assert pacer.wait_s(1.0, SIZE, RNG) == inf
    for _ in range(4):
        pacer.answer(SentRequest(1.0, SIZE), 2.0, None, refused=False)
    assert pacer.wait_s(2.0, SIZE, RNG) == 0


@pytest.mark.parametrize(
    ("algorithm", "most"), [("token_bucket", 2), ("fixed_window", 40), ("sliding_log", 40)]
)
def test_header_pacing_wastes_few_requests_of_a_batch(algorithm: Algorithm, most: int) -> None:
    calls = run(batch(60), limits(10, 10.0, algorithm), "headers")
    assert all(call.ok for call in calls)
    assert sum(len(call.refusals) for call in calls) <= most


def test_adaptive_pacing_holds_requests_if_fewer_than_half_are_accepted() -> None:
    pacer = AdaptivePacer()
    for number in range(10):
        assert pacer.wait_s(float(number), SIZE, RNG) == 0
        pacer.answer(SENT, float(number), None, refused=False)
    held = [pacer.wait_s(100.0, SIZE, RNG) for _ in range(1000)]
    # The first ten more are sent in any case: 20 requests, 10 of them accepted.
    assert held[:11] == [0.0] * 11
    assert sum(wait_s > 0 for wait_s in held[500:]) > 450
    # After two minutes, nothing counts.
    assert pacer.wait_s(1000.0, SIZE, RNG) == 0


@pytest.mark.parametrize("pacing", PACINGS)
def test_every_call_succeeds_with_every_pacing(pacing: PacingName) -> None:
    limited = limits(3, 2.0, tokens=RateLimit(limit=100, period_s=3.0), concurrency=2)
    for clients in (1, 5):
        calls = run(batch(30, clients), limited, pacing)
        assert all(call.ok for call in calls)
        order = [call.accepted_s or 0.0 for call in calls if call.client == 0 and not call.refusals]
        assert all(earlier <= later for earlier, later in pairwise(order))


def test_a_request_that_never_fits_is_sent_and_refused() -> None:
    limited = limits(9, tokens=RateLimit(limit=5, period_s=3.0))
    for pacing in PACINGS:
        retry = Retry(policy="retry_after", max_attempts=2)
        calls = Simulation(batch(1), limited, retry, SECOND, seed=1, pacing=pacing).run()
        assert [call.refusals for call in calls] == [[Decision.REFUSED_BY_TOKENS] * 2]
        assert pacer_of(pacing, limited, ONE, 0.0).wait_s(0.0, SIZE, RNG) == 0


def test_command_compares_pacings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("chat", "--calls", "90", "--policy", "openai", "--pacing", "limiter", "--pacing", "none")
    monkeypatch.setattr(sys, "argv", ["bltybench", "simulate", *arguments])
    assert main() == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("openai")]
    assert {row[1] for row in rows} == {"limiter", "none"}
    monkeypatch.setattr(sys, "argv", ["bltybench", "simulate", "--pacing", "evenly"])
    assert main() == 2
    assert "--pacing evenly: unknown name; did you mean 'even'?" in capsys.readouterr().err
