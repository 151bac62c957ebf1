"""From the attempts of a run to observations of its request limit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bltybench.limits.observations.announcement import Announcement
from bltybench.limits.observations.classify import classify, refusal_statuses
from bltybench.limits.observations.observation import Observation, with_decision_slack
from bltybench.limits.observations.thresholds import OBSERVATIONS
from bltybench.runs.attempt import Attempt

NS = 1e9


@dataclass(frozen=True, slots=True)
class Timing:
    """How exactly the times of attempts are known. Those of a run are; those of a log may not be."""

    clock_s: float = 0.0
    """Time by which an event can be later than recorded, in seconds."""
    retries_inside: bool = False
    """Whether an attempt can stand for several, so that its last decision can come at any time in it."""
    headers: bool = True
    """Whether responses are recorded with their headers, so that a missing one was missing."""
    unclear: str | None = None
    """Why no limiter can be inferred, whatever fits; None if one can."""

    @property
    def coarse(self) -> bool:
        """Whether the order of requests is too uncertain for headers and numbers in flight."""
        return self.retries_inside or self.clock_s > OBSERVATIONS.max_clock_s


EXACT = Timing()


def observations_of(
    attempts: Sequence[Attempt], start_s: float = 0.0, timing: Timing = EXACT
) -> list[Observation]:
    """Return what attempts show of the request limit; ``start_s`` is the run's start in Unix time."""
    return [observation for _, observation in observed(attempts, start_s, timing)]


def observed(
    attempts: Sequence[Attempt], start_s: float = 0.0, timing: Timing = EXACT
) -> list[tuple[Attempt, Observation]]:
    """Return the attempts that show something of the request limit, each with its observation.

    Left out are those that were never sent, client errors, and what another limit, an unpaid bill, or
    overload refused.
    """
    statuses = refusal_statuses(attempts)
    shown: list[Attempt] = []
    observations: list[Observation] = []
    for attempt in attempts:
        decision = classify(attempt, statuses)
        accepted = decision.by_request_limit
        if attempt.sent_ns is None or (accepted is None and not decision.unanswered):
            continue
        sent_s, answered_s = (start_s + at_ns / NS for at_ns in (attempt.sent_ns, answered_ns(attempt)))
        shown.append(attempt)
        announced = Announcement(
            attempt.limit_requests,
            attempt.remaining_requests,
            attempt.reset_requests_s,
            attempt.window_requests_s,
        )
        observations.append(Observation(sent_s, answered_s, accepted, answered_s, announced=announced))
    if not timing.retries_inside:
        observations = with_decision_slack(observations)
    if timing.clock_s:
        observations = [replace(one, decided_s=one.decided_s + timing.clock_s) for one in observations]
    return list(zip(shown, observations, strict=True))


def answered_ns(attempt: Attempt) -> int:
    """Return when the head of the response came, or when the attempt ended without one."""
    return attempt.end_ns if attempt.headers_ns is None else attempt.headers_ns
