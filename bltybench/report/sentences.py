"""One-sentence findings about a run, for figures and sections."""

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.quota import first_refusal
from bltybench.report.text import clock, count, duration, milliseconds
from bltybench.scenario.api.documented_limits import amounts, limits_on
from bltybench.scenario.pacing import Pacing, PacingName
from bltybench.scenario.retry import Retry
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Scenario


def timeline_sentence(analysis: Analysis) -> str:
    """Return when refusals began and how many requests the 60 s before accepted, or that there were none."""
    offered, accepted = analysis.count_of("offered"), analysis.count_of("accepted")
    if offered == 0:
        return "Nothing was sent."
    limits = limits_on(analysis.limits, "requests")
    documented = f" (documented limit: {amounts(limits)})" if limits else ""
    first = first_refusal(analysis.attempts)
    if first is None and accepted == 0:
        return f"Of {count(offered, 'request')}, 0 were accepted and 0 refused{documented}."
    if first is None:
        best = analysis.best_of("accepted")
        requests = f"{accepted:,} of {offered:,} requests were"
        if accepted == offered:
            requests = "the only request was" if offered == 1 else f"all {offered:,} requests were"
        return f"Nothing was refused: {requests} accepted, at most {best:,.0f} in 60 s{documented}."
    at_s, before = first
    refused = analysis.count_of("refused")
    if accepted == 0:
        return f"{count(refused, 'refusal')}: the server accepted no request{documented}."
    return (
        f"Refusals began at {clock(at_s)}, after {count(before, 'request')} accepted in the 60 s "
        f"before{documented}. In total, {refused:,} of {offered:,} requests were refused."
    )


def latency_sentence(analysis: Analysis) -> str:
    """Return the latency of the median and the slowest call, if the sample allows it."""
    calls, streams = analysis.timing("latency"), analysis.timing("ttft")
    n = int(calls["n"] or 0)
    if n == 0:
        return "No call succeeded, so there is no latency to show. See the tables of refusals and errors."
    slowest = milliseconds(calls["max"])
    if calls["p50"] is None:
        if n == 1:
            return f"One call succeeded. It took {slowest}."
        return f"{n:,} calls succeeded, too few for a median. The slowest took {slowest}."
    median = milliseconds(calls["p50"])
    slow = f"Half of the {n:,} successful calls took at most {median}, the slowest {slowest}."
    if streams["p50"] is None:
        return slow
    return f"{slow} Half of the streams returned their first token within {milliseconds(streams['p50'])}."


def retries_sentence(analysis: Analysis) -> str:
    """Return how often calls were retried, and whether that helped."""
    retries = analysis.retries
    if retries.attempts_per_call is None:
        return "There were no calls."
    paced = ""
    if retries.paced:
        held = duration(retries.paced_s)
        paced = f" Pacing held {count(retries.paced, 'call')}, for {held} in total."
    if retries.retried == 0:
        none = (
            "The only call had no retries."
            if retries.calls == 1
            else f"0 of {retries.calls:,} calls had retries."
        )
        return none + paced
    return (
        f"{retries.retried:,} of {count(retries.calls, 'call')} had retries, and {retries.recovered:,} of "
        f"those succeeded. {count(retries.gave_up, 'call')} ended refused. On average, a call took "
        f"{retries.attempts_per_call:.2f} attempts. Waits took {duration(retries.waited_s)} in total.{paced}"
    )


POLICY_WORDS = {
    "fixed": "waits {base} each time, and ignores Retry-After",
    "exponential": "backs off {range}, and ignores Retry-After",
    "full_jitter": "backs off {range} with full jitter, and ignores Retry-After",
    "equal_jitter": "backs off {range} with equal jitter, and ignores Retry-After",
    "decorrelated_jitter": "backs off {range} with decorrelated jitter, and ignores Retry-After",
    "backoff": "backs off {range}, and ignores Retry-After",
    "retry_after": "waits for Retry-After, or backs off {range} without one",
    "retry_after_jitter": "waits for Retry-After plus up to 25%, or backs off {range} without one",
    "openai": "that of the openai package",
    "openai_2_51": "that of the openai package before 2.52.0",
    "litellm": "that of LiteLLM",
    "vercel_ai": "that of the Vercel AI SDK",
}
"""Retry policies in words, by name. ``none`` has a sentence of its own."""


PACING_WORDS: dict[PacingName, str] = {
    "token_bucket": "by token buckets of the limits",
    "even": "evenly, at the rate of the limits",
    "headers": "by the limits that responses announce",
    "aimd": "by additive increase and multiplicative decrease",
    "adaptive": "by adaptive throttling",
    "limiter": "by a copy of the limiter",
}
"""Pacing policies in words, by name. Without pacing, nothing is said."""


def client_policy(retry: Retry, pacing: Pacing) -> str:
    """Describe a scenario's retry policy, and its pacing if it has one."""
    if pacing.policy == "none":
        return retry_policy(retry)
    return f"{retry_policy(retry)}; requests are paced {PACING_WORDS[pacing.policy]}"


def policy_label(scenario: Scenario) -> str:
    """Return the names of a scenario's retry and pacing policies."""
    if isinstance(scenario.arrivals, Tournament):
        return f"{len(scenario.arrivals.policies)} policies, one after another"
    parts = [scenario.retry.policy.replace("_", "-")]
    parts += ["fallback"] if scenario.retry.fallback else []
    parts += [f"pacing {scenario.pacing.policy}"] if scenario.pacing.policy != "none" else []
    return ", ".join(parts)


def retry_policy(retry: Retry) -> str:
    """Describe a scenario's retry policy."""
    if retry.policy == "none":
        return "none, each call has one attempt"
    base, cap = f"{retry.base_s:g} s", f"{retry.cap_s:g} s"
    how = POLICY_WORDS[retry.policy].format(base=base, range=f"from {base} up to {cap}")
    parts = [how, f"{count(retry.max_attempts, 'attempt')} at most"]
    if retry.policy.startswith("retry_after"):
        parts.append(f"gives up if Retry-After is longer than {retry.max_wait_s:g} s")
    if retry.outcomes != Retry().outcomes:
        parts.append(f"retries {', '.join(retry.outcomes).replace('_', ' ') or 'nothing'}")
    if retry.retry_begun_streams:
        parts.append("retries streams that failed after their first token, too")
    if retry.budget != "none":
        parts.append(f"with the retry budget of {'gRPC' if retry.budget == 'grpc' else 'Finagle'}")
    return ", ".join(parts)
