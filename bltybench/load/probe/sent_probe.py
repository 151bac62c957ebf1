"""A request of an experiment that was sent, and its progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gevent

from bltybench.limits.probe.protocol import ProbeRequest, Until
from bltybench.load.client import ChatClient
from bltybench.runs.attempt import Attempt
from bltybench.wire.interpret import fold


@dataclass
class SentProbe:
    """A request and the client that sends it."""

    request: ProbeRequest
    client: ChatClient
    greenlet: gevent.Greenlet[..., Any] | None = None
    attempt: Attempt | None = None
    """Its record, once it has ended."""
    stopped: bool = False
    """Whether the budget or the end of the run prevented it."""
    prompt_tokens: int = 0
    """Tokens of its prompt, by our count."""

    def begun_ns(self) -> int | None:
        """Return when the first token of a stream arrived; None if it has not."""
        exchange = self.client.exchange
        if exchange is None or not (exchange.pieces or exchange.fold) or not exchange.is_event_stream:
            return None  # before its first bytes, the body can still turn out to be JSON
        times = fold(exchange).times
        return times[0] if times else None

    def reached(self, until: Until) -> bool:
        """Return whether the request has come this far, or has ended."""
        if self.attempt is not None or self.stopped:
            return True
        exchange = self.client.exchange
        if until == "decided":
            # The reason for an error is in its body, so an error counts only once it has ended.
            return exchange is not None and exchange.headers_ns is not None and exchange.status == 200
        return until == "begun" and self.begun_ns() is not None
