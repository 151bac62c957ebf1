"""The wait of a call of the run before its next attempt."""

import time
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from bltybench.limits.observations.classify import classify_response
from bltybench.policies.retries import Retries
from bltybench.policies.retry.backoff import FailedAttempt
from bltybench.runs.attempt import Outcome
from bltybench.wire.exchange import Exchange
from bltybench.wire.ratelimit_headers import parse_quota
from bltybench.wire.result import ExchangeResult

SDK_HEADERS = ("retry-after-ms", "retry-after")
"""Headers with a wait that SDKs read."""
SHOULD_RETRY = {"true": True, "false": False}
"""Values of ``x-should-retry``."""


class EndedAttempt(NamedTuple):
    """An attempt of a call, with its result."""

    exchange: Exchange
    result: ExchangeResult
    number: int
    """Attempts of the call before this one."""
    waited_s: float | None
    """Wait before this attempt, in seconds. None for the first."""


def falls_back(result: ExchangeResult) -> bool:
    """Return whether another route may succeed where this attempt failed."""
    return result.outcome not in {Outcome.OK, Outcome.CANCELLED}


def soonest(failed: Sequence[EndedAttempt]) -> EndedAttempt:
    """Return the attempt whose server announced the shortest wait; the last one if none announced any."""
    announced = [ended for ended in failed if ended.result.quota.retry_after_s is not None]
    if not falls_back(failed[-1].result):
        return failed[-1]
    return min(announced, key=lambda ended: ended.result.quota.retry_after_s or 0.0, default=failed[-1])


def wait_before_retry_s(retries: Retries, ended: EndedAttempt, now_s: float, rng: Random) -> float | None:
    """Return the seconds to wait before the next attempt, or None if the call ends here."""
    exchange, result, number, waited_s = ended
    if result.outcome is Outcome.OK:
        retries.succeed()
        return None
    standard = [header for header in exchange.headers if header[0] in SDK_HEADERS]
    failed = FailedAttempt(
        number=number,
        decision=classify_response(result),
        status=result.status,
        announced_s=result.quota.retry_after_s,
        standard_s=parse_quota(standard, time.time()).retry_after_s if standard else None,
        should_retry=SHOULD_RETRY.get(exchange.header("x-should-retry")),
        stream=exchange.stream,
        interrupted=result.outcome in {Outcome.TIMEOUT, Outcome.TRANSPORT_ERROR},
        has_tokens=result.first_token_ns is not None,
        waited_s=waited_s,
    )
    return retries.wait_s(failed, now_s, rng)
