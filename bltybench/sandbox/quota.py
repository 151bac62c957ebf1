"""The limits of one key: who is let in, and what the headers say about it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from bltybench.limits import FAMILIES, AllOf, Concurrency, Decision, Model
from bltybench.sandbox.errors import ApiError, Headers, rate_limited
from bltybench.scenario.target import RateLimit, SandboxLimits

CONCURRENCY_RETRY_S = 1
"""Retry-After of a concurrency refusal: no clock knows when a slot comes free."""


class UnixClock:
    """Unix time that never goes back: the monotonic clock, anchored once to the wall clock."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now_s(self) -> float:
        """Return seconds since the epoch."""
        return time.monotonic() + self._offset_s


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that a limit turned away: which one, and the answer."""

    limit: str
    error: ApiError


class Grant:
    """A request that was let in. It holds a slot and a reservation of tokens until it is settled."""

    def __init__(self, quota: KeyQuota, at_s: float, reserved_tokens: int, headers: Headers) -> None:
        self._quota = quota
        self._at_s = at_s
        self._reserved_tokens = reserved_tokens
        self.headers = headers

    def settle(self, now_s: float, used_tokens: int) -> None:
        """Free the slot and give back the tokens that were not used. Once only."""
        self._quota.settle(now_s, self._at_s, self._reserved_tokens - used_tokens)


class KeyQuota:
    """Requests and tokens per period and requests at a time, for one key; any of them may be absent."""

    def __init__(self, limits: SandboxLimits) -> None:
        self._settings = {"requests": limits.requests, "tokens": limits.tokens}
        self._models: dict[str, Model] = {
            name: FAMILIES[setting.algorithm](setting.limit, setting.period_s)
            for name, setting in self._settings.items()
            if setting is not None
        }
        self._all = AllOf(list(self._models.values())) if self._models else None
        self._slots = Concurrency(limits.concurrency) if limits.concurrency is not None else None

    def admit(self, now_s: float, tokens: int) -> Grant | Refusal:
        """Let a request in that may use up to ``tokens``, or refuse it and charge nothing."""
        if self._slots is not None and self._slots.in_use >= self._slots.limit:
            return self._concurrency_refusal(now_s)
        decisions: dict[str, Decision] = {}
        if self._all is not None:
            costs = [1.0 if name == "requests" else float(tokens) for name in self._models]
            decisions = dict(zip(self._models, self._all.decide_each(now_s, costs), strict=True))
        refused = [name for name, decision in decisions.items() if not decision.accepted]
        if refused:
            binding = max(refused, key=lambda name: decisions[name].retry_after_s or 0.0)
            return self._rate_refusal(binding, decisions, now_s)
        if self._slots is not None:
            self._slots.acquire()
        return Grant(self, now_s, tokens, _headers(decisions.get("requests"), now_s))

    def settle(self, now_s: float, charged_s: float, unused_tokens: int) -> None:
        """Free one slot and refund tokens that were charged at ``charged_s``."""
        if self._slots is not None:
            self._slots.release()
        if "tokens" in self._models and unused_tokens > 0:
            self._models["tokens"].refund(now_s, charged_s, unused_tokens)

    def _concurrency_refusal(self, now_s: float) -> Refusal:
        requests = self._models.get("requests")
        headers = _headers(requests.peek(now_s) if requests else None, now_s)
        headers.append((b"retry-after", str(CONCURRENCY_RETRY_S).encode()))
        limit = self._slots.limit if self._slots else 0
        message = f"Rate limit reached: {limit} concurrent requests. Wait until one of them has ended."
        return Refusal("concurrency", rate_limited(message, "concurrency_limit_exceeded", headers))

    def _rate_refusal(self, name: str, decisions: dict[str, Decision], now_s: float) -> Refusal:
        setting, wait_s = self._settings[name], decisions[name].retry_after_s
        headers = _headers(decisions.get("requests"), now_s)
        code = "rate_limit_exceeded" if name == "requests" else "token_limit_exceeded"
        what = _described(name, setting)
        if wait_s is None or math.isinf(wait_s):
            # It will never fit, so there is no time after which to retry.
            message = f"Request too large: it alone may use more than the limit of {what}."
            return Refusal(name, rate_limited(message, code, headers))
        retry_after_s = max(1, math.ceil(wait_s))
        headers.append((b"retry-after", str(retry_after_s).encode()))
        message = f"Rate limit reached: {what}. Please try again in {retry_after_s} s."
        return Refusal(name, rate_limited(message, code, headers))


def _described(name: str, setting: RateLimit | None) -> str:
    return f"{setting.limit} {name} per {setting.period_s:g} s" if setting else name


def _headers(decision: Decision | None, now_s: float) -> Headers:
    """Return the documented headers: they tell of the requests limit only, and of nothing without it."""
    if decision is None:
        return []
    return [
        (b"x-ratelimit-limit", str(decision.limit).encode()),
        (b"x-ratelimit-remaining", str(math.floor(decision.remaining)).encode()),
        (b"x-ratelimit-reset", str(math.ceil(now_s + decision.reset_s)).encode()),
    ]
