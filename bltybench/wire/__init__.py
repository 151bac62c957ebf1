"""One timed HTTP exchange: socket, stamps, server-sent events, status, rate-limit headers.

origin = Origin("http://127.0.0.1:8080/v1", Timeouts())
reader = Reader()                             # one an event loop
connection = Connection(origin, reader)       # one a user
exchange = Exchange(stream=True, keep_text=False)
connection.send("POST", "/chat/completions", headers, body, exchange)
reading = reader.read(exchange)
"""

from __future__ import annotations

from bltybench.wire.exchange import Exchange, Failure, Fault
from bltybench.wire.origin import Origin
from bltybench.wire.ratelimit import Quota, parse_quota
from bltybench.wire.reader import Reader
from bltybench.wire.reading import Reading
from bltybench.wire.transport import Connection

__all__ = [
    "Connection",
    "Exchange",
    "Failure",
    "Fault",
    "Origin",
    "Quota",
    "Reader",
    "Reading",
    "parse_quota",
]
