"""A limiter behind a simulated network, in virtual time, that answers the bursts of a plan."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bltybench.limits.fit.result import Verdict
from bltybench.limits.models.base import Admission, Limiter
from bltybench.limits.observations.announcement import Announcement
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.planner import Burst, ProbePlan


@dataclass(frozen=True, slots=True)
class NetworkNoise:
    """The network between the probe and the limiter."""

    latency_s: float = 0.02
    """Median response time, in seconds."""
    jitter: float = 0.2
    """Standard deviation of the latency's logarithm."""
    clock_offset_s: float = 0.0
    """Server clock minus client clock, in seconds."""
    lost: float = 0.0
    """Fraction of responses that never arrive."""


class VirtualLimiter:
    """A server with this limiter, whose headers are what ``announce`` returns."""

    def __init__(
        self,
        model: Limiter,
        noise: NetworkNoise,
        seed: int,
        announce: Callable[[Admission], Announcement] | None = None,
    ) -> None:
        self._model = model
        self._noise = noise
        self._rng = random.Random(seed)
        self._announce = announce
        self.observations: list[Observation] = []
        self._decided_s = 0.0
        self._began_s: float | None = None
        self.ended_s = 0.0
        """Time of the last request, in Unix time."""

    @property
    def busy_s(self) -> float:
        """Time from the first request to the last, in seconds."""
        return 0.0 if self._began_s is None else self.ended_s - self._began_s

    def play(self, plan: ProbePlan[Verdict]) -> Verdict:
        """Run a plan to its end and return its verdict."""
        try:
            burst = next(plan)
            while True:
                burst = plan.send(self.answer(burst))
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict

    def answer(self, burst: Burst) -> Sequence[Observation]:
        """Return the observations of a burst."""
        observations: list[Observation] = []
        free_s = [burst.at_s] * burst.max_in_flight
        refused_s = float("inf")
        while len(observations) < burst.max_requests and (at_s := min(free_s)) < refused_s:
            observation = self._send(at_s)
            observations.append(observation)
            free_s[free_s.index(at_s)] = observation.answered_s or observation.decided_s
            if observation.accepted is False:
                refused_s = min(refused_s, observation.decided_s)
        if burst.confirm_s is not None and refused_s < float("inf"):
            observations.append(self._send(max(free_s) + burst.confirm_s))
        self.observations += observations
        return observations

    def _send(self, at_s: float) -> Observation:
        noise = self._noise
        self._began_s = at_s if self._began_s is None else self._began_s
        self.ended_s = at_s
        latency_s = noise.latency_s * self._rng.lognormvariate(0, noise.jitter)
        self._decided_s = max(self._decided_s, at_s + latency_s * self._rng.uniform(0.2, 0.8))
        # A request that is decided late, because it arrived behind a slower one, is answered late too.
        latency_s = max(latency_s, self._decided_s - at_s + 0.2 * latency_s)
        admission = self._model.decide(self._decided_s + noise.clock_offset_s)
        lost = self._rng.random() < noise.lost
        answered_s = at_s + latency_s + admission.delay_s
        accepted = None if lost else admission.accepted
        announced = None if lost or self._announce is None else self._announce(admission)
        return Observation(at_s, at_s + latency_s, accepted, answered_s, announced=announced)
