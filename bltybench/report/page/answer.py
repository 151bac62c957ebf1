"""The answer at the top of a page: what limits the client, what to do about it, and how fast the API is."""

from dataclasses import dataclass

from msgspec import structs

from bltybench.limits.findings.advice import pace, per_minute, seconds, spacing
from bltybench.limits.findings.model import FindingsRecord, FitRecord
from bltybench.limits.models.families import (
    BUCKETS,
    FAMILIES,
    FIXED_WINDOW,
    LEAKY_QUEUE,
    prose_name,
    with_article,
)
from bltybench.metrics.analysis import load
from bltybench.metrics.documented import distinct
from bltybench.metrics.grading import Figure, affected
from bltybench.report import text
from bltybench.report.page.limits_section import LimitsSection, limits_section
from bltybench.report.summary import Summary, summary_of
from bltybench.runs.folder import RunFolder
from bltybench.runs.trials.search import SearchResult
from bltybench.scenario.api.documented_limits import TOKENS, limits_on

MAX_PARTS = 3
"""Maximum keys, models, or targets in a sentence."""
PROBE = "locust -f locustfiles/limits.py"
TWO_LIMITS = "two limits at once"
MAX_NAMED = 2
"""Maximum algorithms that the answer names if several fit."""
NO_DURATIONS = "which limit refused: the log has no durations"
MAX_OPEN = 3
"""Maximum open questions below the answer."""


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """The answer of one run."""

    title: str | None
    """The result as the page's title; None for a run whose title is the scenario's."""
    says: str
    """One sentence."""
    open: tuple[str, ...] = ()
    """What the run leaves open."""
    trusted: bool = True
    """Whether the sentence is about the server, and not about a failed run."""


def answer_of(folder: RunFolder) -> PageAnswer:
    """Return the answer of a run in a folder."""
    summary = summary_of(folder, load(folder))
    return answer(summary, limits_section(folder, draw=False))


def answer(summary: Summary, limits: LimitsSection | None) -> PageAnswer:
    """Return the answer of a run."""
    if summary.failure is not None:
        return PageAnswer("Nothing succeeded", f"{text.sentence(summary.failure)}.", trusted=False)
    wrong = affected(summary.audit)
    if Figure.LIMITS in wrong:
        broken = next(finding for finding in summary.audit if not finding.holds)
        return PageAnswer(None, f"This run does not describe the server: {broken.remedy}.", trusted=False)
    if summary.tournament is not None:
        used = summary.tournament.recommended
        best = "No policy is clearly the best" if used is None else f"Use {used}"
        return PageAnswer(best, summary.tournament.recommendation)
    title, facts, still_open = _facts(summary, limits)
    measured = Figure.TTFT if summary.timings_ms["ttft"]["n"] else Figure.CALL_LATENCY
    speed = f"{measured} is INVALID" if measured in wrong else _speed(summary, limits)
    return PageAnswer(title, text.sentence("; ".join([*facts, speed]) + "."), still_open)


def _facts(
    summary: Summary, limits: LimitsSection | None
) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """Return the title, what limits the client and what to do about it, and what remains open."""
    search = summary.search
    if search is not None and limits is not None and _exceeds_limit(search, limits):
        held = f"only short trials met the objectives at {text.compact(search.holds)} calls per minute"
        facts = (_limit(limits.record, summary), _pace(limits.record, summary), held)
        return _title(limits.record), facts, limits.still_open
    if search is not None:
        return (*_search(summary), () if search.ended == "found" else ("the search was not finished",))
    if limits is None:
        return _without_limits(summary)
    record = limits.record
    if limits.probed:
        return _title(record), (_limit(record, summary), _pace(record, summary)), limits.still_open
    if summary.rates["refused"].count:
        said = _parts(record) if record.parts else (_limit(record, summary), _pace(record, summary))
        return None, said, limits.still_open
    return None, _unlimited(summary), ()


def _without_limits(summary: Summary) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """Return the answer of a run whose attempts have no time of sending."""
    refused = summary.rates["refused"].count
    if refused:
        said = f"the server refused {refused:,} of {text.count(summary.attempts, 'request')}"
        return None, (said,), (NO_DURATIONS,)
    return None, _unlimited(summary) if summary.attempts else ("nothing was measured",), ()


def _exceeds_limit(search: SearchResult, limits: LimitsSection) -> bool:
    """Return whether the load that met the objectives exceeds the limit.

    A burst, or the boundary of two windows, can accept that much during a trial, but not for longer.
    """
    rates = [fit.rate_per_min for fit in limits.record.consistent]
    if search.load != "rate" or search.holds is None or not rates:
        return False
    return min(rates) * (1 + search.precision) < search.holds


def _search(summary: Summary) -> tuple[str | None, tuple[str, ...]]:
    search = summary.search
    if search is None or search.holds is None:
        return "No load met the objectives", ("no load met the objectives", "start the search lower")
    unit = "calls per minute" if search.load == "rate" else "users"
    holds = f"{text.compact(search.holds)} {unit}"
    spaced = f", one every {spacing(search.holds)}" if search.load == "rate" else ""
    do = f"send at most that{spaced}" if search.load == "rate" else "run at most that many users"
    if search.fails is None:
        return f"At least {holds}", (f"the objectives held up to {holds}, the highest load tried", do)
    fails = text.compact(search.fails)
    return f"{holds} meet the objectives", (f"the objectives held at {holds}, but not at {fails}", do)


def _title(record: FindingsRecord) -> str | None:
    """Return a probe's result as a title: the limit and its algorithm."""
    if record.slowest is not None:
        families = _families(record)
        named = len(families) <= MAX_NAMED
        algorithm = " or ".join(map(prose_name, families)) if named else "algorithm still open"
        if record.slowest.also is not None:
            algorithm = TWO_LIMITS
        return text.sentence(f"{_amount(record.slowest)}, {_possibly(record)}{algorithm}")
    if record.in_flight is not None:
        return f"{record.in_flight.limit} requests in flight"
    if record.ban is not None:
        return f"A refusal starts a ban of up to {seconds(record.ban.length_range_s[1])}"
    if record.status == "never_refused":
        return f"No limit up to {text.count(record.busiest_minute.accepted, 'request')} in 60 s"
    return {"always_refused": "Every request was refused", "nothing_sent": None}.get(
        record.status, "Rate limit not identified"
    )


def _families(record: FindingsRecord) -> tuple[str, ...]:
    """Return the remaining algorithms. Windows count as one, because they treat a client alike."""
    families = tuple(dict.fromkeys(fit.family for fit in record.consistent))
    if len(families) > 1 and {FAMILIES[family].kind for family in families if family in FAMILIES} == {
        "window"
    }:
        return (FIXED_WINDOW,)
    return families


def _possibly(record: FindingsRecord) -> str:
    """Return a qualification of the only remaining family if it is not confirmed."""
    only = len({fit.family for fit in record.consistent}) == 1
    return "possibly " if only and record.status == "ambiguous" else ""


def _amount(fit: FitRecord) -> str:
    """Return what the server accepts; of an imprecise limit, the rate at which to send."""
    if fit.also is not None:
        return f"{_amount(structs.replace(fit, also=None))} and {_amount(fit.also)}"
    if fit.rate_to_send_per_min < fit.rate_per_min:
        return f"at least {per_minute(fit.rate_to_send_per_min)}"
    if fit.family in BUCKETS:
        return f"{per_minute(fit.rate_per_min)} in bursts of up to {fit.limit}"
    if fit.family == LEAKY_QUEUE:
        return per_minute(fit.rate_per_min)
    return f"{text.count(fit.limit, 'request')} per {seconds(fit.period_s)}"


def _limit(record: FindingsRecord, summary: Summary) -> str:
    """Return what limits the client."""
    if record.slowest is not None:
        families = _families(record)
        named = " or ".join(map(with_article, families[:MAX_NAMED]))
        if len(families) > MAX_NAMED:
            named = f"{named}, or another of {len(families)} algorithms"
        if record.slowest.also is not None:
            named = TWO_LIMITS
        return f"the server accepts {_amount(record.slowest)} ({_possibly(record)}{named})"
    if record.in_flight is not None:
        return f"the server accepts {record.in_flight.limit} requests in flight"
    if record.ban is not None:
        return f"a refusal starts a ban of up to {seconds(record.ban.length_range_s[1])}"
    refused = summary.rates["refused"].count
    if not refused:
        return f"nothing was refused, up to {text.count(record.busiest_minute.accepted, 'request')} in 60 s"
    why = "a limit that is still unknown" if record.refused else "another limit than that of requests"
    return f"the server refused {refused:,} of {text.count(summary.attempts, 'request')} by {why}"


def _parts(record: FindingsRecord) -> tuple[str, str]:
    """Return what each key, model, or target accepts, of as many as a sentence can hold, and what to do."""
    of = " and ".join(dict.fromkeys(name for part in record.parts for name in part.owner))
    known = [(part.name, part.findings.slowest) for part in record.parts]
    named = [f"{text.bounded(name, 40)} {_amount(fit)}" for name, fit in known if fit is not None]
    listed = named[:MAX_PARTS] + ([f"{len(named) - MAX_PARTS} more"] if len(named) > MAX_PARTS else [])
    listed += [f"{len(known) - len(named)} still unknown"] if len(named) < len(known) else []
    return f"each {of} has limits of its own: {', '.join(listed)}", f"pace each {of} by itself"


def _pace(record: FindingsRecord, summary: Summary) -> str:
    """Return what to do about it."""
    if record.slowest is not None:
        slowest = record.slowest.rate_to_send_per_min
        return f"send {pace(slowest)}"
    if record.in_flight is not None:
        return f"keep at most {record.in_flight.limit} in flight"
    if record.ban is not None:
        return f"send {pace(record.ban.safe_rate_per_min)}, and nothing while refused"
    if not summary.rates["refused"].count:
        return "a client below that needs no pacing"
    if record.headers.without_retry_after.count == record.headers.without_retry_after.of:
        return f"back off after a refusal, and measure the limit with a probe ({PROBE})"
    return f"follow Retry-After, and measure the limit with a probe ({PROBE})"


def _unlimited(summary: Summary) -> tuple[str, ...]:
    """Return the answer of a run without refusals."""
    accepted, documented = summary.rates["accepted"], summary.limits["requests_per_min"]
    best = f"{accepted.best_per_min:,.0f} in 60 s"
    whole = f"all {summary.attempts:,} requests" if summary.attempts > 1 else "the only request"
    if accepted.count < summary.attempts:
        whole = f"{accepted.count:,} of {summary.attempts:,} requests"
    limit = f", at most {best}"
    if documented:
        below = accepted.best_per_min <= documented
        limit += f" ({'of' if below else 'more than'} the documented {documented:,})"
    return (f"nothing was refused: the server accepted {whole}{limit}", "this load needs no pacing")


def _speed(summary: Summary, limits: LimitsSection | None) -> str:
    """Return how fast the API is."""
    ttft, calls = summary.timings_ms["ttft"], summary.timings_ms["latency"]
    if ttft["p50"] is not None:
        return f"half of the streams return their first token within {text.milliseconds(ttft['p50'])}"
    if ttft["n"]:
        streams = text.count(int(ttft["n"]), "stream")
        return f"the slowest first token of {streams} took {text.milliseconds(ttft['max'])}"
    what = "one-token responses" if limits is not None and limits.probed else "calls"
    if calls["p50"] is not None:
        return f"half of the {what} take at most {text.milliseconds(calls['p50'])}"
    n = int(calls["n"] or 0)
    if not n and summary.imported is not None:
        return "the log does not show how fast it is"
    return f"{text.count(n, 'call')} succeeded, the slowest in {text.milliseconds(calls['max'])}"


def client_advice(summary: Summary, limits: LimitsSection | None, *, trusted: bool) -> list[tuple[str, str]]:
    """Return what the client should do, as pairs of topic and sentence."""
    if not trusted:
        return []
    found = [] if limits is None else [_topic(line) for line in limits.record.advice]
    topics = {topic for topic, _ in found}
    search = summary.search
    documented = distinct(summary.documented_limits)
    requests, slots = limits_on(documented, "requests"), limits_on(documented, "concurrency")
    tokens = limits_on(documented, *TOKENS)
    added: list[tuple[str, str]] = []
    exceeds = search is not None and limits is not None and _exceeds_limit(search, limits)
    if search is not None and search.holds is not None and not exceeds:
        found = [(topic, line) for topic, line in found if topic != "Rate"]
        added.append(_searched(search, summary.limits["requests_per_min"]))
    elif "Rate" not in topics and requests:
        rates = " and ".join(limit.words + limit.each for limit in requests)
        # Spreading the requests of a day over it would help no client.
        paced = [limit.per_min for limit in requests if limit.per_min >= limit.limit]
        spaced = f", one every {spacing(min(paced))}" if paced else ""
        untested = f"at most {rates}{spaced}, as documented"
        added.append(("Rate", f"{untested}; this run does not show the limit that is enforced."))
    topics |= {topic for topic, _ in added}
    if "Concurrency" not in topics:
        reached = f"this run had up to {text.number(summary.in_flight_max)}"
        added += [
            ("Concurrency", f"at most {limit.words}{limit.each}, as documented; {reached}.")
            for limit in slots
        ]
    if "Tokens" not in topics:
        added += [
            (
                "Tokens",
                f"at most {limit.words}{limit.each}, as documented; this run used {limit.highest:,.0f}.",
            )
            for limit in tokens
        ]
    if not summary.rates["refused"].count:
        added.append(
            ("After a refusal", "wait for Retry-After; without one, wait 1 s, then twice as long each time, "
             "with random jitter. Nothing was refused, so this run does not test that.")
        )  # fmt: skip
    order = {"Rate": 0, "Burst": 1, "Window boundary": 2, "Concurrency": 3, "Tokens": 4, "After a refusal": 5}
    return sorted([*found, *added], key=lambda item: order.get(item[0], len(order)))


def _searched(search: SearchResult, documented: int | None) -> tuple[str, str]:
    """Return the advice of a capacity search that found a load."""
    holds, met = search.holds or 0.0, "the highest load that met the objectives"
    if search.load == "rate":
        rate = f"at most {text.compact(holds)} calls per minute, one every {spacing(holds)}"
        short = documented is not None and holds > documented
        more = f" The documented limit of {documented:,} may refuse longer loads." if short else ""
        return "Rate", f"{rate}: {met}.{more}"
    return "Concurrency", f"at most {text.compact(holds)} users: {met}."


def _topic(line: str) -> tuple[str, str]:
    """Return topic and sentence of a line of advice."""
    topic, colon, rest = line.partition(": ")
    return (topic, rest) if colon and len(topic) <= 20 else ("", line)
