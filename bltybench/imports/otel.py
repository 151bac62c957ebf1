"""OpenTelemetry: spans of the GenAI conventions, in OTLP's JSON (``resourceSpans``)."""

from collections.abc import Iterator
from typing import Any

from bltybench.imports.failures import failed, succeeded, take_usage
from bltybench.imports.row import (
    NS_PER_S,
    BrokenRowError,
    LogRow,
    Skipped,
    first_flag,
    seconds_ns,
    table,
    whole,
)
from bltybench.wire.error_body import name_or_none

OPERATIONS = frozenset({"chat", "text_completion", "generate_content", "completion", "responses"})
_TTFT = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.server.time_to_first_token",
    "gen_ai.latency.time_to_first_token",
)
"""Attributes for the time to the first chunk or token, in seconds."""
_INPUTS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUTS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_CACHED = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens")
_REASONING = ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens")
ERROR = (2, "STATUS_CODE_ERROR")

LACKS = (
    "A span covers a call with all retries of its client, so refusals that a retry solved are missing.",
    "Sampled or dropped spans are missing.",
)


def fits(row: dict[str, Any]) -> bool:
    """Return whether a row is an element of ``resourceSpans``."""
    return "scopeSpans" in row or "instrumentationLibrarySpans" in row


def parse(row: dict[str, Any]) -> Iterator[LogRow | Skipped | BrokenRowError]:
    """Yield the requests among the spans of a resource."""
    for scope in _tables(row.get("scopeSpans") or row.get("instrumentationLibrarySpans")):
        for span in _tables(scope.get("spans")):
            try:
                yield _parse(span)
            except BrokenRowError as error:
                yield error


def _tables(value: Any) -> list[dict[str, Any]]:
    return [table(one) for one in value] if isinstance(value, list) else []


def _parse(span: dict[str, Any]) -> LogRow | Skipped:
    attributes = _attributes(span)
    operation = attributes.get("gen_ai.operation.name") or attributes.get("llm.request.type")
    if operation is None and "gen_ai.request.model" in attributes:
        operation = "chat"  # of the conventions before they named operations
    if not isinstance(operation, str) or operation not in OPERATIONS:
        return Skipped("spans of other operations")
    start_ns, end_ns = (_unix_ns(span, name) for name in ("startTimeUnixNano", "endTimeUnixNano"))
    status, kind = table(span.get("status")), attributes.get("error.type")
    if status.get("code") in ERROR or kind:
        caught = _exception(span)
        result = failed(
            whole(attributes.get("http.response.status_code")),
            str(kind or caught.get("exception.type") or "") or None,
            str(status.get("message") or caught.get("exception.message") or "") or None,
            end_ns,
        )
    else:
        result = succeeded()
        take_usage(
            result,
            prompt_tokens=_first(attributes, _INPUTS),
            completion_tokens=_first(attributes, _OUTPUTS),
            cached_tokens=_first(attributes, _CACHED),
            reasoning_tokens=_first(attributes, _REASONING),
        )
    result.response_id = name_or_none(attributes.get("gen_ai.response.id"))
    reasons = attributes.get("gen_ai.response.finish_reasons")
    result.finish_reason = name_or_none(reasons[0] if isinstance(reasons, list) and reasons else reasons)
    ttft_s = next((attributes[name] for name in _TTFT if name in attributes), None)
    first_ns = None if ttft_s is None else start_ns + seconds_ns(ttft_s, "the time to the first token")
    if first_ns is not None and first_ns > end_ns:
        raise BrokenRowError("its first token comes after its end")
    streams = attributes.get("gen_ai.request.stream", attributes.get("llm.is_streaming"))
    return LogRow(
        clock_ns=start_ns if start_ns % NS_PER_S else end_ns,
        start_ns=start_ns,
        end_ns=end_ns,
        result=result,
        endpoint=str(operation),
        model=name_or_none(attributes.get("gen_ai.request.model") or attributes.get("gen_ai.response.model")),
        stream=first_ns is not None or first_flag(streams),
        first_token_ns=first_ns,
        max_tokens=whole(attributes.get("gen_ai.request.max_tokens")),
        host=name_or_none(attributes.get("server.address")),
        span=name_or_none(span.get("spanId")),
        parent=name_or_none(span.get("parentSpanId")),
    )


def _unix_ns(span: dict[str, Any], name: str) -> int:
    value = span.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int):
        raise BrokenRowError(f"{name} is no time")
    return value


def _attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {str(one.get("key")): _plain(one.get("value")) for one in _tables(span.get("attributes"))}


def _plain(value: Any) -> Any:
    """Return an attribute's value, which OTLP wraps in an object that names its type."""
    kind, content = next(iter(table(value).items()), ("", None))
    if kind == "intValue":
        return whole(content)
    if kind == "arrayValue":
        values = table(content).get("values")
        return [_plain(one) for one in values] if isinstance(values, list) else []
    return content


def _exception(span: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the exception that a span recorded."""
    events = _tables(span.get("events"))
    return next((_attributes(event) for event in events if event.get("name") == "exception"), {})


def _first(attributes: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := whole(attributes.get(name))) is not None), None)
