from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import gevent
import msgspec
import pytest
from gevent.event import Event
from locust.exception import StopUser
from support_sandbox import NO_LIMITS

from bltybench.errors import UserError
from bltybench.load import held_call
from bltybench.load.client_policy import ClientPolicy, Gate, limits_to_keep
from bltybench.load.held_call import HELD_BACK, pace
from bltybench.load.recorder import CallContext
from bltybench.load.run.context import RunContext
from bltybench.policies.pacing.header_pacer import HeaderPacer
from bltybench.policies.pacing.limiter_pacer import LimiterPacer
from bltybench.policies.pacing.pacer import Pacer, Share
from bltybench.policies.pacing.pacers import AimdPacer
from bltybench.runs.attempt import Outcome
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.routes import Route
from bltybench.scenario.pacing import Pacing
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import RateLimit, SandboxLimits, SandboxSettings, Target
from bltybench.scenario.workload import Scenario
from bltybench.wire.ratelimit_headers import Quota, parse_quota
from bltybench.wire.result import ExchangeResult

ROUTE = Route("here", "KEY_A", "m")
CALL = CallContext(
    route=ROUTE, call_id="c", name="chat", body=b"", stream=True, model="m", prompt_tokens=5, max_tokens=5
)
ONE = Share(0, 1)
SIZE = CallSize(1, 0)


class Scripted(Pacer):
    """Holds requests for the waits of a list, and notes what it sends."""

    def __init__(self, *waits_s: float) -> None:
        self.waits_s, self.sent = list(waits_s), list[tuple[float, CallSize]]()

    def wait_s(self, now_s: float, size: CallSize, rng: Random) -> float:
        del now_s, size, rng
        return self.waits_s.pop(0) if self.waits_s else 0.0

    def send(self, now_s: float, size: CallSize) -> None:
        self.sent.append((now_s, size))


def clock(start_s: float = 100.0) -> Callable[[], float]:
    """Return a clock that advances by a second each time it is read."""
    now_s = [start_s]

    def read() -> float:
        now_s[0] += 1
        return now_s[0]

    return read


def result(status: int = 200) -> ExchangeResult:
    outcome = Outcome.OK if status == 200 else Outcome.RATE_LIMITED
    return ExchangeResult(outcome=outcome, status=status)


def scenario(**pacing: Any) -> Scenario:
    load = {"kind": "closed"}
    return Scenario.model_validate(
        {"title": "t", "model": "m", "duration_s": 1, "users": 1, "arrivals": load, "pacing": pacing}
    )


def policy(limits: SandboxLimits, **pacing: Any) -> ClientPolicy:
    return ClientPolicy(scenario(**pacing), {"here": limits}, ONE, now_s=lambda: 0.0, start_s=lambda: 0.0)


def test_requests_pass_a_gate_in_the_order_in_which_they_come() -> None:
    pacer = Scripted(0.01)
    gate, ended = Gate(pacer, clock(), Random(1)), Event()
    passing = [gevent.spawn(gate.hold, CallSize(tokens, 0), 0.0, ended) for tokens in (1, 2, 3)]
    gevent.sleep(0)
    assert gate.holding
    passed = [greenlet.get(timeout=5) for greenlet in passing]
    assert [size.tokens for _, size in pacer.sent] == [1, 2, 3]
    assert all(one.held for one in passed)
    assert not gate.holding


def test_request_that_became_due_behind_a_held_one_counts_as_held() -> None:
    gate, ended = Gate(Scripted(0.001), clock(), Random(1)), Event()
    (first,) = gevent.joinall([gevent.spawn(gate.hold, SIZE, 0.0, ended)], timeout=5)
    assert first.value.held
    behind, later = gate.hold(SIZE, 50.0, ended), gate.hold(SIZE, 500.0, ended)
    assert behind is not None
    assert later is not None
    assert (behind.held, later.held) == (True, False)


def test_request_that_waits_for_a_slot_passes_after_the_next_response() -> None:
    limits = NO_LIMITS.model_copy(update={"concurrency": 1})
    gate, ended = Gate(LimiterPacer(limits, ONE, 0.0), clock(), Random(1)), Event()
    first = gate.hold(SIZE, 0.0, ended)
    assert first is not None
    assert not first.held
    second = gevent.spawn(gate.hold, SIZE, 0.0, ended)
    gevent.sleep(0.01)
    assert gate.holding
    first.answered(result(), 0.0)
    assert second.get(timeout=5).held


def test_refusals_slow_the_pacer_down() -> None:
    pacer = AimdPacer()
    gate = Gate(pacer, clock(0.0), Random(1))
    passed_at_1 = gate.hold(SIZE, 0.0, Event())
    assert passed_at_1 is not None
    passed_at_1.answered(result(429), 0.0)
    gate.hold(SIZE, 0.0, Event())
    assert pacer.wait_s(3.0, SIZE, Random(1)) > 1.5


def test_headers_of_responses_pace_the_next_requests() -> None:
    gate, ended = Gate(HeaderPacer(), clock(0.0), Random(1)), Event()
    passed = gate.hold(SIZE, 0.0, ended)
    assert passed is not None
    quota = Quota(limit_requests=9, remaining_requests=0, reset_requests_s=9_000.0, limit_tokens=5)
    passed.answered(ExchangeResult(outcome=Outcome.OK, status=200, quota=quota), 0.0)
    waiting = gevent.spawn(gate.hold, SIZE, 0.0, ended)
    gevent.sleep(0)
    assert gate.holding
    ended.set()
    assert waiting.get(timeout=5) is None


def header(kind: str, value: str) -> tuple[str, str]:
    return f"x-ratelimit-{kind}-requests", value


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [
        ("9", "0", str(366 * 86_400)),
        ("9", "0", "9" * 300),
        ("9", "0", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("9", "0", "Sun, 22 Nov 2020 13:59:00 GMT"),
        ("9", "0", "0"),
        ("9", "0", "-5"),
        ("9", "0", "nan"),
        ("9", "0", "\u0665"),
        ("9", "-1", "60"),
        ("-9", "0", "60"),
        ("0", "0", "60"),
        ("9", "inf", "60"),
        ("9", "9" * 15, "60"),
        ("9" * 300, "0", "60"),
        ("", "", ""),
    ],
)
def test_headers_that_make_no_sense_do_not_pace(limit: str, remaining: str, reset: str) -> None:
    gate, ended = Gate(HeaderPacer(), clock(0.0), Random(1)), Event()
    for _ in range(3):
        passed = gate.hold(SIZE, 0.0, ended)
        assert passed is not None
        headers = [header("limit", limit), header("remaining", remaining), header("reset", reset)]
        quota = parse_quota(headers, 1.8e9)
        passed.answered(ExchangeResult(outcome=Outcome.OK, status=200, quota=quota), 0.0)
        assert not gate.holding


def context(gate: Gate) -> RunContext:
    parts: dict[str, Any] = {
        "policy": SimpleNamespace(gate=lambda _: gate),
        "give_up": lambda: StopUser,
        "clock": SimpleNamespace(now_ns=lambda: 90),
        "sink": SimpleNamespace(in_flight=0),
    }
    return cast(RunContext, SimpleNamespace(**parts))


@pytest.mark.parametrize("killed", [False, True])
def test_call_that_is_still_held_when_the_run_ends_is_recorded_as_unsent(
    monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    recorded: list[tuple[Any, ...]] = []
    monkeypatch.setattr(held_call, "record", lambda *arguments: recorded.append(arguments))
    gate, ended = Gate(Scripted(60.0, 60.0), clock(), Random(1)), Event()
    waiting = gevent.spawn(pace, context(gate), CALL, 3, number=1, due_ns=7, ended=ended)
    gevent.sleep(0)
    if killed:
        waiting.kill()
    else:
        ended.set()
        with pytest.raises(StopUser):
            waiting.get(timeout=5)
    ((_, sent, shown, waited_s),) = recorded
    assert (sent.number, sent.due_ns, sent.exchange.sent_ns, waited_s) == (1, 7, None, None)
    assert (sent.call.held_until_ns, sent.call.paced_ns) == (90, 83)
    assert (shown.outcome, shown.error_message) == (Outcome.CANCELLED, HELD_BACK)
    assert gate.holding  # so the arrivals behind it are not a lack of users


def test_time_in_a_session_is_not_time_held_by_pacing() -> None:
    gate = Gate(Scripted(0.001), clock(), Random(1))
    in_session = msgspec.structs.replace(CALL, held_until_ns=60)
    first, _ = pace(context(gate), in_session, 3, number=0, due_ns=7, ended=Event())
    assert (first.held_until_ns, first.paced_ns) == (90, 30)
    again, _ = pace(context(gate), in_session, 3, number=1, due_ns=200_000_000_000, ended=Event())
    assert (again.held_until_ns, again.paced_ns) == (None, None)


def test_what_has_limits_of_its_own_is_paced_separately() -> None:
    limits = NO_LIMITS.model_copy(update={"requests": RateLimit(limit=1), "per": ("key",)})
    paced = policy(limits, policy="limiter")
    assert paced.gate(ROUTE) is paced.gate(ROUTE._replace(model="other"))
    assert paced.gate(ROUTE) is not paced.gate(ROUTE._replace(key="KEY_B"))
    shared = policy(limits.model_copy(update={"per": ()}), policy="limiter")
    assert shared.gate(ROUTE) is shared.gate(ROUTE._replace(key="KEY_B"))
    assert policy(limits).gate(ROUTE) is None


def test_limits_are_those_of_the_file_or_the_sandbox_or_documented(tmp_path: Path) -> None:
    address = "http://127.0.0.1:1/v1"
    (tmp_path / "limits.toml").write_text("tokens = false\nconcurrency = false\nrequests = { limit = 7 }\n")
    documented = Target.model_validate({"base_url": address, "limits": {"requests_per_min": 5}})
    sandbox = Target(base_url=address, sandbox=SandboxSettings(limits=NO_LIMITS))
    unknown = Target(base_url=address)

    def kept(target: Target, **pacing: Any) -> SandboxLimits:
        return limits_to_keep(scenario(policy="limiter", **pacing), {"here": target}, tmp_path)["here"]

    from_file = kept(unknown, limits="limits.toml").requests
    assert from_file == RateLimit(limit=7)
    by_documents = kept(documented).requests
    assert by_documents == RateLimit(limit=5)
    assert kept(sandbox) == NO_LIMITS
    with pytest.raises(UserError, match="needs the limits of target 'here', which has none"):
        kept(unknown)
    assert limits_to_keep(scenario(policy="aimd"), {"here": unknown}, tmp_path)


def test_a_policy_that_begins_later_starts_from_its_own_beginning() -> None:
    now_s = [500.0]
    paced = ClientPolicy(
        scenario(policy="aimd"), {"here": NO_LIMITS}, ONE, now_s=lambda: now_s[0], start_s=lambda: 0.0
    )
    drawn, retries = paced.rng.random(), paced.retries
    paced.use(Retry(policy="fixed"), Pacing(policy="aimd"), begin_s=500.0)
    assert paced.rng.random() == drawn
    assert paced.retries is not retries
    gate = paced.gate(ROUTE)
    assert gate is not None
    assert gate.hold(SIZE, 500.0, Event()) is not None
    # The rate of AIMD has not grown since the run began: the next request waits a second.
    waiting = gevent.spawn(gate.hold, SIZE, 500.0, Event())
    gevent.sleep(0)
    assert gate.holding
    waiting.kill()
