"""The drain: exhaust a request limit, then wait as Retry-After says and send one more request."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bltybench.check.client import CheckResponse, Client
from bltybench.check.evidence import PROMPT_TOKENS, SHORT, Evidence, chat
from bltybench.check.expectations.ratelimits import RETRY_AFTER, whole
from bltybench.check.request_keys import TEMPERATURE
from bltybench.scenario.api.request_options import choices
from bltybench.scenario.prompts.tokens import count_definitions
from bltybench.scenario.target import Target

MAX_LIMIT = 200
"""Highest limit to exhaust. Beyond it, the check would be a load test."""
MAX_IN_FLIGHT = 8
WAIT_SLACK_S = 5.0


def max_requests(limit: int) -> int:
    """Return the maximum number of requests that a drain of ``limit`` sends.

    Twice the limit, because a window may reset meanwhile, plus the requests in flight at the refusal and the
    one afterwards.
    """
    return 2 * limit + MAX_IN_FLIGHT + 1


def max_tokens(target: Target, limit: int) -> int:
    """Return the maximum tokens that a drain uses, if the API respects max_tokens."""
    return max_requests(limit) * (PROMPT_TOKENS + count_definitions(target.body) + choices(target.body))


def drain(
    client: Client, evidence: Evidence, *, limit: int, at_once: int, tell: Callable[[str], None]
) -> None:
    """Provoke a 429 and record in ``evidence`` its headers and whether waiting helps.

    ``at_once`` bounds the requests in flight, so that the drain does not reach a concurrency limit instead.
    """
    cold = TEMPERATURE not in evidence.rejected
    request = chat(client.target, evidence.model, SHORT, 1, cold=cold)
    path = client.target.path_of_chat(evidence.model)
    done = threading.Event()

    def send(_: int) -> CheckResponse | None:
        if done.is_set():
            return None
        response = client.post(path, request)
        if response.status != 200:
            done.set()
        return response

    began_s = time.monotonic()
    tell(f"Exhausting the limit of {limit} requests to provoke a 429.")
    with ThreadPoolExecutor(min(at_once, MAX_IN_FLIGHT)) as pool:
        try:
            responses = [sent for sent in pool.map(send, range(2 * limit)) if sent is not None]
        finally:
            done.set()
    evidence.drained, evidence.drained_s = len(responses), time.monotonic() - began_s
    refusals = [response for response in responses if response.status == 429]
    # Retry-After counts from its own response, so wait for the last refusal's.
    evidence.refused = max(refusals or responses, key=lambda response: response.ended_s)
    wait_s = whole(evidence.refused, RETRY_AFTER) if refusals else None
    if wait_s is None:
        return
    if wait_s > evidence.window_s + WAIT_SLACK_S:
        evidence.skipped["after_wait"] = f"{wait_s} s is longer than a window, so the check did not wait"
        return
    tell(f"Waiting {wait_s} s, as {RETRY_AFTER} says.")
    time.sleep(max(0.0, wait_s - (time.time() - evidence.refused.ended_s)))
    evidence.waited_s = float(wait_s)
    evidence.after_wait = client.post(path, request)
