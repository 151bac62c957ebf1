"""How long a call waits before its next attempt."""

import random

from bltybench.limits.observations.classify import Decision
from bltybench.scenario.workload import Retry


def wait_before_retry_s(
    retry: Retry, attempt: int, decision: Decision, retry_after_s: float | None, rng: random.Random
) -> float | None:
    """Return the seconds to wait before the next attempt, or None if the call ends here.

    ``attempt`` is the number of the attempt that failed, from 0. Policy ``retry_after`` waits exactly as long
    as the server asked. If it asked for nothing, and always under ``backoff``, the wait is
    ``min(base * 2**attempt, cap) * (1 - U/4)`` with U uniform in [0, 1), as in the OpenAI SDK.
    """
    if retry.policy == "none" or not decision.retryable or attempt + 1 >= retry.max_attempts:
        return None
    if retry.policy == "retry_after" and retry_after_s is not None and retry_after_s > 0:
        return retry_after_s if retry_after_s <= retry.max_wait_s else None
    return min(retry.base_s * 2.0**attempt, retry.cap_s) * (1 - rng.random() / 4)
