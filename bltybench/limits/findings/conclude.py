"""Conclude from a run's attempts which limits the API enforces, and write that down."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from msgspec import UNSET, Struct, UnsetType, structs

from bltybench.limits.experiments.registry import (
    answers,
    by_experiment,
    header_honesty,
    measured_concurrency,
)
from bltybench.limits.findings import model, narrative
from bltybench.limits.findings.advice import advice
from bltybench.limits.findings.cautious import (
    blurred,
    for_clients,
    measured,
    unknown,
    unless_concurrency,
    unless_delayed,
)
from bltybench.limits.findings.limits_toml import limits_toml, request_limit
from bltybench.limits.findings.model import Findings
from bltybench.limits.findings.replay import agreement, confirmed, is_confirmed
from bltybench.limits.fit.in_flight import fit_concurrency, unless_full
from bltybench.limits.fit.result import Ban, Fit, Verdict
from bltybench.limits.models.families import model_of
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.classify import LIMIT_NAMES, refusal_statuses, refused_by
from bltybench.limits.observations.extract import EXACT, Timing, observations_of
from bltybench.limits.observations.observation import (
    Observation,
    busiest_period,
    most_informative,
)
from bltybench.limits.observations.proportion import Proportion
from bltybench.limits.observations.thresholds import ANSWERS, OBSERVATIONS
from bltybench.limits.observations.waits import waits_of
from bltybench.limits.pairs.select import fit_limits
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.quick_plan import without_refill
from bltybench.limits.probe.thresholds import CONTEXT
from bltybench.runs.attempt import Attempt

T = TypeVar("T", bound=Struct)


def find(
    attempts: Sequence[Attempt],
    start_s: float,
    documented_per_min: int | None,
    verdict: Verdict | None = None,
    *,
    known: ProbeContext | None = None,
    asked: Sequence[str] = (),
    probed: bool = False,
    timing: Timing = EXACT,
) -> Findings:
    """Return what the attempts of a run show about its limits.

    ``start_s`` is the run's start in Unix time, ``verdict`` is the result for the request limit if there is
    one already, ``known`` holds the other documented limits, and ``asked`` names the requested experiments.
    ``probed``: a probe timed the requests, so that each refusal shows something. Other runs need several.
    ``timing`` is how exactly the attempts are timed.
    """
    known = known or ProbeContext()
    if timing.coarse:
        attempts = [structs.replace(one, remaining_requests=None, reset_requests_s=None) for one in attempts]
    # Records come from spool files in any order.
    groups = by_experiment(sorted(attempts, key=lambda one: (one.sent_ns or one.end_ns, one.end_ns)))
    own = groups[None]
    statuses = refusal_statuses(own)
    slots_taken = known.measured_concurrency or measured_concurrency(groups, start_s, known)
    limited = own if slots_taken is None else unless_full(own, slots_taken)
    observations = observations_of(limited, start_s, timing)
    count, at_s = busiest_period(observations)
    slots = None if timing.coarse or timing.unclear or len(limited) < len(own) else fit_concurrency(own)
    concurrency = slots if slots is not None and slots.explains else None
    if verdict is None:
        hints_s = period_hints(documented_per_min, known)
        verdict = fit_limits(most_informative(observations), hints_s=hints_s, probed=probed)
        if known.quick:
            verdict = without_refill(verdict)
    # The probe's requests generate one token, so only the server's limits delay them.
    waits = waits_of(observations) if probed else None
    verdict = unless_delayed(unless_concurrency(verdict, slots), waits, observations)
    if verdict.exhausted is not None:
        since_s = verdict.exhausted.since_s
        observations = [one for one in observations if one.sent_s <= since_s]
    verdict = measured(verdict) if probed else for_clients(verdict, documented_per_min, observations)
    if timing.clock_s > OBSERVATIONS.max_clock_s:
        verdict = blurred(verdict, busiest_period(observations, timing.clock_s)[0])
    if timing.unclear and verdict.status not in {"never_refused", "always_refused"}:
        verdict = unknown(verdict, timing.unclear)
    honesty = header_honesty(groups, verdict)
    if timing.coarse:
        honesty = replace(honesty, retry_enough=Proportion(0, 0), retry_early=Proportion(0, 0))
    if not timing.headers:
        honesty = replace(honesty, without_retry_after=Proportion(0, 0))
    known = known.with_limit(verdict, documented_per_min)
    answered = tuple(answers(groups, start_s, known, honesty, asked))
    replayed = None
    if verdict.status == "found":
        verdict, replayed = _replayed(verdict, most_informative(observations), answered)
    elif verdict.ban is not None:
        ban, replayed = _replayed_ban(verdict.ban, most_informative(observations), answered)
        verdict = replace(verdict, ban=ban)
    return Findings(
        documented_per_min,
        verdict,
        honesty,
        statuses,
        refused_by(own, statuses),
        count,
        at_s,
        concurrency,
        answered,
        replayed,
        waits,
        full_refusals=len(own) - len(limited),
    )


def period_hints(documented_per_min: int | None, known: ProbeContext) -> tuple[float, ...]:
    """Return the period that is expected because of what is documented, if any."""
    usual_period_s = None if documented_per_min is None else CONTEXT.usual_period_s
    return tuple(filter(None, [known.expected_period_s or usual_period_s]))


def _replayed(
    verdict: Verdict, observations: Sequence[Observation], answered: Sequence[Answer]
) -> tuple[Verdict, Proportion]:
    """Return the verdict with those of the equivalent parameters that make most decisions, and how many.

    The fit is charged with the observed decisions. Charged with its own, small errors add up.
    """

    def replay(fit: Fit) -> Proportion:
        rule = request_limit(limits_toml(fit, "", answered))
        return agreement(observations, partial(model_of, rule))

    best, *others = verdict.consistent
    made = replay(best)
    if not is_confirmed(made):
        made_by = [(made, best), *((replay(fit), fit) for fit in best.variants)]
        made, best = max(made_by, key=lambda pair: pair[0].count)
    return confirmed(replace(verdict, consistent=(best, *others)), made), made


def _replayed_ban(
    ban: Ban, observations: Sequence[Observation], answered: Sequence[Answer]
) -> tuple[Ban, Proportion]:
    """Return the ban with the family first that makes most decisions, and how many.

    If several make as many, the slowest is first: a client that respects it starts no ban.
    """

    def replay(fit: Fit) -> Proportion:
        rule = request_limit(limits_toml(fit, "", answered, ban=ban))
        return agreement(observations, partial(model_of, rule))

    made_by = {fit: replay(fit) for fit in ban.fits}
    fits = sorted(ban.fits, key=lambda fit: (-made_by[fit].count, fit.rate_per_min))
    return replace(ban, fits=tuple(fits)), made_by[fits[0]]


def to_record(
    findings: Findings, run_id: str, stopped: str | UnsetType | None = UNSET
) -> model.FindingsRecord:
    """Return the findings in the form of ``limits.json``; ``stopped`` says why the probe ended early."""
    verdict, honesty, slots = findings.verdict, findings.honesty, findings.in_flight
    at_s, queue, ban, exhausted = findings.busiest_at_s, verdict.queue, verdict.ban, verdict.exhausted
    return model.FindingsRecord(
        run_id=run_id,
        stopped=stopped,
        status=verdict.status,
        reason=verdict.reason or None,
        confidence=None if verdict.confidence is None else round(verdict.confidence, 4),
        attempts=verdict.attempts,
        accepted=verdict.accepted,
        refused=verdict.refused,
        refusal_status=findings.refusal_status,
        refusal_statuses=dict(findings.refusal_statuses),
        refused_by={LIMIT_NAMES[limit]: count for limit, count in findings.refused_by.items()},
        documented=model.DocumentedRecord(requests_per_min=findings.documented_per_min),
        announced=model.AnnouncedRecord(limit=honesty.announced_limit, dialect=honesty.dialect),
        observed=None if verdict.best is None else _fit(verdict.best),
        consistent=tuple(_fit(candidate) for candidate in verdict.consistent),
        rejected=tuple(
            _copied(model.RuledOutRecord, candidate)
            for candidate in verdict.fits
            if candidate.family not in verdict.families
        ),
        in_flight=None if slots is None else _copied(model.InFlightRecord, slots),
        delayed=None
        if queue is None
        else _copied(model.DelayRecord, queue, longest_wait_s=round(queue.longest_wait_s, 3)),
        ban=None if ban is None else _copied(model.BanRecord, ban),
        exhausted=None if exhausted is None else _copied(model.ExhaustedRecord, exhausted),
        busiest_minute=model.BusiestRecord(
            accepted=findings.busiest_count,
            at=datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds") if at_s else None,
        ),
        headers=model.HeaderRecord(
            remaining_steps=_proportion(honesty.remaining_steps),
            retry_enough=_proportion(honesty.retry_enough),
            retry_early=_proportion(honesty.retry_early),
            without_retry_after=_proportion(honesty.without_retry_after),
        ),
        replayed=None if findings.replayed is None else _proportion(findings.replayed),
        answers=tuple(_answer(answer) for answer in findings.answers),
        says=tuple(narrative.sentences(findings)),
        advice=tuple(advice(findings)),
    )


def _copied(record: type[T], source: object, **other: object) -> T:
    """Return a record with the attributes of ``source``, numbers rounded, and ``other`` fields."""
    copied = {name: _rounded(getattr(source, name)) for name in record.__struct_fields__ if name not in other}
    return record(**copied, **other)


def _rounded(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_rounded(item) for item in value)
    return round(value, 4) if isinstance(value, float) else value


def _fit(best: Fit) -> model.FitRecord:
    written = best.written()
    free = best.free if best.traits.kind == "queue" else None
    return _copied(
        model.FitRecord,
        written,
        period_s=written.period_s,
        period_range_s=written.period_range_s,
        phase_s=written.phase_s(),
        free=free,
        also=None if best.also is None else _fit(best.also),
    )


def _proportion(value: Proportion) -> model.ProportionRecord:
    interval = value.interval()
    if interval is not None:
        interval = (math.floor(1000 * interval[0]) / 1000, math.floor(1000 * interval[1]) / 1000)
    return _copied(model.ProportionRecord, value, interval=interval)


def _answer(answer: Answer) -> model.AnswerRecord:
    low, high = answer.range or (None, None)
    return _copied(
        model.AnswerRecord,
        answer,
        value=answer.value,
        range=None if low is None else (low, None if high == math.inf else high),
        confidence=None
        if answer.confidence is None
        else min(ANSWERS.max_confidence, round(answer.confidence, 4)),
    )
