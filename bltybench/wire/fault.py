"""What can end an exchange, or spoil its response, on this side of the connection."""

from enum import StrEnum
from typing import NamedTuple


class Fault(StrEnum):
    """Kind of failure found on this side. It becomes the ``error_type`` of the record."""

    NAME = "name_resolution"
    CONNECT = "connect"
    CONNECTION_REFUSED = "connection_refused"
    LOCAL = "local_resources"
    PROXY = "proxy"
    TLS = "tls"
    TLS_VERIFICATION = "tls_verification"
    CONNECT_TIMEOUT = "connect_timeout"
    HEADERS_TIMEOUT = "headers_timeout"
    IDLE_TIMEOUT = "between_events_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    SEND = "send"
    RESET = "connection_reset"
    CLOSED_EARLY = "closed_early"
    BAD_HTTP = "bad_http"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    BODY_TOO_LARGE = "body_too_large"
    EVENT_TOO_LARGE = "event_too_large"
    TOO_MANY_EVENTS = "too_many_events"
    CONTENT_ENCODING = "content_encoding"
    REDIRECT = "redirect"
    NOT_JSON = "not_json"
    NOT_EVENT_STREAM = "not_event_stream"
    BAD_EVENT = "bad_event"
    NO_ANSWER = "no_answer"
    MISSING_DONE = "missing_done"
    FINISH_REASON = "failed_finish_reason"
    CANCELLED = "cancelled"


TIMEOUTS = frozenset({Fault.CONNECT_TIMEOUT, Fault.HEADERS_TIMEOUT, Fault.IDLE_TIMEOUT, Fault.TOTAL_TIMEOUT})


class Failure(NamedTuple):
    """Why an exchange did not complete, in this client's words."""

    kind: Fault
    message: str
