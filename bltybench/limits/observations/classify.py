"""The decision about an attempt: accepted, refused (and by which limit), unrelated to limits, or unknown.

The first row that matches decides. "Names" are the type and the code of the error. An outcome of
``rate_limited`` means a 429, or a 403 or 5xx that says that it is a refusal (``wire.outcome``).

| Outcome, status | Type, code, message | Position | Decision |
|---|---|---|---|
| never sent | any | no response | not sent |
| ok | any | whole response | accepted |
| cancelled, no status | any | no response | cancelled |
| any other, no status | any | no response | lost |
| cancelled, 2xx | any | after the head | accepted |
| timeout or transport error, 2xx | any | in the body or in the stream | broken |
| cancelled or timeout, not 2xx | any | head without a whole body | cancelled or lost |
| 402, or any other | says that a bill is unpaid (a 402 need not) | error response, or in a 2xx | billing |
| 2xx, 429, or 5xx | names say "slow_down" | error response, or in a 2xx | slow down |
| 2xx, 429, or 5xx | says "overload" or "busy" (a 529 need not) | error response, or in a 2xx | overload |
| rate_limited | see the next table | error response, or in a 2xx | refused |
| any other, 2xx | names say "rate limit" or 429 | in the body or in the stream | refused |
| any other, 2xx | any | in the body or in the stream | broken |
| any, 5xx | names or message: a rate limit refused, or 429 | error response | refused |
| 503 | "overload" or "capacity" | error response | overload |
| 403 | "overload" or "capacity", or names say "permission" or "access" | error response | client error |
| 403 or 503, if it is a refusal status of the run | see the next table | error response | refused |
| below 500 | any | error response | client error |
| 5xx | any | error response | server error |

A gateway that answers with a 500 or 502 because its upstream refused has been limited as if it refused
itself: waiting helps, and a limit explains when. The words for unpaid bills, overload, and rate limits are in
``runs.error_words``. If the names are about a limit, a message that mentions overload does not make it
overload. The names and a limit type that the message states ("Limit type: tokens"), and then the message,
tell which limit refused (a daily cap: both together). A message that mentions all limits tells nothing:

| Text | Limit |
|---|---|
| "per day", "daily", "rpd", or "tpd", and no limit per minute | daily cap |
| "concurren", "parallel", "simultaneous", "in flight" | concurrency |
| "token", "tpm", "allocation quota" | tokens |
| "requests per", "request limit", "rate quota", "rpm", or "requests" as a name or the limit type | requests |
| anything else | unknown |

Any other error after a 2xx head does not undo the acceptance: limiters decide before they answer.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Protocol

from bltybench.limits.observations.thresholds import OBSERVATIONS
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.error_words import (
    ALLOCATED_QUOTA,
    ErrorReason,
    names_of,
    reason_of,
    says_rate_limit,
    wraps_refusal,
)

STAND_INS = (503, 403)
"""Statuses that some limiters refuse with instead of a 429."""
PERMISSION = ("permission", "access")
"""In the type or the code of a 403: the caller may never do this."""
BUSY = ("overload", "capacity")
"""In any text of a 503 or 403 that is no refusal: the server is busy."""
REQUESTS = "requests"
"""As the whole type or code: the request limit refused."""


class Decision(StrEnum):
    """The decision about an attempt."""

    ACCEPTED = "accepted"
    BROKEN = "broken"
    """Accepted, but the response was damaged or broke off."""
    REFUSED_BY_REQUESTS = "refused by requests"
    REFUSED_BY_TOKENS = "refused by tokens"
    REFUSED_BY_CONCURRENCY = "refused by concurrency"
    REFUSED_BY_DAILY_CAP = "refused by daily cap"
    REFUSED = "refused"
    """By a limit that the refusal does not name."""
    OVERLOAD = "overload"
    SLOW_DOWN = "slow down"
    """Traffic grew too fast, whatever the limits are."""
    BILLING = "billing"
    CLIENT_ERROR = "client error"
    SERVER_ERROR = "server error"
    LOST = "lost"
    """Sent, but the response did not come, or only the head of an error did."""
    CANCELLED = "cancelled"
    """The same, because the client cancelled the request."""
    NOT_SENT = "not sent"

    @property
    def refused(self) -> bool:
        """Whether a limit refused it."""
        return self in REFUSALS

    @property
    def accepted(self) -> bool | None:
        """True if it was accepted, False if a limit refused it, None if neither or unknown."""
        return True if self in ACCEPTANCES else False if self in REFUSALS else None

    @property
    def unanswered(self) -> bool:
        """Whether it was sent and may have been accepted or refused.

        A server can fail before or after its limiter decides, so a server error may have been accepted.
        """
        return self in {Decision.LOST, Decision.CANCELLED, Decision.SERVER_ERROR}

    @property
    def by_request_limit(self) -> bool | None:
        """Whether the request limit accepted it; None if that is unknown.

        A refusal that names no limit counts as one by the request limit.
        """
        return False if self in REQUEST_REFUSALS else True if self in ACCEPTANCES else None

    @property
    def by_concurrency_limit(self) -> bool | None:
        """The same for a limit on the requests in flight."""
        return False if self is Decision.REFUSED_BY_CONCURRENCY else self.by_request_limit


ACCEPTANCES = frozenset({Decision.ACCEPTED, Decision.BROKEN})
REQUEST_REFUSALS = frozenset({Decision.REFUSED_BY_REQUESTS, Decision.REFUSED})
REFUSALS = REQUEST_REFUSALS | {
    Decision.REFUSED_BY_TOKENS,
    Decision.REFUSED_BY_CONCURRENCY,
    Decision.REFUSED_BY_DAILY_CAP,
}

LIMITS = (
    (re.compile("concurren|parallel|simultaneous|in.flight"), Decision.REFUSED_BY_CONCURRENCY),
    (re.compile(f"token|\\btpm\\b|{ALLOCATED_QUOTA.pattern}"), Decision.REFUSED_BY_TOKENS),
    (
        re.compile("requests.?per|requests?.(rate.)?limit|limit_requests|rate_?quota|\\brpm\\b"),
        Decision.REFUSED_BY_REQUESTS,
    ),
)
"""What a refusal says about the limit. The first that matches counts, in the names before the message."""
LIMIT_TYPE = re.compile(r"limit[ _]?type\W{1,4}(\w+)")
"""In a message: which limit refused, whatever else the message mentions."""
DAILY = re.compile(r"(?:per|a|/).?day|daily|\b[rt]pd\b|24.?h")
PER_MINUTE = re.compile(r"per.?min|\b[rt]pm\b")
LIMIT_NAMES = {
    Decision.REFUSED_BY_REQUESTS: "requests",
    Decision.REFUSED_BY_TOKENS: "tokens",
    Decision.REFUSED_BY_CONCURRENCY: "concurrency",
    Decision.REFUSED_BY_DAILY_CAP: "daily cap",
    Decision.REFUSED: "unnamed",
}
"""Which limit refused, for each refusal."""
REASONS = {
    ErrorReason.UNPAID: Decision.BILLING,
    ErrorReason.OVERLOAD: Decision.OVERLOAD,
    ErrorReason.SLOW_DOWN: Decision.SLOW_DOWN,
}


class _Response(Protocol):
    """The fields of an attempt, or of a result that is not recorded yet, that decide."""

    @property
    def outcome(self) -> Outcome: ...
    @property
    def status(self) -> int | None: ...
    @property
    def error_type(self) -> str | None: ...
    @property
    def error_code(self) -> str | None: ...
    @property
    def error_message(self) -> str | None: ...


def classify(attempt: Attempt, refusal_statuses: Collection[int] = ()) -> Decision:
    """Return the decision about an attempt; ``refusal_statuses`` are those of its run, if known."""
    if attempt.sent_ns is None and attempt.status is None:
        return Decision.NOT_SENT
    return classify_response(attempt, refusal_statuses)


def classify_response(response: _Response, refusal_statuses: Collection[int] = ()) -> Decision:
    """Return the decision about a request that was sent."""
    outcome, status = response.outcome, response.status
    if outcome is Outcome.OK:
        return Decision.ACCEPTED
    success = status is not None and 200 <= status < 300
    if success and outcome is Outcome.CANCELLED:
        return Decision.ACCEPTED
    if success and outcome in {Outcome.TIMEOUT, Outcome.TRANSPORT_ERROR}:
        return Decision.BROKEN
    if outcome is Outcome.CANCELLED:
        return Decision.CANCELLED
    if status is None or outcome is Outcome.TIMEOUT:
        # Without its body, a 429 can be a refusal, an unpaid bill, or overload.
        return Decision.LOST
    return _classify_error(response, status, refusal_statuses)


def _classify_error(response: _Response, status: int, refusal_statuses: Collection[int]) -> Decision:
    names, message = names_of(response.error_type, response.error_code), response.error_message
    if (reason := reason_of(status, names, message)) is not None:
        return REASONS[reason]
    explicit = response.outcome is Outcome.RATE_LIMITED
    success = 200 <= status < 300
    if success and not explicit and not says_rate_limit(names, None):
        return Decision.BROKEN
    explicit = explicit or success or wraps_refusal(status, names, message)
    if explicit or (status in refusal_statuses and _stands_in(status, names, message)):
        return _refusal(names, message)
    if status < 500:
        return Decision.CLIENT_ERROR
    return Decision.OVERLOAD if status == 503 and _says_any(BUSY, names, message) else Decision.SERVER_ERROR


def refusal_statuses(attempts: Sequence[Attempt]) -> dict[int, int]:
    """Return the statuses with which limits refused requests, the most frequent first, with counts.

    A 503 or 403 stands in for a 429 if nothing says that it is something else, and some requests succeeded.
    If others are explicit refusals, or there are both, it must also come while requests are refused anyway,
    such as a ban after some 429s.
    """
    counts = Counter(one.status for one in attempts if one.status is not None and classify(one).refused)
    standing_in = Counter(
        one.status
        for one in attempts
        if one.status in STAND_INS and not classify(one).refused and classify(one, STAND_INS).refused
    )
    if standing_in and any(one.outcome is Outcome.OK for one in attempts):
        if not counts:
            (status, count), *_ = standing_in.most_common(1)
            counts[status] = count
        for status in standing_in.keys() - counts.keys():
            if _continues_refusals(attempts, status, counts.keys()):
                counts[status] = standing_in[status]
    return dict(counts.most_common())


def refused_by(attempts: Sequence[Attempt], statuses: Collection[int]) -> dict[Decision, int]:
    """Return the number of refusals by each limit, the most frequent first."""
    decisions = (classify(one, statuses) for one in attempts)
    return dict(Counter(one for one in decisions if one.refused).most_common())


def _continues_refusals(attempts: Sequence[Attempt], status: int, others: Collection[int]) -> bool:
    """Return whether responses with a status nearly always follow a refusal."""
    follows: list[bool] = []
    refused = False
    for one in sorted(attempts, key=lambda one: one.sent_ns or 0):
        decision = classify(one, (*others, status))
        if decision.accepted is None:
            continue
        if one.status == status and decision.refused and not classify(one).refused:
            follows.append(refused)
        refused = decision.refused
    enough = len(follows) >= OBSERVATIONS.min_continuing
    return enough and sum(follows) >= OBSERVATIONS.min_continuing_fraction * len(follows)


def _stands_in(status: int, names: str, message: str | None) -> bool:
    """Return whether a status can stand in for a 429: nothing says that it means something else."""
    permission = status == 403 and _says_any(PERMISSION, names, None)
    return status in STAND_INS and not permission and not _says_any(BUSY, names, message)


def _says_any(words: Sequence[str], names: str, message: str | None) -> bool:
    text = f"{names} {message or ''}".lower()
    return any(word in text for word in words)


def _refusal(names: str, message: str | None) -> Decision:
    message = (message or "").lower()
    both = f"{names} {message}"
    if DAILY.search(both) and not PER_MINUTE.search(both):
        return Decision.REFUSED_BY_DAILY_CAP
    names = " ".join([names, *LIMIT_TYPE.findall(message)])
    named = [decision for pattern, decision in LIMITS if pattern.search(names)]
    if not named and REQUESTS in names.split():
        return Decision.REFUSED_BY_REQUESTS
    mentioned = [decision for pattern, decision in LIMITS if pattern.search(message)]
    if not named and len(mentioned) == len(LIMITS):
        return Decision.REFUSED
    return next(iter([*named, *mentioned]), Decision.REFUSED)
