"""From the attempts of a run to observations of its request limit."""

from collections.abc import Sequence

from bltybench.limits.observations.classify import classify, refusal_status
from bltybench.limits.observations.observation import Observation, decision_slack_s
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
    status = refusal_status(attempts)
    decided = [(attempt, classify(attempt, status)) for attempt in attempts]
    slack_s = decision_slack_s(
        (answered_ns(attempt) - attempt.sent_ns) / NS
        for attempt, decision in decided
        if attempt.sent_ns is not None and decision.by_request_limit is False
    )
    pairs: list[tuple[Attempt, Observation]] = []
    for attempt, decision in decided:
        accepted = decision.by_request_limit
        if attempt.sent_ns is None or (accepted is None and not decision.unanswered):
            continue
        sent_s = attempt.sent_ns / NS
        answered_s = decided_s = answered_ns(attempt) / NS
        if accepted:
            # It is decided on admission, but a plain response's headers come only when all of it is ready.
            decided_s = min(decided_s, sent_s + slack_s)
        observation = Observation(start_s + sent_s, start_s + decided_s, accepted, start_s + answered_s)
        pairs.append((attempt, observation))
    return pairs


def answered_ns(attempt: Attempt) -> int:
    """Return when the head of the response came, or when the attempt ended without one."""
    return attempt.end_ns if attempt.headers_ns is None else attempt.headers_ns
