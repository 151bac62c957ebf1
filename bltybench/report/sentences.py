"""What a figure shows in this run, in one sentence."""

from __future__ import annotations

from typing import Any

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.quota import first_refusal
from bltybench.report.text import clock, count, duration, milliseconds


def timeline_sentence(analysis: Analysis) -> str:
    """Say when refusals began and what had been accepted in the 60 s before, or that there were none."""
    offered, accepted = analysis.count_of("offered"), analysis.count_of("accepted")
    if offered == 0:
        return "Nothing was sent."
    limit = analysis.manifest.target.requests_per_min
    beside = f" (documented limit: {limit:,})" if limit else ""
    first = first_refusal(analysis.attempts)
    if first is None:
        best = analysis.best_of("accepted")
        let_in = f"all {offered:,}" if accepted == offered else f"{accepted:,} of {offered:,}"
        let_in = "the one" if accepted == offered == 1 else let_in
        return (
            f"Nothing was refused: {let_in} {'request was' if offered == 1 else 'requests were'} accepted, "
            f"at most {best:,.0f} in 60 s{beside}."
        )
    at_s, before = first
    refused = analysis.count_of("refused")
    if accepted == 0:
        return f"{count(refused, 'refusal')} and no acceptance: the server let nothing in{beside}."
    return (
        f"Refusals began at {clock(at_s)}, after {count(before, 'request')} accepted in the 60 s "
        f"before{beside}; {refused:,} of {offered:,} {'was' if refused == 1 else 'were'} refused in all."
    )


def latency_sentence(analysis: Analysis) -> str:
    """Say how long the median and the slowest call took, as far as the sample allows."""
    calls, streams = analysis.timing("latency"), analysis.timing("ttft")
    n = int(calls["n"] or 0)
    if n == 0:
        return "No call succeeded, so there is no latency to show; refusals and errors have their own tables."
    slowest = milliseconds(calls["max"])
    if calls["p50"] is None:
        if n == 1:
            return f"One call succeeded; it took {slowest}."
        return f"{n:,} calls succeeded, too few for a median; the slowest took {slowest}."
    half = milliseconds(calls["p50"])
    said = f"Half of the {n:,} calls that succeeded took at most {half}, the slowest {slowest}"
    if streams["p50"] is None:
        return f"{said}."
    return f"{said}; half of the streams gave their first token within {milliseconds(streams['p50'])}."


def limits_sentence(analysis: Analysis) -> str:
    """Say what Retry-After promised and whether waiting for it was enough."""
    table = analysis.retry_after
    if table.empty:
        return "Nothing was refused, so how the server behaves at its limit was not seen."
    refused = int(table["refusals"].sum())
    given = table[table["retry_after"] != "not given"]
    named = int(given["refusals"].sum())
    said = f"{named:,} of {count(refused, 'refusal')} named a Retry-After"
    waited = int(given["waited_enough"].sum())
    if waited == 0:
        return f"{said}; no call waited that long and tried again, so whether it is enough was not seen."
    ok = int(given["then_ok"].sum())
    if waited == 1:
        return f"{said}; the one retry that waited at least that long {'succeeded' if ok else 'failed'}."
    return f"{said}; of the {waited:,} retries that waited at least that long, {ok:,} succeeded."


def retries_sentence(analysis: Analysis) -> str:
    """Say how often calls were tried again, and whether that helped."""
    found = analysis.retries
    if found.calls == 0 or found.attempts_per_call is None:
        return "There were no calls."
    if found.retried == 0:
        return (
            "The one call was not tried again."
            if found.calls == 1
            else f"Not one of the {found.calls:,} calls was tried again."
        )
    waited = duration(found.waited_s)
    again = f"{found.retried:,} of {count(found.calls, 'call')} {'was' if found.retried == 1 else 'were'}"
    return (
        f"{again} tried again and {found.recovered:,} of those succeeded; "
        f"{count(found.gave_up, 'call')} ended refused. A call took {found.attempts_per_call:.2f} "
        f"attempts on average, and {waited} went by in waits."
    )


def policy_in_words(retry: dict[str, Any]) -> str:
    """Describe a scenario's retry policy."""
    policy = retry.get("policy", "none")
    if policy == "none":
        return "none, each call has one attempt"
    how = {
        "retry_after": "waits as Retry-After says, else backs off",
        "backoff": "backs off, whatever the server says",
    }.get(policy, str(policy))
    parts = [how]
    if retry.get("base_s") and retry.get("cap_s"):
        parts.append(f"from {retry['base_s']:g} s up to {retry['cap_s']:g} s")
    if retry.get("max_attempts"):
        parts.append(f"at most {count(retry['max_attempts'], 'attempt')}")
    if policy == "retry_after" and retry.get("max_wait_s"):
        parts.append(f"gives up where told to wait more than {retry['max_wait_s']:g} s")
    return ", ".join(parts)
