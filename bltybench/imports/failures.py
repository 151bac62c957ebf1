"""The result of a logged request, by the same rules as that of a request of a run."""

import re
import time
from array import array
from collections.abc import Sequence

import msgspec

from bltybench.runs.attempt import Outcome
from bltybench.wire.error_body import name_or_none
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret
from bltybench.wire.ratelimit_headers import parse_quota
from bltybench.wire.result import ExchangeResult

_STATUSES = {
    "ratelimit": 429,
    "toomanyrequests": 429,
    "resourceexhausted": 429,
    "throttling": 429,
    "authentication": 401,
    "unauthorized": 401,
    "permissiondenied": 403,
    "badrequest": 400,
    "invalidrequest": 400,
    "contextwindowexceeded": 400,
    "contentpolicyviolation": 400,
    "notfound": 404,
    "unprocessableentity": 422,
    "internalserver": 500,
    "badgateway": 502,
    "serviceunavailable": 503,
    "overloaded": 503,
}
"""Statuses that the classes of exceptions stand for, by the start of their names in lower case."""
_STATUS = re.compile(r"(?:error code|status(?: ?code)?)\W{1,4}([1-5]\d\d)\b|^([1-5]\d\d)\b", re.IGNORECASE)
"""A status in a message: ``Error code: 429 - …`` (OpenAI), ``status_code: 429`` (Cohere)."""
_CLASS = re.compile(r"\b(?:[a-z_]+\.)*([A-Za-z]{4,40}?)(?:Error|Exception)?\b(?=[:(]|$)")
TIMEOUTS = ("timeout", "apitimeout", "readtimeout", "deadlineexceeded")
CANCELLATIONS = ("cancel", "clientdisconnect")


def succeeded() -> ExchangeResult:
    """Return the result of a request that the log calls a success."""
    return ExchangeResult(outcome=Outcome.OK, status=200)


def failed(status: int | None, kind: str | None, message: str | None, at_ns: int) -> ExchangeResult:
    """Return the result of a request that failed at a Unix time, with what the log says of its error.

    Without a status, the class of the exception or the message can name it.
    """
    name = _plain(kind or _first_class(message))
    if status is None and re.fullmatch("[1-5][0-9][0-9]", kind or ""):
        status = int(kind or "")
    if status is None and (match := _STATUS.search(message or "")):
        status = int(match[1] or match[2])
    if status is None:
        status = next((value for start, value in _STATUSES.items() if name.startswith(start)), None)
    failure = None
    if name.startswith(TIMEOUTS):
        failure = Failure(Fault.TOTAL_TIMEOUT, message or "the request timed out")
    elif name.startswith(CANCELLATIONS):
        failure = Failure(Fault.CANCELLED, message or "the client cancelled the request")
    elif status is None:
        failure = Failure(Fault.RESET, message or "the log does not say why it failed")
    error = {"message": message, "type": kind}
    body = msgspec.json.encode({"error": {key: value for key, value in error.items() if value}})
    result = responded(status, (), body, at_ns, failure=failure)
    if result.error_type == Fault.RESET:
        result.error_type = name_or_none(kind)
    return result


def responded(
    status: int | None,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    at_ns: int,
    *,
    stream: bool = False,
    failure: Failure | None = None,
) -> ExchangeResult:
    """Return the result of a response that was received at a Unix time."""
    # Dates in headers and bodies are relative to when the response was received.
    received_ns = time.monotonic_ns() - (time.time_ns() - at_ns)
    exchange = Exchange(
        stream=stream,
        keep_text=False,
        sent_ns=received_ns,
        headers_ns=received_ns,
        end_ns=received_ns,
        status=status,
        headers=[(name.lower(), value) for name, value in headers],
        pieces=[body] if body else [],
        arrivals=array("q", [received_ns] if body else []),
        bytes_received=len(body),
        failure=failure,
    )
    result = interpret(exchange)
    # A log has no arrival times of events.
    result.first_token_ns = result.first_output_ns = result.last_token_ns = result.gaps_us = None
    return result


def of_status(status: int, headers: Sequence[tuple[str, str]], at_ns: int) -> ExchangeResult:
    """Return the result of a response of which the log has no body."""
    if not 200 <= status < 300:
        return responded(status, headers, b"", at_ns)
    return ExchangeResult(outcome=Outcome.OK, status=status, quota=parse_quota(headers, at_ns / 1e9))


def take_usage(
    result: ExchangeResult,
    *,
    prompt_tokens: int | None,
    completion_tokens: int | None,
    cached_tokens: int | None,
    reasoning_tokens: int | None,
) -> None:
    """Fill in the tokens of a successful request. Zeros mean that nothing was counted."""
    if prompt_tokens or completion_tokens:
        result.prompt_tokens, result.completion_tokens = prompt_tokens, completion_tokens
        result.cached_tokens, result.reasoning_tokens = cached_tokens, reasoning_tokens


def _plain(name: str | None) -> str:
    """Return the class of an exception in lower case, without its module: ``ratelimiterror``."""
    return re.sub(r"[^a-z]", "", (name or "").rpartition(".")[2].lower())


def _first_class(message: str | None) -> str | None:
    match = _CLASS.match(message or "")
    return match[1] if match else None
