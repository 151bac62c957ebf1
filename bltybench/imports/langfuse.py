"""Langfuse: observations exported from its page, its API, or its blob storage, as JSON or CSV."""

from typing import Any

from bltybench.imports.failures import failed, succeeded, take_usage
from bltybench.imports.row import (
    LogRow,
    Skipped,
    first_flag,
    max_tokens_in,
    optional_time_ns,
    seconds_ns,
    table_or_text,
    time_ns,
    whole,
)
from bltybench.wire.error_body import name_or_none

_CACHED = ("input_cached_tokens", "cache_read_input_tokens", "input_cache_read")
_REASONING = ("output_reasoning_tokens", "output_reasoning")

LACKS = (
    "Langfuse has what clients reported: sampled or dropped observations are missing, and an error has a "
    "status only if its message states one.",
)


def fits(row: dict[str, Any]) -> bool:
    """Return whether a row is an observation of Langfuse."""
    keys = {name.lower().replace("_", "").replace(" ", "") for name in row}
    return {"traceid", "starttime", "endtime", "type"} <= keys


def parse(row: dict[str, Any]) -> LogRow | Skipped:
    """Return the request of a generation. Exports spell the same names in different ways."""
    fields = {name.lower().replace("_", "").replace(" ", ""): value for name, value in row.items()}
    if str(fields.get("type")).upper() != "GENERATION":
        return Skipped("observations other than generations")
    if not fields.get("endtime"):
        return Skipped("generations without an end")
    start_ns, end_ns = time_ns(fields.get("starttime"), "startTime"), time_ns(fields["endtime"], "endTime")
    if str(fields.get("level")).upper() == "ERROR":
        result = failed(None, None, str(fields.get("statusmessage") or "") or None, end_ns)
    else:
        result = succeeded()
        usage = table_or_text(fields.get("usagedetails"), "usageDetails")
        usage = usage or table_or_text(fields.get("usage"), "usage")
        take_usage(
            result,
            prompt_tokens=_sum(usage, "input", "prompt_tokens")
            or _first(fields, ("inputusage", "inputtokens", "prompttokens")),
            completion_tokens=_sum(usage, "output", "completion_tokens")
            or _first(fields, ("outputusage", "outputtokens", "completiontokens")),
            cached_tokens=_first(usage, _CACHED),
            reasoning_tokens=_first(usage, _REASONING),
        )
    first_ns = optional_time_ns(fields.get("completionstarttime"), "completionStartTime")
    ttft_s = fields.get("timetofirsttoken")
    if first_ns is None and ttft_s is not None and ttft_s != "":
        first_ns = start_ns + seconds_ns(ttft_s, "timeToFirstToken")
    streamed = first_ns is not None and start_ns < first_ns <= end_ns
    parameters = table_or_text(fields.get("modelparameters"), "modelParameters")
    return LogRow(
        clock_ns=start_ns if start_ns % 1_000_000_000 else end_ns,
        start_ns=start_ns,
        end_ns=end_ns,
        result=result,
        endpoint="generation",
        model=name_or_none(fields.get("model") or fields.get("providedmodelname")),
        stream=streamed or first_flag(parameters.get("stream")),
        first_token_ns=first_ns if streamed else None,
        max_tokens=max_tokens_in(parameters),
        client=str(fields.get("userid") or "") or None,
    )


def _first(usage: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := whole(usage.get(name))) is not None), None)


def _sum(usage: dict[str, Any], word: str, other: str) -> int | None:
    """Return the tokens of one direction. Langfuse counts cached and reasoning tokens under other names."""
    counts = [count for name in usage if word in name and (count := whole(usage[name])) is not None]
    return sum(counts) if counts else whole(usage.get(other))
