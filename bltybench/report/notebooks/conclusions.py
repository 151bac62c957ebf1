"""What each notebook concludes from its run, in words."""

import numpy as np

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.concurrency import per_bin
from bltybench.metrics.frame import NS_PER_S, ints
from bltybench.report import text
from bltybench.report.comparison.model import name_of
from bltybench.report.page.answer import answer
from bltybench.report.page.limits_section import LimitsSection
from bltybench.report.sentences import latency_sentence
from bltybench.report.summary import summarize
from bltybench.runs.attempt import TokensSource
from bltybench.scenario.api.documented_limits import What, per_minute

MINUTE_S = 60
NOTHING_SENT = "Nothing was sent, so this run has no numbers to conclude from."


def requests(run: Analysis) -> str:
    """Return how many requests were accepted and refused, and how the best minute compares with the limit."""
    if run.failure is not None:
        return _failed(run)
    offered, accepted, refused = (run.count_of(rate) for rate in ("offered", "accepted", "refused"))
    all_of = "the only request" if offered == 1 else f"all {offered:,} requests"
    says = f"The server accepted {all_of if accepted == offered else f'{accepted:,} of {offered:,} requests'}"
    if refused:
        says += f" and refused {refused:,} ({text.percent(refused / offered)})"
    best = _of_documented(run.best_of("accepted"), _documented(run, "requests"))
    return f"{says}. It accepted at most {best} in 60 s.{_two_windows(run)}{_shortness(run)}"


def tokens(run: Analysis) -> str:
    """Return how many tokens the best minute had, and what fraction the server itself counted."""
    if run.failure is not None:
        return _failed(run)
    total = run.count_of("total_tokens")
    if not total:
        return "No response has a number of tokens, so this run can't show tokens per minute."
    best = _of_documented(run.best_of("total_tokens"), _documented(run, "tokens"))
    prompts = text.percent(run.count_of("prompt_tokens") / total)
    source = run.attempts["tokens_source"].dropna()
    counted = text.percent(float((source == TokensSource.USAGE).mean())) if len(source) else "0%"
    return (
        f"The accepted requests used at most {best} tokens in 60 s. {prompts} of all {total:,} tokens were "
        f"prompts. The server reported the counts of {counted} of the responses.{_shortness(run)}"
    )


def in_flight(run: Analysis) -> str:
    """Return the peak and mean in flight, compared with the documented limit and with Little's law."""
    peak, at_s, mean = run.in_flight
    if at_s is None:
        return _failed(run) if run.failure is not None else NOTHING_SENT
    limit = _documented(run, "concurrency")
    documented = f" of the documented {limit:,}" if limit else ""
    reached = " (reached)" if limit and peak >= limit else ""
    return (
        f"At most {peak:,}{documented}{reached} requests were in flight, first at {text.clock(at_s)}, and "
        f"{mean:.2f} on average. {littles_law(run)}"
    )


def littles_law(run: Analysis) -> str:
    """Compare the mean number in flight with the product of throughput and latency, which it equals."""
    sent = run.attempts[run.attempts["sent_ns"].notna()]
    begin_ns = int(sent["sent_ns"].min()) if run.warm_up.attempts and len(sent) else 0
    if sent.empty or run.end_ns <= begin_ns:
        return "There is no throughput to check that with."
    took_s = (ints(sent, "end_ns") - ints(sent, "sent_ns")) / NS_PER_S
    per_s = len(took_s) / ((run.end_ns - begin_ns) / NS_PER_S)
    _, mean = per_bin(run.steps, np.array([begin_ns, run.end_ns]))
    after = " after the warm-up" if begin_ns else ""
    return (
        f"Little's law{after}: {per_s:.3g} requests per second, each in flight for "
        f"{text.milliseconds(float(took_s.mean()) * 1000)}, make {per_s * took_s.mean():.2f} in flight; "
        f"{float(mean[0]):.2f} were."
    )


def latency(run: Analysis) -> str:
    """Return the latency of the median and the slowest call, and whether it drifted."""
    if run.failure is not None:
        return _failed(run)
    says = latency_sentence(run)
    for row in run.drift[run.drift["drifts"].astype(bool)].to_dict("records"):
        change = text.signed(float(row["change"]), "ms")
        says += f" {name_of(str(row['metric']))} drifts: its median changed by {change} over the run."
    return says


def rate_limits(run: Analysis, limits: LimitsSection | None) -> str:
    """Return what limits the client and what to do about it, as the run's page does."""
    return NOTHING_SENT if run.attempts.empty else answer(summarize(run), limits).says


def _failed(run: Analysis) -> str:
    if run.attempts.empty:
        return NOTHING_SENT
    return f"Nothing succeeded: {text.bounded(run.failure, 600)}."


def _documented(run: Analysis, what: What) -> int | None:
    return per_minute(run.limits, what)


def _of_documented(best: float, documented: int | None) -> str:
    if not documented:
        return f"{best:,.0f}"
    return f"{best:,.0f} ({text.percent(best / documented)} of the documented {documented:,})"


def _two_windows(run: Analysis) -> str:
    """Explain how the best minute can have more requests than the documented limit."""
    limit, best = _documented(run, "requests"), run.best_of("accepted")
    if not limit or not limit < best <= 2 * limit:
        return ""
    return " Fixed windows allow that: 60 s around a boundary can hold almost two windows' worth."


def _shortness(run: Analysis) -> str:
    if run.end_ns >= MINUTE_S * NS_PER_S:
        return ""
    return f" The run lasted only {text.duration(run.end_ns / NS_PER_S)}, so 60 s may hold more."
