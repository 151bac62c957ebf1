"""Which failures are followed by another key, target, or model, and what happens after all have failed."""

from __future__ import annotations

import random

from support_wire import ended_exchange

from bltybench.load.retry import EndedAttempt, falls_back, soonest, wait_before_retry_s
from bltybench.policies.retries import Retries
from bltybench.scenario.retry import Retry
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret

OK = b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'


def ended(status: int, *headers: str, body: bytes = b"{}", failure: Failure | None = None) -> EndedAttempt:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *headers]
    exchange = ended_exchange("\r\n".join(lines).encode() + b"\r\n\r\n" + body, failure=failure)
    return EndedAttempt(exchange, interpret(exchange), 0, None)


def test_every_failure_falls_back_but_not_what_the_run_cancelled() -> None:
    assert [falls_back(ended(status).result) for status in (429, 500, 401, 404)] == [True] * 4
    assert not falls_back(ended(200, body=OK).result)
    assert not falls_back(ended(200, failure=Failure(Fault.CANCELLED, "stopped")).result)


def test_policy_waits_for_the_entry_that_is_available_first() -> None:
    slow, quick, silent = ended(429, "Retry-After: 50"), ended(429, "Retry-After: 3"), ended(503)
    assert soonest([slow, quick, silent]) is quick
    assert soonest([silent, ended(500)]).exchange.status == 500
    retries, rng = Retries(Retry(policy="retry_after")), random.Random(1)
    assert wait_before_retry_s(retries, soonest([slow, quick, silent]), 0.0, rng) == 3


def test_success_after_a_fallback_ends_the_call() -> None:
    done = ended(200, body=OK)
    assert soonest([ended(429, "Retry-After: 3"), done]) is done
    retries = Retries(Retry(policy="retry_after"))
    assert wait_before_retry_s(retries, done, 0.0, random.Random(1)) is None
