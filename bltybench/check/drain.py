"""The drain: exhaust a request limit, then wait as Retry-After says and send one more request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bltybench.check.client import CheckResponse, Client
from bltybench.check.evidence import CHAT, PROMPT_TOKENS, SHORT, Evidence, chat
from bltybench.check.ratelimits import RETRY_AFTER, whole

MAX_LIMIT = 200
"""Highest limit to exhaust. Beyond it, the check would be a load test."""
ASKING_AT_ONCE = 8
WAIT_SLACK_S = 5.0


def most_requests(limit: int) -> int:
    """Return the maximum number of requests that a drain of ``limit`` sends.

    Twice the limit, because a window may reset meanwhile, plus the requests in flight at the refusal and the
    one afterwards.
    """
    return 2 * limit + ASKING_AT_ONCE + 1


def most_tokens(limit: int) -> int:
    """Return the maximum tokens that a drain uses, if the API respects max_tokens."""
    return most_requests(limit) * (PROMPT_TOKENS + 1)


def drain(
    client: Client, evidence: Evidence, *, limit: int, at_once: int, tell: Callable[[str], None]
) -> None:
    """Provoke a 429 and record in ``evidence`` its headers and whether waiting helps.

    ``at_once`` bounds the requests in flight, so that the drain does not reach a concurrency limit instead.
    """
    answers: list[CheckResponse] = []
    lock = threading.Lock()
    left = 2 * limit
    done = threading.Event()

    def spend() -> None:
        nonlocal left
        while not done.is_set():
            with lock:
                if left == 0:
                    return
                left -= 1
            answer = client.post(CHAT, chat(evidence.model, SHORT, 1))
            with lock:
                answers.append(answer)
            if answer.status != 200:
                done.set()

    workers = min(at_once, ASKING_AT_ONCE)
    began_s = time.monotonic()
    tell(f"Exhausting the limit of {limit} requests to provoke a 429.")
    with ThreadPoolExecutor(workers) as pool:
        try:
            for finished in [pool.submit(spend) for _ in range(workers)]:
                finished.result()
        finally:
            done.set()
    evidence.drained, evidence.drained_s = len(answers), time.monotonic() - began_s
    refusals = [answer for answer in answers if answer.status == 429]
    # Retry-After counts from its own response, so wait for the last refusal's.
    evidence.refused = max(refusals or answers, key=lambda answer: answer.ended_s)
    if refusals:
        _wait_and_ask(client, evidence, evidence.refused, tell)


def _wait_and_ask(
    client: Client, evidence: Evidence, refused: CheckResponse, tell: Callable[[str], None]
) -> None:
    wait_s = whole(refused, RETRY_AFTER)
    if wait_s is None:
        return
    if wait_s > evidence.window_s + WAIT_SLACK_S:
        evidence.skipped["after_wait"] = f"{wait_s} s is longer than a window, so the check did not wait"
        return
    tell(f"Waiting {wait_s} s, as {RETRY_AFTER} says.")
    time.sleep(max(0.0, wait_s - (time.time() - refused.ended_s)))
    evidence.waited_s = float(wait_s)
    evidence.after_wait = client.post(CHAT, chat(evidence.model, SHORT, 1))
