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
from bltybench.wire.http.connection import Connection
from bltybench.wire.http.origin import Origin
from bltybench.wire.interpret import Reading
from bltybench.wire.ratelimit_headers import Quota, parse_quota
from bltybench.wire.scheduling.reader import Reader

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
