"""The outcome of an ended exchange, from its status, its failure, and the error in its response."""

from bltybench.runs.attempt import Outcome
from bltybench.runs.error_words import ErrorReason, names_of, reason_of, says_rate_limit, wraps_refusal
from bltybench.wire.error_body import ErrorDetails
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import TIMEOUTS, Fault
from bltybench.wire.result import ExchangeResult


def outcome_of(exchange: Exchange, result: ExchangeResult, error: ErrorDetails | None) -> Outcome:
    """Return the outcome of the attempt.

    A cancellation by this side comes first, then an error that the server reports in a 2xx response, then a
    timeout. Then the status decides, unless it is 2xx: a 429 is a refusal, unless the body reports missing
    funds (client error: waiting does not help) or an overload (server error). A 403 or 503 is a refusal only
    if the body mentions a rate limit or the headers report that nothing remains; ``Retry-After`` on a 503 can
    also mean maintenance. Any 5xx is one if it says that a rate limit refused, as gateways do. A damaged 2xx
    response is a broken stream if a stream was requested, a transport error if bytes are missing, and
    otherwise a server error. A failure after ``[DONE]`` damages nothing.
    """
    done = exchange.fold is not None and exchange.fold.done
    failure, status = None if done else exchange.failure, exchange.status
    if failure is not None and failure.kind is Fault.CANCELLED:
        return Outcome.CANCELLED
    success = status is not None and 200 <= status < 300
    if success and error is not None and error != ErrorDetails() and not isinstance(error.type, Fault):
        return _reported_outcome(exchange, result, error)
    if failure is not None and failure.kind in TIMEOUTS:
        return Outcome.TIMEOUT
    if status is None:
        return Outcome.TRANSPORT_ERROR
    if not success:
        return _refusal_or_error(status, result, error or ErrorDetails())
    return Outcome.OK if error is None else _damage(exchange, result, error)


def _damage(exchange: Exchange, result: ExchangeResult, error: ErrorDetails) -> Outcome:
    """Return the outcome of a 2xx response that has no answer, or a damaged one."""
    if error.type is Fault.NO_ANSWER:
        return Outcome.NO_ANSWER
    if exchange.stream or result.streamed:
        return Outcome.BROKEN_STREAM
    return Outcome.SERVER_ERROR if exchange.failure is None else Outcome.TRANSPORT_ERROR


def _reported_outcome(exchange: Exchange, result: ExchangeResult, error: ErrorDetails) -> Outcome:
    """Return the outcome of a 2xx response that reports an error, by the same rules as ``classify``."""
    names = names_of(error.type, error.code)
    reason = reason_of(200, names, error.message)
    if reason is ErrorReason.UNPAID:
        return Outcome.CLIENT_ERROR
    if reason is None and says_rate_limit(names, error.message):
        return Outcome.RATE_LIMITED
    return Outcome.BROKEN_STREAM if exchange.stream or result.streamed else Outcome.SERVER_ERROR


def _refusal_or_error(status: int, result: ExchangeResult, error: ErrorDetails) -> Outcome:
    """Return the outcome of an error response, by the same rules as ``classify``."""
    names = names_of(error.type, error.code)
    reason = reason_of(status, names, error.message)
    if reason is None:
        remaining = {result.quota.remaining_requests, result.quota.remaining_tokens}
        says_refused = 0 in remaining or says_rate_limit(names, error.message)
        if status == 429 or (status in {403, 503} and says_refused):
            return Outcome.RATE_LIMITED
        if wraps_refusal(status, names, error.message):
            return Outcome.RATE_LIMITED
    elif reason is ErrorReason.UNPAID:
        return Outcome.CLIENT_ERROR
    elif status == 429:
        return Outcome.SERVER_ERROR
    return Outcome.SERVER_ERROR if status >= 500 else Outcome.CLIENT_ERROR
