"""Coverage-guided fuzzing of HTTP and event streams: no exception, a typed outcome, and all limits kept.

Run it by hand with atheris, which is not a dependency: ``python -m benchmarks.fuzz -max_total_time=300``. The
first bytes of an input decide how the response is split into reads; the rest is the response.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped]  # installed by hand, where it is run

with atheris.instrument_imports(include=["bltybench.wire"]):
    from bltybench.runs.attempt import Outcome
    from bltybench.text import MAX_MESSAGE_CHARS
    from bltybench.wire.exchange import Exchange
    from bltybench.wire.fault import Failure, Fault
    from bltybench.wire.http.response import BAD_BYTES, ResponseParser
    from bltybench.wire.interpret import fold, interpret

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def one(data: bytes) -> None:
    """Run one input."""
    if len(data) < 4:
        return
    steps, raw, response = [1 + step for step in data[:3]], data[3] & 1, data[4:]
    if not raw:
        response = HEAD + response  # most paths are behind valid headers
    exchange = Exchange(stream=not data[3] & 2, keep_text=bool(data[3] & 4))
    exchange.sent_ns = 1
    parser = ResponseParser(exchange)
    at = number = 0
    try:
        while at < len(response):
            step = steps[number % 3]
            parser.feed(response[at : at + step])
            at, number = at + step, number + 1
            exchange.arrivals.extend([1 + number] * (len(exchange.pieces) - len(exchange.arrivals)))
            if data[3] & 8 and number % 5 == 0 and exchange.is_event_stream:
                fold(exchange)
        parser.end()
    except BAD_BYTES:
        pass
    # A connection stops at bytes that are not HTTP; pieces of that read have no arrival.
    del exchange.pieces[len(exchange.arrivals) :]
    exchange.end_ns = 2 + number
    if not parser.complete:
        exchange.failure = Failure(Fault.CLOSED_EARLY, "closed")
    result = interpret(exchange)
    assert isinstance(result.outcome, Outcome)
    assert len(result.error_message or "") <= MAX_MESSAGE_CHARS
    assert result.events == (len(result.gaps_us) + 1 if result.gaps_us is not None else 0)
    assert (result.coalesced_events or 0) <= result.events
    assert not any(gap < 0 for gap in result.gaps_us or ())


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
