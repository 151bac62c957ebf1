"""One timed HTTP exchange: connection, timestamps, server-sent events, status, and rate-limit headers.

origin = Origin("http://127.0.0.1:8080/v1", Timeouts())
reader = Reader()                             # one per event loop
connection = Connection(origin, reader)       # one per user
exchange = Exchange(stream=True, keep_text=False)
connection.send("POST", "/chat/completions", headers, body, exchange)
result = reader.read(exchange)
"""

from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.http.connection import Connection
from bltybench.wire.http.origin import Origin
from bltybench.wire.result import ExchangeResult
from bltybench.wire.scheduling.reader import Reader

__all__ = ["Connection", "Exchange", "ExchangeResult", "Failure", "Fault", "Origin", "Reader"]
