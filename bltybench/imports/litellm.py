"""LiteLLM: rows of its spend logs, payloads of its logging callbacks, and the proxy's own JSON logs."""

import json
import re
from typing import Any

from bltybench.imports.failures import failed, of_status, succeeded, take_usage
from bltybench.imports.row import (
    BrokenRowError,
    LogRow,
    Skipped,
    first_flag,
    host_of,
    max_tokens_in,
    optional_time_ns,
    table,
    table_or_text,
    time_ns,
    whole,
)
from bltybench.wire.error_body import name_or_none
from bltybench.wire.ratelimit_headers import parse_quota

COMPLETIONS = ("completion", "responses", "anthropic_messages", "generate_content", "pass_through")
"""Parts of the call types whose calls generate text."""
_ACCESS = re.compile(r'^(\S+) - "POST (\S+) HTTP/[\d.]+" (\d{3})')
"""Message of the proxy's access log (uvicorn)."""
PATHS = ("completions", "responses", "messages")

LACKS = (
    "LiteLLM's row of a request includes the retries and fallbacks inside LiteLLM.",
    "LiteLLM logs a failed request only if its callbacks or its database record failures.",
)


def fits(row: dict[str, Any]) -> bool:
    """Return whether a row is LiteLLM's."""
    if {"message", "level", "timestamp"} <= row.keys():
        return True
    return {"startTime", "endTime"} <= row.keys() and bool(
        row.keys() & {"call_type", "custom_llm_provider", "model_group", "cache_key"}
    )


def parse(row: dict[str, Any]) -> LogRow | Skipped:
    """Return the request of a row."""
    if {"message", "level", "timestamp"} <= row.keys():
        return _of_proxy(row)
    return _of_payload(table(row.get("standard_logging_object")) or row)


def _of_proxy(row: dict[str, Any]) -> LogRow | Skipped:
    """Return the request of a line of the proxy's JSON log: a payload, or its access log."""
    message = row["message"]
    if isinstance(message, str) and message.startswith("{"):
        try:
            message = json.loads(message)
        except ValueError:
            return Skipped("messages of the proxy")
    if isinstance(message, dict):
        payload = table(message.get("standard_logging_object")) or message
        return _of_payload(payload) if fits(payload) else Skipped("messages of the proxy")
    match = _ACCESS.match(str(message))
    if match is None:
        return Skipped("messages of the proxy")
    client, target, status = match.groups()
    path = target.partition("?")[0]
    if not path.endswith(PATHS):
        return Skipped("requests to other paths")
    at_ns = time_ns(row["timestamp"], "timestamp")
    return LogRow(
        clock_ns=at_ns,
        start_ns=None,
        end_ns=at_ns,
        result=of_status(int(status), (), at_ns),
        endpoint=path,
        client=client.rpartition(":")[0] or client,
    )


def _of_payload(row: dict[str, Any]) -> LogRow | Skipped:
    kind = str(row.get("call_type") or "")
    if kind and not any(word in kind for word in COMPLETIONS):
        return Skipped("calls of other types")
    if str(row.get("cache_hit")).lower() == "true":
        return Skipped("answers from LiteLLM's cache")
    metadata = table_or_text(row.get("metadata"), "metadata")
    start_ns, end_ns = time_ns(row.get("startTime"), "startTime"), time_ns(row.get("endTime"), "endTime")
    clock_ns = start_ns if start_ns % 1_000_000_000 else end_ns
    error = table(row.get("error_information")) or table(metadata.get("error_information"))
    status = str(row.get("status") or metadata.get("status") or "success")
    if status not in {"success", "failure"}:
        raise BrokenRowError("its status is neither success nor failure")
    headers = _headers(row)
    if status == "failure":
        code = str(error.get("error_code") or "")
        result = failed(
            int(code) if re.fullmatch("[1-5][0-9][0-9]", code) else None,
            str(error.get("error_class") or "") or None,
            str(error.get("error_message") or row.get("error_str") or "") or None,
            end_ns,
        )
    else:
        result = succeeded()
        details = table(metadata.get("usage_object"))
        cached = whole(table(details.get("prompt_tokens_details")).get("cached_tokens"))
        reasoning = whole(table(details.get("completion_tokens_details")).get("reasoning_tokens"))
        take_usage(
            result,
            prompt_tokens=whole(row.get("prompt_tokens")),
            completion_tokens=whole(row.get("completion_tokens")),
            cached_tokens=cached,
            reasoning_tokens=reasoning,
        )
    if headers:
        result.quota = parse_quota(headers, end_ns / 1e9)
    result.request_id = name_or_none(row.get("request_id") or row.get("id"))
    first_ns = optional_time_ns(row.get("completionStartTime"), "completionStartTime")
    # For a plain completion, LiteLLM writes the end, or 0, as the time of the first token.
    streamed = first_ns is not None and start_ns < first_ns < end_ns
    parameters = table(row.get("model_parameters"))
    return LogRow(
        clock_ns=clock_ns,
        start_ns=start_ns,
        end_ns=end_ns,
        result=result,
        endpoint=kind or "completion",
        model=name_or_none(row.get("model") or row.get("model_group")),
        stream=streamed or first_flag(row.get("stream"), parameters.get("stream")),
        first_token_ns=first_ns if streamed else None,
        max_tokens=max_tokens_in(parameters),
        client=_client(row, metadata),
        host=host_of(row.get("api_base")),
    )


def _client(row: dict[str, Any], metadata: dict[str, Any]) -> str | None:
    names = (
        metadata.get("user_api_key_alias"),
        row.get("api_key"),
        metadata.get("user_api_key_hash"),
        row.get("end_user"),
    )
    return next((str(name) for name in names if name), None)


def _headers(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rate-limit headers of the API, which LiteLLM writes with underscores."""
    headers = table(table(row.get("hidden_params")).get("additional_headers"))
    return [
        (name.replace("_", "-").removeprefix("llm-provider-"), str(value))
        for name, value in headers.items()
        if value is not None
    ]
