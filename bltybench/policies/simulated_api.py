"""An API in virtual time that enforces limits as the sandbox does."""

from collections.abc import Sequence
from math import ceil, floor, inf
from random import Random
from typing import NamedTuple

from bltybench.limits.models import Admission, AllOf, Concurrency, Model
from bltybench.limits.models.families import model_of
from bltybench.limits.observations.classify import Decision
from bltybench.policies.pacing.pacer import AnnouncedLimit
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import What
from bltybench.scenario.target import SandboxLimits

CONCURRENCY_RETRY_S = 1.0
"""Announced wait after a refusal by the concurrency limit, in seconds."""
RETRY_AFTER_FACTORS = {"short_retry_after": 0.5, "long_retry_after": 2.0}
"""Factor of the announced wait by the style of the headers."""
SILENT_STYLES = frozenset({"none", "no_retry_after", "nonsense"})
"""Styles of the headers that announce no readable wait."""


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

    def __init__(self, limits: SandboxLimits, *, has_headers: bool = False) -> None:
        """``has_headers`` is whether clients read what the headers announce, which costs time."""
        models = {what: model_of(setting) for what, setting in limits.per_period.items()}
        self._names = tuple(models)
        self._single: Model | None = next(iter(models.values())) if len(models) == 1 else None
        self._all = AllOf(list(models.values())) if models else None
        self._slots = None if limits.concurrency is None else Concurrency(limits.concurrency)
        self._factor = RETRY_AFTER_FACTORS.get(limits.headers, 1.0)
        self._has_headers = has_headers and limits.headers == "honest"
        self._silent = limits.headers in SILENT_STYLES
        self.refusal_status = limits.refusal_status

    def decide(self, now_s: float, size: CallSize) -> Answer:
        """Accept a request of a call, or refuse it. Times must not decrease."""
        if self._slots is not None and self._slots.in_use >= self._slots.limit:
            return Answer(Decision.REFUSED_BY_CONCURRENCY, announced_s=self.announced_s(CONCURRENCY_RETRY_S))
        delay_s, decisions = 0.0, list[Admission]()
        if self._single is not None and not self._has_headers:
            cost = size.cost(self._names[0])
            if not self._single.take(now_s, cost):
                wait_s = self._single.wait_s(now_s, cost)
                return Answer(_refused_by(self._names[0]), announced_s=self.announced_s(wait_s))
            delay_s = self._single.delay_s(now_s)
        elif self._all is not None and not self._has_headers:
            waits_s = self._all.take_each(now_s, [size.cost(name) for name in self._names])
            refused = [
                (wait_s, name)
                for wait_s, name in zip(waits_s, self._names, strict=True)
                if wait_s is not None
            ]
            if refused:
                wait_s, name = max(refused)
                return Answer(_refused_by(name), announced_s=self.announced_s(wait_s))
            delay_s = self._all.delay_s(now_s)
        elif self._all is not None:
            decisions = self._all.decide_each(now_s, [size.cost(name) for name in self._names])
            refused = [
                (decision.retry_after_s or 0.0, name)
                for name, decision in zip(self._names, decisions, strict=True)
                if not decision.accepted
            ]
            if refused:
                wait_s, name = max(refused)
                return Answer(_refused_by(name), announced_s=self.announced_s(wait_s), decisions=decisions)
            delay_s = max(decision.delay_s for decision in decisions)
        if self._slots is not None:
            self._slots.acquire()
        return Answer(Decision.ACCEPTED, delay_s=delay_s, decisions=decisions)

    def headers_of(self, answer: Answer, decided_s: float) -> list[AnnouncedLimit]:
        """Return what the headers of a response announce: like the sandbox, only the limit on requests.

        Nothing if the limits' headers are not accurate. The reset is in whole seconds; ``decided_s`` is the
        time of the decision.
        """
        if not self._has_headers or not answer.decisions or self._names[0] != "requests":
            return []
        decision = answer.decisions[0]
        reset_s = ceil(decided_s + decision.reset_s) - decided_s
        return [AnnouncedLimit(False, decision.limit, floor(decision.remaining), reset_s)]

    @property
    def request_limit(self) -> tuple[bool, Model | None]:
        """Whether there is no limit but on requests, and that limit."""
        return self._slots is None and self._names in {(), ("requests",)}, self._single

    def release(self) -> None:
        """Release the slot of an accepted request."""
        if self._slots is not None:
            self._slots.release()

    def announced_s(self, wait_s: float) -> float | None:
        """Return Retry-After in whole seconds, at least 1; None if the request never fits."""
        if self._silent or wait_s == inf:
            return None
        whole_s = ceil(wait_s) or 1
        return float(int(whole_s * self._factor))


def _refused_by(what: What) -> Decision:
    return Decision.REFUSED_BY_REQUESTS if what == "requests" else Decision.REFUSED_BY_TOKENS


def windows_start_s(limits: SandboxLimits, seed: int) -> float:
    """Return the server's time when the load begins, in seconds: somewhere in the longest period."""
    periods_s = [limit.period_s for top in limits.per_period.values() for limit in top.chain()]
    return Random(f"{seed}/phase").uniform(0, max(periods_s, default=0.0))
