"""Pacing by the limits that responses announce: a token bucket for each, of requests and of tokens."""

from collections.abc import Iterable, Sequence
from math import inf
from random import Random
from typing import NamedTuple

from bltybench.policies.pacing.pacer import MAX_HOLD_S, AnnouncedLimit, Pacer, SentRequest
from bltybench.scenario.api.call_size import CallSize

OVERTAKE_S = 0.05
"""Time within which requests can reach the server in another order, in seconds."""
SAME_RESET_S = 0.1
"""Largest difference of two announced resets that are the same one, in seconds."""


class _Heard(NamedTuple):
    """What the response to the latest request announced."""

    at_s: float
    """Time at which the request was sent."""
    answered_s: float
    limits: Sequence[AnnouncedLimit]

    def is_after(self, other: "_Heard") -> bool:
        """Return whether the server decided later than on another request.

        Requests in flight at the same time can reach it in any order. The later one finds a later reset, or
        less remaining until the same one.
        """
        if self.at_s >= other.answered_s:
            return True
        first, others_first = self.limits[0], other.limits[0]
        later_s = self.at_s + first.reset_s - (other.at_s + others_first.reset_s)
        return later_s > SAME_RESET_S or (
            later_s >= -SAME_RESET_S and first.remaining <= others_first.remaining
        )


class HeaderPacer(Pacer):
    """Sends while every announced limit has enough remaining.

    What is used refills evenly until the announced reset: exact for a token bucket, too soon for a window. So
    after a refusal, all requests are held for the announced wait.
    """

    reads_headers = True

    def __init__(self) -> None:
        self._heard: _Heard | None = None
        self._open: list[SentRequest] = []
        """Requests without a response, in the order in which they were sent."""
        self._answers = 0
        self._held_until_s = 0.0

    def wait_s(self, now_s: float, size: CallSize, rng: Random) -> float:
        """Return how long to hold the next request. Until the first response, one is sent at a time."""
        del rng
        if not self._answers:
            return inf if self._open else 0.0
        wait_s = self._held_until_s - now_s
        if self._heard is not None:
            # What was announced may include those that were sent at about the same time.
            since_s = self._heard.at_s - OVERTAKE_S
            since = [sent.size for sent in self._open if sent.at_s >= since_s]
            for limit in self._heard.limits:
                spent = sum(map(limit.cost, since))
                wait_s = max(wait_s, limit.wait_s(now_s - self._heard.at_s, spent, limit.cost(size)))
        # Without a response to come, nothing would end an endless wait.
        return 0.0 if wait_s == inf and not self._open else max(wait_s, 0.0)

    def send(self, now_s: float, size: CallSize) -> None:
        """Count a request that is sent."""
        self._open.append(SentRequest(now_s, size))

    def answer(self, sent: SentRequest, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Count the end of a response. After a refusal, hold all requests for the announced wait."""
        self._open.remove(sent)
        self._answers += 1
        if refused and announced_s is not None:
            self._held_until_s = max(self._held_until_s, now_s + min(announced_s, MAX_HOLD_S))

    def hear(self, sent: SentRequest, now_s: float, limits: Iterable[AnnouncedLimit]) -> None:
        """Take in what a response announced, unless the server decided on another answered request later."""
        if found := tuple(limits):
            heard = _Heard(sent.at_s, now_s, found)
            if self._heard is None or heard.is_after(self._heard):
                self._heard = heard
