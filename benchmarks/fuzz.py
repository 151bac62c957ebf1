"""Fuzzing of HTTP and event streams in this process, without sockets: every input gives a valid record.

python -m benchmarks.fuzz --cases 10000000 --json fuzz.json

Input N is ``wire_input(N)``. It passes through the parser, the exchange, and the interpretation as a
connection's bytes do. An input fails if there is an exception, a result that is no valid record or that can't
be stored, text without a bound, or more than
MAX_INPUT_S. Of every SPLIT_CHECK_EVERY inputs, one is read again
as a single piece, which must give the same outcome, text, and number of events.
"""

import resource
import sys
from collections import Counter

import msgspec

from benchmarks.campaign import Batch, parser, run, time_limit
from benchmarks.wire_inputs import WireInput, wire_input
from bltybench.runs.attempt import Attempt
from bltybench.text import MAX_MESSAGE_CHARS
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.http.response import BAD_BYTES, ResponseParser
from bltybench.wire.interpret import fold, interpret
from bltybench.wire.result import ExchangeResult

BATCH = 5_000
MAX_INPUT_S = 1.0
"""Maximum CPU time for one input of a few kilobytes, in seconds: thousands of times the usual one."""
SPLIT_CHECK_EVERY = 8
MAX_SHOWN_BYTES = 120
MIN_FOLDED_BYTES = 64
_ENCODER = msgspec.json.Encoder()


def exchange_of(data: WireInput) -> Exchange:
    """Return the ended exchange of a connection that received ``data`` and was then closed by the server."""
    exchange = Exchange(stream=data.stream, keep_text=data.keep_text)
    exchange.sent_ns = now_ns = 1
    response, splits, fold_every = data.response, data.splits, data.fold_every
    response_parser = ResponseParser(exchange)
    at = number = 0
    size = len(response)
    while at < size and not response_parser.complete and exchange.failure is None:
        step = splits[number % len(splits)]
        piece = response[at : at + step]
        at, number, now_ns = at + step, number + 1, now_ns + 1_500
        exchange.bytes_received += len(piece)
        try:
            response_parser.feed(piece)
        except BAD_BYTES as error:
            if not response_parser.complete:
                exchange.failure = Failure(*response_parser.failure(error))
                break
        exchange.arrivals.extend([now_ns] * (len(exchange.pieces) - len(exchange.arrivals)))
        if exchange.headers_ns is None and response_parser.final:
            exchange.headers_ns = now_ns
        # A connection folds after many bytes, so the beginning of the body is always known.
        folds = fold_every and number % fold_every == 0 and _body_bytes(exchange) > MIN_FOLDED_BYTES
        if folds and exchange.is_event_stream:
            fold(exchange)
    if exchange.failure is None and not response_parser.complete:
        response_parser.end()
        if not response_parser.complete:
            exchange.failure = Failure(Fault.CLOSED_EARLY, f"closed by the server {exchange.progress}")
    response_parser.close()
    exchange.end_ns = now_ns
    return exchange


def _body_bytes(exchange: Exchange) -> int:
    return MIN_FOLDED_BYTES + 1 if exchange.fold is not None else sum(map(len, exchange.pieces))


def check(data: WireInput, *, compare_splits: bool) -> str:
    """Return the outcome of one input. Raises whatever the code under test raises, or AssertionError."""
    exchange = exchange_of(data)
    result = interpret(exchange)
    _ENCODER.encode(_record(exchange, result))  # raises if a text can't be stored
    for text in (
        result.error_message,
        result.error_type,
        result.error_code,
        result.finish_reason,
        result.model,
    ):
        assert text is None or len(text) <= MAX_MESSAGE_CHARS, "a text from the server is not bounded"
    assert result.events == (len(result.gaps_us) + 1 if result.gaps_us is not None else 0)
    assert (result.coalesced_events or 0) <= result.events
    assert not result.gaps_us or min(result.gaps_us) >= 0
    assert exchange.failure is None or result.outcome != "ok" or (exchange.fold and exchange.fold.done)
    if compare_splits and (exchange.failure is None or exchange.failure.kind is not Fault.BAD_HTTP):
        whole = exchange_of(data._replace(splits=(len(data.response) or 1,), fold_every=0))
        assert _essence(interpret(whole)) == _essence(result), "the outcome depends on where reads end"
    return result.outcome.value


def _essence(result: ExchangeResult) -> tuple[object, ...]:
    return (
        result.outcome,
        result.status,
        result.events,
        result.text,
        result.error_type,
        result.finish_reason,
    )


def _record(exchange: Exchange, result: ExchangeResult) -> Attempt:
    """Return the record, which checks the order of its times, and that outcome and status agree."""
    quota = result.quota
    assert exchange.end_ns is not None
    return Attempt(
        worker="w",
        user=0,
        scenario="s",
        call_id="c",
        attempt=0,
        request_id=result.request_id,
        response_id=result.response_id,
        due_ns=0,
        sent_ns=exchange.sent_ns,
        headers_ns=exchange.headers_ns,
        first_token_ns=result.first_token_ns,
        first_output_ns=result.first_output_ns,
        last_token_ns=result.last_token_ns,
        end_ns=exchange.end_ns,
        gaps_us=result.gaps_us,
        outcome=result.outcome,
        status=result.status,
        error_type=result.error_type,
        error_code=result.error_code,
        error_message=result.error_message,
        finish_reason=result.finish_reason,
        notes=result.notes,
        endpoint="chat",
        model=result.model,
        stream=exchange.stream,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        cached_tokens=result.cached_tokens,
        reasoning_tokens=result.reasoning_tokens,
        bytes_sent=0,
        bytes_received=exchange.bytes_received,
        limit_requests=quota.limit_requests,
        remaining_requests=quota.remaining_requests,
        reset_requests_s=quota.reset_requests_s,
        limit_tokens=quota.limit_tokens,
        remaining_tokens=quota.remaining_tokens,
        reset_tokens_s=quota.reset_tokens_s,
        retry_after_s=quota.retry_after_s,
        header_dialect=quota.dialect,
        coalesced_events=result.coalesced_events,
        in_flight=1,
    )


def play(first: int, cases: int) -> Batch:
    """Run the inputs from ``first`` on."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(first, first + cases):
        data = wire_input(number)
        try:
            with time_limit(MAX_INPUT_S, "an input", cpu=True):
                counts[check(data, compare_splits=number % SPLIT_CHECK_EVERY == 0)] += 1
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            counts["failed"] += 1
            failures.append(f"{number}: {error!r} for {data.response[:MAX_SHOWN_BYTES]!r}")
    return Batch(cases, counts, failures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


if __name__ == "__main__":
    sys.exit(run(play, parser(__doc__, 10_000_000, BATCH).parse_args()).code)
