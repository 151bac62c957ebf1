"""A request of an experiment that was sent, and its progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gevent

from bltybench.limits.probe.protocol import ProbeRequest, Until
from bltybench.load.client import ChatClient
from bltybench.runs.attempt import Attempt
from bltybench.wire.sse.stream import StreamFold


@dataclass
class SentRequest:
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
    fold: StreamFold = field(default_factory=lambda: StreamFold(keep_text=False))
    folded: int = 0

    def begun_ns(self) -> int | None:
        """Return when the first token of a stream arrived; None if it has not."""
        exchange = self.client.exchange
        if exchange is None or exchange.sent_ns is None or not exchange.is_event_stream:
            return None
        if exchange.fold is not None and exchange.fold.times:
            return exchange.fold.times[0]
        arrivals = exchange.arrivals
        while not self.fold.times and self.folded < len(arrivals):
            self.fold.take(exchange.pieces[self.folded], arrivals[self.folded])
            self.folded += 1
        return self.fold.times[0] if self.fold.times else None

    def reached(self, until: Until) -> bool:
        """Return whether the request has come this far, or has ended."""
        if self.attempt is not None or self.stopped:
            return True
        exchange = self.client.exchange
        if until == "decided":
            # The reason for an error is in its body, so an error counts only once it has ended.
            return exchange is not None and exchange.headers_ns is not None and exchange.status == 200
        return until == "begun" and self.begun_ns() is not None
