"""HAR: the requests that a browser or a proxy recorded."""

import base64
import binascii
import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bltybench.imports.failures import responded
from bltybench.imports.row import BrokenRowError, LogRow, Skipped, max_tokens_in, table, time_ns, whole
from bltybench.runs.attempt import Outcome
from bltybench.wire.error_body import name_or_none, redacted
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.sse.chunk import decode_any

NS_PER_MS = 1_000_000

LACKS = ("A HAR file has no arrival times of events.",)


def fits(row: dict[str, Any]) -> bool:
    """Return whether a row is an entry of a HAR file."""
    return {"startedDateTime", "request", "response", "time"} <= row.keys()


def parse(row: dict[str, Any], path: re.Pattern[str]) -> LogRow | Skipped:
    """Return the request of an entry whose path matches ``path``."""
    request, response, timings = (table(row.get(name)) for name in ("request", "response", "timings"))
    try:
        url = urlsplit(str(request.get("url")))
    except ValueError:
        raise BrokenRowError("its URL is no URL") from None
    if request.get("method") != "POST" or not path.search(url.path):
        return Skipped("requests to other paths")
    begun_ns = time_ns(row["startedDateTime"], "startedDateTime")
    lasted_ns = _ns(row, "time")
    if lasted_ns is None:
        raise BrokenRowError("time is no duration")
    waited_ns = sum(_ns(timings, name) or 0 for name in ("blocked", "dns", "connect"))
    sent_ns, end_ns = begun_ns + min(waited_ns, lasted_ns), begun_ns + lasted_ns
    wait_ns = _ns(timings, "wait")
    headers_ns = None if wait_ns is None else min(sent_ns + (_ns(timings, "send") or 0) + wait_ns, end_ns)
    body = _request_body(request)
    stream = body.get("stream") is True if body else None
    status = whole(response.get("status")) or None
    error = str(row.get("_error") or response.get("_error") or "")
    failure = None
    if status is None:
        kind = Fault.CANCELLED if "ABORTED" in error.upper() else Fault.RESET
        failure = Failure(kind, error or "no response")
    content = table(response.get("content"))
    received = response.get("headers")
    headers = [
        (str(one.get("name")), str(one.get("value")))
        for one in map(table, received if isinstance(received, list) else ())
        if str(one.get("name")).lower() != "content-encoding"  # a HAR file has decoded bodies
    ]
    result = responded(status, headers, _content(content), end_ns, stream=bool(stream), failure=failure)
    if status is not None and 200 <= status < 300 and not content.get("text"):
        # Browsers keep no body of a stream or of a large response.
        result.outcome, result.error_type, result.error_message = Outcome.OK, None, None
        result.notes = None
    connect_ns, tls_ns = _ns(timings, "connect"), _ns(timings, "ssl")
    return LogRow(
        clock_ns=begun_ns,
        start_ns=sent_ns,
        end_ns=end_ns,
        result=result,
        endpoint=redacted(url.path),
        model=name_or_none(body.get("model")) or result.model,
        stream=stream,
        headers_ns=headers_ns if status is not None else None,
        connect_ns=None if connect_ns is None else max(0, connect_ns - (tls_ns or 0)),
        tls_ns=tls_ns,
        max_tokens=max_tokens_in(body),
        bytes_sent=_size(request),
        bytes_received=_size(response),
        host=url.hostname,
    )


def _ns(timings: dict[str, Any], name: str) -> int | None:
    """Return a duration; None if it is missing or -1, which stands for a phase that did not happen."""
    value = timings.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        return None
    return round(value * NS_PER_MS)


def _size(message: dict[str, Any]) -> int | None:
    sizes = [whole(message.get(name)) for name in ("headersSize", "bodySize")]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _request_body(request: dict[str, Any]) -> dict[str, Any]:
    text = table(request.get("postData")).get("text")
    try:
        return table(decode_any(text.encode())) if isinstance(text, str) else {}
    except (ValueError, msgspec.MsgspecError):
        return {}


def _content(content: dict[str, Any]) -> bytes:
    text = content.get("text")
    if not isinstance(text, str):
        return b""
    if content.get("encoding") == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            raise BrokenRowError("its content is no base64") from None
    return text.encode("utf-8", "replace")
