"""Limits of one key: admission, and the headers about it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from bltybench.limits.models import Admission, AllOf
from bltybench.limits.models.families import model_of
from bltybench.sandbox.errors import ApiError, Headers
from bltybench.sandbox.slots import Slots
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import NAMES, What
from bltybench.scenario.target import SandboxLimits

CONCURRENCY_RETRY_S = 1
"""Retry-After of a concurrency refusal, in seconds. No clock knows when a slot will be released."""


_MONOTONIC_EPOCH_S = time.time() - time.monotonic()


def unix_s() -> float:
    """Return Unix time in seconds. It never goes backwards, because it follows the monotonic clock."""
    return time.monotonic() + _MONOTONIC_EPOCH_S


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal: the limit that refused, and the response."""

    limit: str
    error: ApiError


@dataclass(slots=True)
class Grant:
    """An admitted request. It holds a slot and a token reservation until it is settled."""

    quota: KeyQuota
    at_s: float
    reserved: CallSize
    headers: Headers
    delay_s: float
    """Time it waits in a queue before it is served, in seconds."""
    has_slot: bool
    """Whether it can be served now."""

    async def turn(self) -> None:
        """Wait for a slot if one is needed and excess requests are queued."""
        if not self.has_slot:
            await self.quota.slots.turn()
            self.has_slot = True

    def settle(self, now_s: float, used: CallSize, *, keep_slot: bool = False) -> None:
        """Release the slot and settle the token charge. Once only."""
        self.quota.settle(now_s, self.at_s, self.reserved, used)
        if not keep_slot:
            self.free()

    def free(self) -> None:
        """Release the slot, if it holds one."""
        if self.has_slot:
            self.has_slot = False
            self.quota.slots.free()


class Quotas:
    """Quotas per key, per model, per pair, or one for all, as the limits say."""

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits
        self._quotas: dict[tuple[str | None, ...], KeyQuota] = {}

    def of(self, key: str, model: str | None = None) -> KeyQuota:
        """Return the quota in which a request with this key for this model counts."""
        names = {"key": key, "model": model}
        place = tuple(names[scope] for scope in ("key", "model") if scope in self._limits.per)
        if place not in self._quotas:
            self._quotas[place] = KeyQuota(self._limits)
        return self._quotas[place]


class KeyQuota:
    """Request, token, and concurrency limits of one key. Each can be absent."""

    def __init__(self, limits: SandboxLimits) -> None:
        self._settings = limits.per_period
        self._models = {what: model_of(setting) for what, setting in self._settings.items()}
        self._limits = limits
        self._all = AllOf(list(self._models.values())) if self._models else None
        self.slots = Slots(limits.concurrency, queues=limits.concurrency_excess == "queued")

    def charge(self, now_s: float) -> Refusal | None:
        """Count an exchange other than chat as a request, or refuse it."""
        model = self._models.get("requests")
        if model is None:
            return None
        decision = model.decide(now_s)
        return None if decision.accepted else self._rate_refusal("requests", {"requests": decision}, now_s)

    def admit(self, now_s: float, size: CallSize) -> Grant | Refusal:
        """Admit a request that can use the tokens of ``size``, or refuse it without charging anything."""
        if self.slots.refuses:
            return self._concurrency_refusal(now_s)
        decisions: dict[What, Admission] = {}
        if self._all is not None:
            # If tokens are charged as used, only whether any remain is known on admission.
            used = self._limits.tokens_charged == "used"
            costs = [1.0 if used else size.cost(what) for what in self._models]
            decisions = dict(zip(self._models, self._all.decide_each(now_s, costs), strict=True))
        refused = [name for name, decision in decisions.items() if not decision.accepted]
        if refused:
            binding = max(refused, key=lambda name: decisions[name].retry_after_s or 0.0)
            return self._rate_refusal(binding, decisions, now_s)
        delay_s = max((decision.delay_s for decision in decisions.values()), default=0.0)
        headers = self._headers(decisions.get("requests"), now_s)
        return Grant(self, now_s, size, headers, delay_s, has_slot=self.slots.take())

    def settle(self, now_s: float, charged_s: float, reserved: CallSize, used: CallSize) -> None:
        """Charge or refund tokens of a request admitted at ``charged_s``."""
        for what, model in self._models.items():
            if what == "requests":
                continue
            if self._limits.tokens_charged == "used":
                model.charge(now_s, max(0.0, used.cost(what) - 1))
            elif self._limits.tokens_charged == "refunded":
                model.refund(now_s, charged_s, max(0.0, reserved.cost(what) - used.cost(what)))

    def _concurrency_refusal(self, now_s: float) -> Refusal:
        requests = self._models.get("requests")
        headers = self._headers(requests.peek(now_s) if requests else None, now_s, CONCURRENCY_RETRY_S)
        message = (
            f"Rate limit reached: {self.slots.limit} concurrent requests. Wait until one of them has ended."
        )
        return self._refusal("concurrency", message, "concurrency_limit_exceeded", headers)

    def _rate_refusal(self, name: What, decisions: dict[What, Admission], now_s: float) -> Refusal:
        setting, wait_s = self._settings[name], decisions[name].retry_after_s
        what = f"{setting.limit} {NAMES.get(name, name)} per {setting.period_s:g} s"
        if wait_s is None or math.isinf(wait_s):
            # It will never fit, so there is no Retry-After.
            retry_after_s = None
            message = f"Request too large: it alone may use more than the limit of {what}."
        else:
            retry_after_s = max(1, math.ceil(wait_s))
            message = f"Rate limit reached: {what}. Please try again in {retry_after_s} s."
        code = "rate_limit_exceeded" if name == "requests" else "token_limit_exceeded"
        return self._refusal(
            name, message, code, self._headers(decisions.get("requests"), now_s, retry_after_s)
        )

    def _refusal(self, limit: str, message: str, code: str, headers: Headers) -> Refusal:
        status = self._limits.refusal_status
        return Refusal(limit, ApiError(status, "rate_limit_error", message, code=code, headers=headers))

    def _headers(self, decision: Admission | None, now_s: float, retry_after_s: int | None = None) -> Headers:
        """Return the headers in the configured style. They cover only the request limit."""
        style = self._limits.headers
        if style == "none":
            return []
        headers: Headers = []
        if decision is not None:
            remaining = decision.limit if style == "full_remaining" else math.floor(decision.remaining)
            headers = [
                (b"x-ratelimit-limit", str(decision.limit).encode()),
                (b"x-ratelimit-remaining", str(remaining).encode()),
                (b"x-ratelimit-reset", str(math.ceil(now_s + decision.reset_s)).encode()),
            ]
        if style == "nonsense":
            headers = [(name, b"soon") for name, _ in headers]
        if retry_after_s is not None and style != "no_retry_after":
            factor = {"short_retry_after": 0.5, "long_retry_after": 2.0}.get(style, 1.0)
            wait = "in a while" if style == "nonsense" else str(int(retry_after_s * factor))
            headers.append((b"retry-after", wait.encode()))
        return headers
