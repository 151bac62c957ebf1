"""A limiter in virtual time, with the troubles of a network, played against a plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bltybench.limits.fit.select import Verdict
from bltybench.limits.models.base import Limiter
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.planner import Burst, ProbePlan


@dataclass(frozen=True, slots=True)
class Noise:
    """What lies between the probe and the limiter."""

    latency_s: float = 0.02
    """Median time of an answer."""
    jitter: float = 0.2
    """Standard deviation of the latency's logarithm."""
    clock_offset_s: float = 0.0
    """The server's clock less ours."""
    lost: float = 0.0
    """Share of answers that never arrive."""


class World:
    """Answers bursts as a server with this limiter would."""

    def __init__(self, model: Limiter, noise: Noise, seed: int) -> None:
        self._model = model
        self._noise = noise
        self._rng = random.Random(seed)
        self._decided_s = 0.0
        self._began_s: float | None = None
        self.ended_s = 0.0
        """When the last request was sent, Unix time."""

    @property
    def busy_s(self) -> float:
        """Return the time from the first request to the last."""
        return 0.0 if self._began_s is None else self.ended_s - self._began_s

    def play(self, plan: ProbePlan[Verdict]) -> Verdict:
        """Run a plan to its end."""
        try:
            burst = next(plan)
            while True:
                burst = plan.send(self.answer(burst))
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict

    def answer(self, burst: Burst) -> Sequence[Observation]:
        """Return what is seen of a burst."""
        seen: list[Observation] = []
        free = [burst.at_s] * burst.max_in_flight
        refused_s = float("inf")
        while len(seen) < burst.max_requests and (at_s := min(free)) < refused_s:
            sight = self._one(at_s)
            seen.append(sight)
            free[free.index(at_s)] = sight.answered_s or sight.decided_s
            if sight.accepted is False:
                refused_s = min(refused_s, sight.decided_s)
        if burst.confirm_s is not None and refused_s < float("inf"):
            seen.append(self._one(max(free) + burst.confirm_s))
        return seen

    def _one(self, at_s: float) -> Observation:
        noise = self._noise
        self._began_s = at_s if self._began_s is None else self._began_s
        self.ended_s = at_s
        latency_s = noise.latency_s * self._rng.lognormvariate(0, noise.jitter)
        self._decided_s = max(self._decided_s, at_s + latency_s * self._rng.uniform(0.2, 0.8))
        decision = self._model.decide(self._decided_s + noise.clock_offset_s)
        lost = self._rng.random() < noise.lost
        answered_s = at_s + latency_s + decision.delay_s
        return Observation(at_s, at_s + latency_s, None if lost else decision.accepted, answered_s)
