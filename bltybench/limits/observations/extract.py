"""From the attempts of a run to observations of its request limit."""

from collections.abc import Sequence

from bltybench.limits.observations.announcement import Announcement
from bltybench.limits.observations.classify import classify, refusal_statuses
from bltybench.limits.observations.observation import Observation, with_decision_slack
from bltybench.runs.attempt import Attempt

NS = 1e9


def observations_of(attempts: Sequence[Attempt], start_s: float = 0.0) -> list[Observation]:
    """Return what attempts show of the request limit; ``start_s`` is the run's start in Unix time."""
    return [observation for _, observation in observed(attempts, start_s)]


def observed(attempts: Sequence[Attempt], start_s: float = 0.0) -> list[tuple[Attempt, Observation]]:
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
    return list(zip(shown, with_decision_slack(observations), strict=True))


def answered_ns(attempt: Attempt) -> int:
    """Return when the head of the response came, or when the attempt ended without one."""
    return attempt.end_ns if attempt.headers_ns is None else attempt.headers_ns
