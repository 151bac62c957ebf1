"""How the calls of one process are retried and paced: the policies of the simulator, in real time."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import inf
from pathlib import Path
from random import Random
from typing import NamedTuple

import gevent
from gevent.event import Event

from bltybench.errors import UserError
from bltybench.limits.observations.classify import REFUSALS, classify_response
from bltybench.policies.advice.known_limits import limits_of
from bltybench.policies.pacing.pacer import AnnouncedLimit, Pacer, SentRequest, Share
from bltybench.policies.pacing.pacers import pacer_of
from bltybench.policies.retries import Retries
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.routes import Route
from bltybench.scenario.file.scenario_file import load_limits
from bltybench.scenario.pacing import NEED_LIMITS, Pacing
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import SandboxLimits, Target
from bltybench.scenario.workload import Scenario
from bltybench.wire.ratelimit_headers import Quota
from bltybench.wire.result import ExchangeResult

MAX_RESET_S = 86_400.0
"""Latest announced reset that paces, in seconds: documented limits are per day at most."""


class Passed(NamedTuple):
    """A request that its gate let pass."""

    held: bool
    """Whether the gate held it, or it became due while the gate held one before it."""
    answered: Callable[[ExchangeResult, float], None]
    """Counts the end of its response, whose headers arrived at a time, in seconds on the run's axis."""


class Gate:
    """Holds the requests that share limits until the pacer sends them, in the order in which they come."""

    def __init__(self, pacer: Pacer, now_s: Callable[[], float], rng: Random, begin_s: float = 0.0) -> None:
        """The pacer's time begins at ``begin_s`` on the axis of ``now_s``."""
        self._pacer = pacer
        self._clock_s, self._begin_s = now_s, begin_s
        self._rng = rng
        self._queue: deque[Event] = deque()
        """A turn for each request that has not passed. The first one has its turn."""
        self._answered = Event()
        self._cut_off = False
        self._released_s = 0.0
        """Time at which the last request that was held passed."""

    def _now_s(self) -> float:
        return self._clock_s() - self._begin_s

    @property
    def holding(self) -> bool:
        """Whether the gate holds a request, or held one when the run ended."""
        return bool(self._queue) or self._cut_off

    def hold(self, size: CallSize, due_s: float, ended: Event) -> Passed | None:
        """Wait until a request may be sent, and count it. Return None if ``ended`` is set before."""
        turn = Event()
        self._queue.append(turn)
        passed = False
        try:
            waited = self._queue[0] is not turn
            if waited:
                turn.wait()
            while (wait_s := self._pacer.wait_s(now_s := self._now_s(), size, self._rng)) > 0:
                waited = True
                self._answered.clear()
                by_answer = wait_s == inf or self._pacer.reads_headers
                gevent.wait(
                    [ended, self._answered] if by_answer else [ended],
                    timeout=None if wait_s == inf else wait_s + self._pacer.margin_s,
                    count=1,
                )
                if ended.is_set():
                    return None
            passed = True
            self._pacer.send(now_s, size)
            waited = waited or due_s - self._begin_s < self._released_s
            if waited:
                self._released_s = now_s
            return Passed(waited, partial(self._answer, SentRequest(now_s, size)))
        finally:
            self._cut_off = self._cut_off or not passed
            self._queue.remove(turn)
            if self._queue:
                self._queue[0].set()

    def _answer(self, sent: SentRequest, result: ExchangeResult, headers_s: float) -> None:
        refused, now_s = classify_response(result) in REFUSALS, self._now_s()
        if self._pacer.reads_headers:
            self._pacer.hear(sent, now_s, _announced(result.quota, headers_s - self._begin_s - sent.at_s))
        self._pacer.answer(sent, now_s, result.quota.retry_after_s, refused=refused)
        self._answered.set()


def _announced(quota: Quota, took_s: float) -> Iterator[AnnouncedLimit]:
    """Yield the limits that headers announce completely, if they arrive ``took_s`` after the request.

    A limit whose reset is too far away is ignored: no request would be sent until the run ends.
    """
    for counts_tokens, limit, remaining, reset_s in (
        (False, quota.limit_requests, quota.remaining_requests, quota.reset_requests_s),
        (True, quota.limit_tokens, quota.remaining_tokens, quota.reset_tokens_s),
    ):
        if limit is None or remaining is None or reset_s is None:
            continue
        if reset_s <= MAX_RESET_S:
            yield AnnouncedLimit(counts_tokens, limit, remaining, took_s + reset_s)


class ClientPolicy:
    """The retries and the pacing of one process, which is one client of those that share the limits."""

    retries: Retries
    rng: Random
    begin_s: float
    """Time at which the current policy began, in seconds on the run's axis."""

    def __init__(
        self,
        scenario: Scenario,
        limits: Mapping[str, SandboxLimits],
        share: Share,
        *,
        now_s: Callable[[], float],
        start_s: Callable[[], float],
    ) -> None:
        """``now_s`` returns the time since the load began, ``start_s`` the Unix time of its beginning."""
        self._seed, self._limits, self._share = scenario.seed, limits, share
        self._now_s, self._start_s = now_s, start_s
        self.use(scenario.retry, scenario.pacing, begin_s=0.0)

    def use(self, retry: Retry, pacing: Pacing, *, begin_s: float) -> None:
        """Begin a new policy for the calls from ``begin_s`` on."""
        self.retries = Retries(retry)
        self.rng = Random(f"{self._seed}/retry/{self._share.client}")
        self.begin_s, self._pacing = begin_s, pacing.policy
        self._gates: dict[tuple[str | None, ...], Gate] = {}

    @property
    def holding(self) -> bool:
        """Whether pacing holds a request, or held one when the run ended."""
        return any(gate.holding for gate in self._gates.values())

    def gate(self, route: Route) -> Gate | None:
        """Return the gate of what has limits of its own on a route; None without pacing."""
        if self._pacing == "none":
            return None
        limits = self._limits[route.target]
        names = {"key": route.key, "model": route.model}
        place = (route.target, *(names[scope] for scope in limits.per))
        gate = self._gates.get(place)
        if gate is None:
            pacer = pacer_of(self._pacing, limits, self._share, self._start_s() + self.begin_s)
            gate = self._gates[place] = Gate(pacer, self._now_s, self.rng, self.begin_s)
        return gate


def limits_to_keep(
    scenario: Scenario, targets: Mapping[str, Target], base_dir: Path
) -> dict[str, SandboxLimits]:
    """Return the limits that pacing keeps at each target. Raise UserError if it needs them and has none."""
    file = scenario.limits_file
    given = None if file is None else load_limits(base_dir / file)
    kept = {name: given or limits_of(target) for name, target in targets.items()}
    needing = sorted(NEED_LIMITS & scenario.pacings)
    for name, limits in kept.items():
        known = limits.per_period or limits.concurrency
        if needing and not known and targets[name].sandbox is None:
            raise UserError(
                f"pacing by '{needing[0]}' needs the limits of target '{name}', which has none",
                remedy=f"measure them with `locust -f locustfiles/limits.py --target {name}` and name its "
                f"limits.toml as `limits`, or add the documented ones to [targets.{name}.limits]",
            )
    return kept
