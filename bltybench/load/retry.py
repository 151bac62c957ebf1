"""What a call does about a refusal or a passing failure. Pure: a policy decides, the client waits."""

from __future__ import annotations

import random

from bltybench.runs.attempt import Outcome
from bltybench.scenario.workload import Retry

PASSING = frozenset(
    {
        Outcome.RATE_LIMITED,
        Outcome.SERVER_ERROR,
        Outcome.TRANSPORT_ERROR,
        Outcome.TIMEOUT,
        Outcome.BROKEN_STREAM,
    }
)
"""Outcomes that another try can mend. A client error stays one however often it is sent."""


def wait_before_retry_s(
    retry: Retry, attempt: int, outcome: Outcome, retry_after_s: float | None, rng: random.Random
) -> float | None:
    """Return the seconds to wait before the next attempt, or None where the call ends here.

    ``attempt`` is the number of the attempt that failed, from 0. Policy ``retry_after`` waits exactly as long
    as the server asked; where it asked for nothing, and under ``backoff`` always, the wait is
    ``min(base * 2**attempt, cap) * (1 - U/4)`` with U uniform in [0, 1): the OpenAI SDK's formula.
    """
    if retry.policy == "none" or outcome not in PASSING or attempt + 1 >= retry.max_attempts:
        return None
    if retry.policy == "retry_after" and retry_after_s is not None and retry_after_s > 0:
        return retry_after_s if retry_after_s <= retry.max_wait_s else None
    return min(retry.base_s * 2.0**attempt, retry.cap_s) * (1 - rng.random() / 4)
