"""An API in virtual time that enforces limits as the sandbox does."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from bltybench.limits.models import Admission, AllOf, Concurrency, Model
from bltybench.limits.models.families import model_of
from bltybench.limits.observations.classify import Decision
from bltybench.policies.pacer import AnnouncedLimit
from bltybench.scenario.target import RateLimit, SandboxLimits

CONCURRENCY_RETRY_S = 1.0
"""Announced wait after a refusal by the concurrency limit, in seconds."""
RETRY_AFTER_FACTORS = {"short_retry_after": 0.5, "long_retry_after": 2.0}
"""Factor of the announced wait by the style of the headers."""
SILENT_STYLES = frozenset({"none", "no_retry_after", "nonsense"})
"""Styles of the headers that announce no readable wait."""
REFUSED_BY = {"requests": Decision.REFUSED_BY_REQUESTS, "tokens": Decision.REFUSED_BY_TOKENS}


class Answer(NamedTuple):
    """The decision about a request."""

    decision: Decision
    delay_s: float = 0.0
    """Time that an accepted request is queued, in seconds."""
    announced_s: float | None = None
    """Retry-After of a refusal, in seconds."""
    decisions: Sequence[Admission] = ()
    """Decisions of the limits on requests and tokens, of which the headers announce the state."""


class SimulatedApi:
    """Request, token, and concurrency limits of one key. A request reserves its tokens and keeps them."""

    def __init__(self, limits: SandboxLimits) -> None:
        settings: dict[str, RateLimit | None] = {"requests": limits.requests, "tokens": limits.tokens}
        models = {name: model_of(setting) for name, setting in settings.items() if setting is not None}
        self._names = tuple(models)
        self._single: Model | None = next(iter(models.values())) if len(models) == 1 else None
        self._all = AllOf(list(models.values())) if models else None
        self._slots = None if limits.concurrency is None else Concurrency(limits.concurrency)
        self._style = limits.headers
        self.refusal_status = limits.refusal_status

    def decide(self, now_s: float, tokens: int) -> Answer:
        """Accept a request that can use up to ``tokens``, or refuse it. Times must not decrease."""
        if self._slots is not None and self._slots.in_use >= self._slots.limit:
            return Answer(Decision.REFUSED_BY_CONCURRENCY, announced_s=self._announced(CONCURRENCY_RETRY_S))
        decisions: list[Admission] = []
        if self._single is not None:
            cost = 1.0 if self._names == ("requests",) else float(tokens)
            decisions = [self._single.decide(now_s, cost)]
        elif self._all is not None:
            decisions = self._all.decide_each(now_s, (1.0, float(tokens)))
        refused = [
            (decision.retry_after_s or 0.0, name)
            for name, decision in zip(self._names, decisions, strict=True)
            if not decision.accepted
        ]
        if refused:
            wait_s, name = max(refused)
            return Answer(REFUSED_BY[name], announced_s=self._announced(wait_s), decisions=decisions)
        if self._slots is not None:
            self._slots.acquire()
        delay_s = max((one.delay_s for one in decisions), default=0.0)
        return Answer(Decision.ACCEPTED, delay_s=delay_s, decisions=decisions)

    def headers_of(self, answer: Answer) -> list[AnnouncedLimit]:
        """Return what the headers of a response announce; nothing if the limits' headers are not accurate."""
        if self._style != "honest":
            return []
        return [
            AnnouncedLimit(name == "tokens", decision.limit, decision.remaining, decision.reset_s)
            for name, decision in zip(self._names, answer.decisions, strict=False)
        ]

    def release(self) -> None:
        """Release the slot of an accepted request."""
        if self._slots is not None:
            self._slots.release()

    def _announced(self, wait_s: float) -> float | None:
        """Return Retry-After in whole seconds, at least 1; None if the request never fits."""
        if self._style in SILENT_STYLES or math.isinf(wait_s):
            return None
        return float(int(max(1, math.ceil(wait_s)) * RETRY_AFTER_FACTORS.get(self._style, 1.0)))
