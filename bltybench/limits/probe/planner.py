"""State of a probe plan: the remaining budget, the observations so far, and their fit."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.fit.thresholds import QUEUEING
from bltybench.limits.observations.observation import Observation, with_decision_slack
from bltybench.limits.observations.waits import waits_of
from bltybench.limits.pairs.select import fit_limits
from bltybench.limits.probe.thresholds import PLAN

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Burst:
    """Requests to send from ``at_s`` until the first refusal, and then one more after ``confirm_s``."""

    at_s: float
    """Unix time. A time in the past means now."""
    max_requests: int
    max_in_flight: int = 1
    confirm_s: float | None = None
    purpose: str = ""
    """Progress message."""


ProbePlan = Generator[Burst, Sequence[Observation], T]
"""A generator that yields bursts, receives the observations of each, and returns ``T``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Budget and prior knowledge of a plan."""

    budget: int = 600
    """Maximum requests."""
    quick: bool = False
    """Whether to measure limit, period, and class of algorithm only, in two periods."""
    period_s: float | None = None
    """Documented or announced period, in seconds."""
    limit: int | None = None
    """Documented or announced requests per period."""
    max_wait_s: float = 300.0
    """Maximum wait for refusals to end. Longer limits need ``period_s``."""
    max_in_flight: int | None = None
    """Maximum requests in flight, so that a limit on them is never reached."""
    first_wait_s: float = 0.0
    """First wait after a refusal, in seconds. 0 means as short as the latency allows."""
    rounds: int = 3
    earlier: tuple[Observation, ...] = ()
    """Observations of an interrupted probe of the same limit."""

    def documented_fit(self, verdict: Verdict) -> Fit | None:
        """Return the best candidate with the documented limit and period; of a bucket, with that rate."""
        if self.limit is None or self.period_s is None:
            return None
        documented_per_min = 60 * self.limit / self.period_s
        return next(
            (
                fit
                for fit in verdict.consistent
                if (fit.limit == self.limit or fit.traits.kind == "bucket")
                and abs(fit.rate_per_min / documented_per_min - 1) <= PLAN.max_documented_error
            ),
            None,
        )

    @property
    def max_requests(self) -> int:
        """Maximum requests that the plan sends."""
        return min(self.budget, PLAN.quick_budget) if self.quick else self.budget


class Planner:
    """Mutable state shared by the phases of one plan."""

    def __init__(self, options: PlanOptions, now_s: float) -> None:
        self.options = options
        self.observations: list[Observation] = list(options.earlier)
        self.now_s = now_s
        self.left = options.max_requests
        """Requests left in the budget."""
        self.max_in_flight = 1

    def send(
        self, at_s: float, max_requests: int, purpose: str, *, confirm_s: float | None = None
    ) -> ProbePlan[Sequence[Observation]]:
        """Send a burst within the budget and return its observations."""
        max_requests = min(max_requests, self.left - (confirm_s is not None))
        if max_requests <= 0:
            return ()
        got = yield Burst(max(at_s, self.now_s), max_requests, self.max_in_flight, confirm_s, purpose)
        self.observations = with_decision_slack([*self.observations, *got])
        self.left -= len(got)
        self.now_s = max([self.now_s, *(one.answered_s or one.decided_s for one in got)])
        return got

    @property
    def was_refused(self) -> bool:
        """Whether any request was refused."""
        return any(observation.accepted is False for observation in self.observations)

    @property
    def waited(self) -> bool:
        """Whether the server delayed accepted requests."""
        return waits_of(self.observations) is not None

    def looks_queued(self) -> bool:
        """Return whether nothing was refused and the last responses look queued.

        Queued responses all take much longer than the quickest one, and about equally long; those of a busy
        server vary. If the very first response was lost, none may have been quick.
        """
        if any(one.accepted is False for one in self.observations):
            return False
        took = [one.answered_s - one.sent_s for one in self.observations if one.accepted and one.answered_s]
        if len(took) <= QUEUEING.min_waiting:
            return False
        low, middle, high = np.percentile(took[-QUEUEING.min_waiting :], [25, 50, 75])
        slow = self.observations[0].accepted is None or middle > QUEUEING.waiting_ratio * min(took)
        return bool(slow and high - low < QUEUEING.max_irregularity * middle)

    def latency_s(self) -> float:
        """Return the median response time."""
        return float(np.median([one.decided_s - one.sent_s for one in self.observations]))

    def verdict(self, among: Sequence[Fit] | None = None) -> Verdict:
        """Return the fit of all observations, or only that of the families in ``among``, which is faster.

        Two limits are always searched among all families.
        """
        families = None
        if among is not None and not any(one.also for one in among):
            families = tuple((one.family, bool(one.count_refused)) for one in among)
        hints_s = (self.options.period_s,) if self.options.period_s else ()
        return fit_limits(self.observations, hints_s=hints_s, candidates=families)
