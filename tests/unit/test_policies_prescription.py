"""Settings of clients: the pace that limits allow, its division among clients, and what to expect."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from support_runs import attempt_at

from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.model import AnswerRecord, BanRecord
from bltybench.limits.models.families import FAMILIES, model_of
from bltybench.policies.advice.known_limits import (
    Sources,
    by_total_tokens,
    completed,
    documented_limits,
    measured_limits,
)
from bltybench.policies.advice.prediction import predict, sentences
from bltybench.policies.advice.prescription import (
    prescribe,
    safe_spacing_s,
    safe_window,
)
from bltybench.policies.advice.settings import settings
from bltybench.policies.advice.window import Window
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import Limit
from bltybench.scenario.target import RateLimit, SandboxLimits

RECORD = to_record(find([attempt_at(float(t)) for t in range(20)], 0.0, None), "run")
"""Findings of a run without refusals."""
SMALL = [CallSize(100, 50)]
SOURCES = Sources(
    requests="measured",
    tokens="unknown",
    input_tokens="unknown",
    output_tokens="unknown",
    concurrency="documented",
)


def limits(**changes: Any) -> SandboxLimits:
    """Return 60 requests per minute and no other limit, with changes."""
    return SandboxLimits(**({"requests": RateLimit(limit=60), "tokens": None, "concurrency": None} | changes))


@pytest.mark.parametrize("algorithm", list(FAMILIES))
@pytest.mark.parametrize(("limit", "period_s", "sharing"), [(60, 60.0, 1), (60, 60.0, 4), (500, 10.0, 7)])
def test_pace_uses_most_of_every_limiter(algorithm: str, limit: int, period_s: float, sharing: int) -> None:
    fields = {"limit": limit, "period_s": period_s, "algorithm": algorithm}
    spacing_s = safe_spacing_s(RateLimit.model_validate(fields), sharing)
    used = period_s / limit * sharing / spacing_s
    # Several clients are not evenly spaced, so each acceptance loses a part of a whole token.
    shared_whole_tokens = algorithm == "whole_token_bucket" and sharing > 1
    assert (0.6 if shared_whole_tokens else 0.95) <= used <= 1


@pytest.mark.parametrize(
    ("limit", "sharing", "window"),
    [
        # A burst of the share; if shares differ little, the first clients have one more.
        ({"limit": 60, "period_s": 60, "algorithm": "token_bucket"}, 4, {"amount": 15, "period_s": 60}),
        ({"limit": 48, "period_s": 60}, 5, {"amount": 9, "more": 3, "period_s": 60}),
        # Shares that differ much, and a counter, whose previous window would refuse a burst.
        ({"limit": 6, "period_s": 60}, 5, {"amount": 1, "period_s": 50, "turns": 5, "by_clock": True}),
        ({"limit": 60, "period_s": 60, "algorithm": "sliding_counter"}, 1, {"amount": 1, "period_s": 1.005}),
        # A bucket that holds less than a period's requests.
        ({"limit": 60, "algorithm": "token_bucket", "burst": 10}, 1, {"amount": 10, "period_s": 10}),
    ],
)
def test_client_sends_bursts_if_the_limit_and_the_shares_allow_them(
    limit: dict[str, Any], sharing: int, window: dict[str, Any]
) -> None:
    found = safe_window(RateLimit.model_validate(limit), "requests", sharing, 1.0, 1)
    assert found == Window(counts="requests", **window)


def test_calls_are_spaced_by_their_tokens_if_the_limit_accepts_no_bursts() -> None:
    counter = RateLimit(limit=10_000, algorithm="sliding_counter")
    assert safe_window(counter, "tokens", 1, 500.0, 2000).spaced
    assert safe_window(RateLimit(limit=10_000), "tokens", 1, 500.0, 2000).amount == 10_000


@pytest.mark.parametrize("clients", [1, 3])
def test_advice_keeps_documented_limits_of_every_kind_and_period(clients: int) -> None:
    enforced = documented_limits(
        [
            Limit("requests", 4, 1.0),
            Limit("requests", 100, 60.0),
            Limit("requests", 150, 3600.0),
            Limit("tokens", 12_000, 60.0),
            Limit("tokens", 20_000, 3600.0),
            Limit("concurrency", 6),
        ]
    )
    sizes = [CallSize(100, 50), CallSize(300, 100)]
    advice = prescribe(enforced, sizes, clients=clients)
    assert len(advice.windows) == 5
    assert advice.spacing_s is not None
    assert advice.spacing_s >= 3600 / 150 * clients
    load = SimulatedLoad(clients, 200, (0.0,) * 200, 0.0, None, tuple(sizes) * 100)
    paced, unpaced = predict(load, enforced, advice, ServiceTime(0.5, 0.0), seed=1)
    refused = paced.refused_by_requests + paced.refused_by_tokens + paced.refused_by_concurrency
    assert (paced.ok, refused <= 0.01 * paced.attempts) == (200, True)
    assert unpaced.gave_up > 0
    # The tokens of an hour are enough for 72 calls, so the third hour is the last one.
    assert 7200 < paced.makespan_s < 4 * 3600


def test_text_for_the_openai_package_waits_as_the_simulated_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    whole = RateLimit(limit=60, period_s=6.0, algorithm="whole_token_bucket")
    slow = RateLimit(limit=6, period_s=60.0, algorithm="sliding_counter", also=whole)
    advice = prescribe(
        limits(
            requests=RateLimit(limit=48, also=slow),
            tokens=slow.model_copy(update={"limit": 3000, "also": None}),
        ),
        [CallSize(1000, 500), CallSize(400, 100)],
        clients=5,
    )
    kinds = [(window.turns, window.spaced) for window in advice.windows]
    assert kinds == [(1, False), (5, False), (5, False), (1, True)]
    made = settings(advice, model="m", base_url="http://127.0.0.1:9/v1", timeout_s=60)
    found: dict[str, Any] = {}
    exec(made[0].text, found)  # noqa: S102 - that is the test
    rng = Random(1)
    for window, own in zip(advice.windows, found["windows"], strict=True):
        model, now_s = window.model(0), 1000.0
        for _ in range(60):
            costs = {"requests": 1, "tokens": rng.choice((500, 1500))}
            monkeypatch.setattr("time.time", lambda at_s=now_s: at_s)
            wait_s = own.wait_s(costs, now_s)
            peeked = model.peek(now_s, costs[window.counts])
            assert wait_s == pytest.approx(peeked.retry_after_s or 0.0, abs=1e-6)
            now_s += wait_s + 1e-6
            monkeypatch.setattr("time.time", lambda at_s=now_s: at_s)
            assert own.wait_s(costs, now_s) == 0
            own.take(costs, now_s)
            model.charge(now_s, costs[window.counts])
            now_s += rng.expovariate(0.3)


def test_clients_of_a_bucket_of_whole_tokens_send_several_requests_by_the_clock() -> None:
    bucket = RateLimit(limit=30, period_s=10, algorithm="whole_token_bucket")
    found = safe_window(bucket, "requests", 1, 1.0, 1)
    assert (found.amount, found.turns, found.by_clock) == (6, 1, True)
    assert found.words == f"6 requests at each multiple of {found.period_s:g} s by the clock"
    model = found.model(0)
    first_s = model.peek(0.1).retry_after_s or 0.0
    assert first_s + 0.1 == pytest.approx(found.period_s)
    for number in range(3):
        assert model.take(found.period_s + number / 1000)
    # What was not used is lost soon after the first request.
    assert not model.take(found.period_s + 0.1)
    assert [model.take(2 * found.period_s) for _ in range(7)] == [True] * 6 + [False]


@pytest.mark.parametrize(
    ("other", "rate_per_s"),
    [
        ({"requests": {"also": RateLimit(limit=80, period_s=40)}}, 2.0),
        ({"tokens": RateLimit(limit=3 * SMALL[0].tokens, period_s=2)}, 1.5),
        ({"concurrency": 4}, 3.0),
    ],
)
def test_no_turn_at_a_bucket_of_whole_tokens_waits_for_another_limit(
    other: dict[str, Any], rate_per_s: float
) -> None:
    """A request that waits is sent after its turn, and those behind it miss theirs."""
    bucket = RateLimit(limit=30, period_s=10, algorithm="whole_token_bucket")
    enforced = limits(requests=bucket.model_copy(update=other.pop("requests", {})), **other)
    load = SimulatedLoad(1, 400, (0.0,) * 400, 0.0, None, tuple(SMALL))
    paced, _ = predict(load, enforced, prescribe(enforced, SMALL), ServiceTime(0.2, 0.0), seed=1)
    assert (paced.ok, paced.refused_by_requests) == (400, 0)
    assert paced.makespan_s < 1.1 * 400 / rate_per_s


@pytest.mark.parametrize(
    "algorithm", ["fixed_window", "sliding_log", "token_bucket", "whole_token_bucket", "interval_refill"]
)
def test_advice_avoids_the_refusals_of_unpaced_clients(algorithm: str) -> None:
    enforced = limits(
        requests=RateLimit.model_validate({"limit": 30, "period_s": 10, "algorithm": algorithm})
    )
    load = SimulatedLoad(3, 400, (0.0,) * 400, 0.0, None, tuple(SMALL))
    advice = prescribe(enforced, SMALL, clients=3)
    paced, unpaced = predict(load, enforced, advice, ServiceTime(0.2, 0.0), seed=1)
    assert (paced.pacing, paced.ok, paced.gave_up) == ("as advised", 400, 0)
    assert paced.refused_by_requests <= 0.01 * paced.attempts
    assert unpaced.refused_by_requests > 0.2 * unpaced.attempts
    assert paced.makespan_s < 1.1 * 400 / 3


def test_pace_of_less_than_one_request_per_minute_is_only_a_spacing() -> None:
    advice = prescribe(limits(requests=RateLimit(limit=5)), SMALL, clients=20)
    assert (advice.spacing_s, advice.requests_per_min) == (360.0, None)
    assert sentences(advice, SOURCES)[:2] == [
        "Rate: at most 1 request in any 240 s, by turns of the 20 clients.",
        "Evenly spaced: one request every 360 s.",
    ]
    made = {made.name: made for made in settings(advice, model="m", base_url="http://h/v1", timeout_s=60)}
    assert "rate=3r/m" in made["nginx as egress"].text
    slow = prescribe(limits(requests=RateLimit(limit=5, period_s=3600.0)), SMALL)
    made = {made.name: made for made in settings(slow, model="m", base_url="http://h/v1", timeout_s=60)}
    assert "rate=1r/m" in made["nginx as egress"].text
    assert "faster than the limits allow" in made["nginx as egress"].note
    assert '"rpm": 1' in made["LiteLLM router"].text


def test_clients_that_share_a_key_divide_its_limits() -> None:
    enforced = limits(tokens=RateLimit(limit=60_000), concurrency=50)
    one, four = (prescribe(enforced, SMALL, clients=clients) for clients in (1, 4))
    assert (four.sharing, four.in_flight, four.tokens_per_min) == (4, 12, 14_250)
    assert one.spacing_s is not None
    assert four.spacing_s == pytest.approx(4 * one.spacing_s, rel=0.01)


@pytest.mark.parametrize(
    ("clients", "keys", "per", "sharing", "keys_per_client"),
    [(4, 2, ("key",), 2, 1), (3, 2, ("key",), 2, 1), (1, 3, ("key",), 1, 3), (4, 2, (), 4, 1)],
)
def test_keys_multiply_the_limits_only_if_each_has_its_own(
    clients: int, keys: int, per: tuple[str, ...], sharing: int, keys_per_client: int
) -> None:
    advice = prescribe(limits(per=per), SMALL, clients=clients, keys=keys)
    assert (advice.sharing, advice.keys_per_client) == (sharing, keys_per_client)
    assert advice.spacing_s == pytest.approx(sharing / keys_per_client, rel=0.03)


def test_large_calls_are_paced_by_the_token_limit() -> None:
    advice = prescribe(limits(tokens=RateLimit(limit=60_000)), [CallSize(5000, 1000)])
    assert (advice.bound_by, advice.tokens_per_min) == ("tokens", 57_000)
    assert advice.spacing_s == pytest.approx(6000 / 950, rel=0.001)
    assert "The token limit decides that pace" in sentences(advice, SOURCES)[1]


def test_without_a_limit_there_is_no_pace() -> None:
    advice = prescribe(limits(requests=None), SMALL)
    assert (advice.spacing_s, advice.requests_per_min, advice.in_flight) == (None, None, None)
    assert "no pace to keep" in sentences(advice, SOURCES)[0]
    made = settings(advice, model="m", base_url="https://api.example/v1", timeout_s=60)
    assert [setting.name for setting in made][-1] == "tenacity"  # no gateway
    assert not any("pace" in setting.text for setting in made)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [("https://api.example/v1", "api.example", 443), ("http://127.0.0.1:9000/v1", "127.0.0.1", 9000)],
)
def test_envoy_limits_the_clients_of_a_key_together(url: str, host: str, port: int) -> None:
    fast = prescribe(limits(requests=RateLimit(limit=6000, period_s=60.0)), SMALL, clients=4)
    made = settings(fast, model="m", base_url=url, timeout_s=60)
    (text,) = [setting.text for setting in made if setting.name == "Envoy as egress"]
    resources = yaml.safe_load(text)["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    (manager,) = listener["filter_chains"][0]["filters"]
    limiter, router = manager["typed_config"]["http_filters"]
    assert router["name"] == "envoy.filters.http.router"
    bucket = limiter["typed_config"]["token_bucket"]
    fill_s = float(bucket["fill_interval"].removesuffix("s"))
    assert fill_s >= 0.05
    assert bucket["max_tokens"] == bucket["tokens_per_fill"]
    assert fast.spacing_s is not None
    assert bucket["tokens_per_fill"] / fill_s == pytest.approx(4 / fast.spacing_s)
    (virtual_host,) = manager["typed_config"]["route_config"]["virtual_hosts"]
    assert virtual_host["routes"][0]["route"]["cluster"] == cluster["name"]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["address"]["socket_address"] == {"address": host, "port_value": port}
    assert cluster.get("transport_socket", {}).get("typed_config", {}).get("sni") == (
        host if port == 443 else None
    )


def test_page_of_a_run_without_sizes_and_with_a_token_limit_alone_has_no_pace() -> None:
    advice = prescribe(limits(requests=None, tokens=RateLimit(limit=60_000)), ())
    assert (advice.spacing_s, advice.bound_by, advice.tokens_per_min) == (None, None, 57_000)


def test_clients_that_are_banned_do_not_retry_and_stay_below_the_limit() -> None:
    ban = BanRecord(
        length_range_s=(29.0, 30.0),
        restarts=True,
        limit_range=(9, 10),
        period_range_s=(60.0, 60.0),
        safe_rate_per_min=9.0,
    )
    found = measured_limits(msgspec.structs.replace(RECORD, ban=ban))
    advice = prescribe(found, SMALL, banned=True)
    assert advice.max_retries == 0
    assert advice.spacing_s is not None
    assert advice.spacing_s >= 60 / 9
    told = sentences(advice, SOURCES)
    assert "Retries: none. A refusal starts a ban, so stop sending until it has ended." in told


def test_limits_of_a_probe_are_those_that_it_measured() -> None:
    values = {"concurrency_limit": 8, "token_limit": 5000, "token_period_s": 60.0, "limit_per_key": False}
    unused: dict[str, Any] = {"range": None, "confidence": 1.0, "evidence": (), "reason": None, "says": ""}
    answers = [AnswerRecord(question=name, value=value, **unused) for name, value in values.items()]
    found = measured_limits(msgspec.structs.replace(RECORD, answers=answers))
    assert (found.requests, found.concurrency, found.per) == (None, 8, ())
    assert found.tokens == RateLimit(limit=5000, period_s=60.0)


def test_retries_without_an_announced_wait_cover_the_longest_period() -> None:
    short, minute, day = (
        prescribe(limits(requests=RateLimit(limit=10, period_s=period_s)), SMALL).max_retries
        for period_s in (1.0, 60.0, 86_400.0)
    )
    assert (short, minute, day) == (3, 10, 10)


def test_documented_limits_of_several_periods_are_kept_together() -> None:
    periods = {"requests": (1.0, 60.0, 86_400.0), "tokens": (60.0, 3600.0)}
    listed = [Limit(what, round(10 * s**0.5), s) for what, found in periods.items() for s in found]  # type: ignore[arg-type]
    found = documented_limits([*listed, Limit("requests", 9, 1.0), Limit("concurrency", 7)])
    assert found.requests is not None
    assert found.tokens is not None
    assert [(limit.limit, limit.period_s) for limit in found.requests.chain()] == [
        (77, 60.0),
        (9, 1.0),
        (2939, 86_400.0),
    ]
    assert [limit.period_s for limit in found.tokens.chain()] == [60.0, 3600.0]
    assert found.concurrency == 7


def test_limits_on_input_and_output_tokens_are_kept_as_limits_on_all_tokens() -> None:
    documented = [
        Limit("input_tokens", 900, 60.0),
        Limit("output_tokens", 500, 60.0),
        Limit("tokens", 5000, 60.0),
    ]
    # At most nine tenths of a call are input, and at most half of it is output.
    sizes = [CallSize(90, 10), CallSize(50, 50)]
    known = documented_limits(documented)
    found = by_total_tokens(known, sizes)
    assert found.tokens is not None
    assert [limit.limit for limit in found.tokens.chain()] == [5000, 1000, 1000]
    assert found.per_period.keys() == {"tokens"}
    assert [window.amount for window in prescribe(known, sizes).windows] == [5000, 1000, 1000]
    unknown = by_total_tokens(known, ())  # a call could be all input, or all output
    assert unknown.tokens is not None
    assert [limit.limit for limit in unknown.tokens.chain()] == [5000, 900, 500]


def test_documented_limits_of_long_periods_are_kept_next_to_measured_ones() -> None:
    day = [Limit("requests", 100, 60.0), Limit("requests", 1000, 86_400.0)]
    measured = limits(
        requests=RateLimit(limit=50, period_s=30.0, algorithm="sliding_log", count_refused=True)
    )
    known, sources = completed(measured, documented_limits(day))
    assert known.requests is not None
    assert [(limit.limit, limit.period_s) for limit in known.requests.chain()] == [
        (50, 30.0),
        (1000, 86_400.0),
    ]
    assert model_of(known.requests).decide(0.0).accepted
    assert sources.requests == "measured and documented"


def test_what_was_not_measured_is_as_documented() -> None:
    documented = documented_limits([Limit("requests", 100, 60.0), Limit("concurrency", 20)])
    known, sources = completed(limits(), documented)
    assert (known.requests, known.tokens, known.concurrency) == (RateLimit(limit=60), None, 20)
    assert sources == SOURCES
    told = sentences(prescribe(known, SMALL), sources)
    assert told[-1] == "As documented, not measured: concurrency."
