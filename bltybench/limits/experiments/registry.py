"""The questions beside the limit of requests: their experiments, and what a record of them says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bltybench.limits.experiments import (
    charges_analysis,
    charges_steps,
    concurrency_analysis,
    concurrency_steps,
    tokens_analysis,
    tokens_steps,
)
from bltybench.limits.fit.result import Verdict
from bltybench.limits.headers import accuracy
from bltybench.limits.headers.honesty import Honesty, honesty
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.evidence import Row, refusal_status
from bltybench.limits.observations.probe_result import ProbeResult, seen_of
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import STAGE_PREFIX, Experiment


@dataclass(frozen=True, slots=True)
class Question:
    """An experiment, and the judgement of what is seen in it."""

    ask: Callable[[ProbeContext, float], Experiment]
    judge: Callable[[Sequence[ProbeResult], ProbeContext], list[Answer]]


QUESTIONS: dict[str, Question] = {
    concurrency_steps.NAME: Question(concurrency_steps.steps, concurrency_analysis.analyze),
    tokens_steps.NAME: Question(tokens_steps.steps, tokens_analysis.analyze),
    charges_steps.NAME: Question(charges_steps.steps, charges_analysis.analyze),
}
"""By the name that is stored with their attempts, in the order in which they are asked."""

REQUESTS = "requests"
ALL = (REQUESTS, *QUESTIONS)

OTHERS = {
    charges_steps.SECOND_KEY: ("limit_per_key", False),
    charges_steps.OTHER_MODEL: ("limit_per_model", False),
    charges_steps.MODELS: ("models_endpoint_counts", True),
    **{role: (charges_analysis.KINDS[kind][0], True) for kind, role in charges_steps.TESTED.items()},
}
"""Roles of requests that may not count in the limit of the probe's own key and model, and what must be found
that they do."""


def question_of(row: Row) -> str | None:
    """Return the name of the experiment that an attempt belongs to; None for others."""
    stage = row.get("stage")
    return (
        stage.removeprefix(STAGE_PREFIX)
        if isinstance(stage, str) and stage.startswith(STAGE_PREFIX)
        else None
    )


def by_question(rows: Sequence[Row]) -> dict[str | None, list[Row]]:
    """Return the attempts of each experiment; under None all others: of an ordinary run, for one."""
    found: dict[str | None, list[Row]] = {None: []}
    for row in rows:
        found.setdefault(question_of(row), []).append(row)
    return found


def sights(rows: Sequence[Row], start_s: float) -> list[ProbeResult]:
    """Return what attempts of one experiment say."""
    refusal = 429 if any(row["status"] == 429 for row in rows) else None
    return sorted((seen_of(row, start_s, refusal) for row in rows), key=lambda each: each.sent_s)


def header_rows(rows: Mapping[str | None, Sequence[Row]]) -> list[Row]:
    """Return the attempts whose refusals and headers are about the limit of requests."""
    charges = rows.get(charges_steps.NAME, ())
    return [*rows.get(None, ()), *(row for row in charges if row.get("name") not in OTHERS)]


def told_by(rows: Mapping[str | None, Sequence[Row]], verdict: Verdict) -> Honesty:
    """Compare headers and what happened. Where refusals may count, asking makes a wait longer."""
    counting = not verdict.consistent or any(
        each.count_refused or (each.count_refused is None and "window" not in each.family)
        for each in verdict.consistent
    )
    return honesty(header_rows(rows), undisturbed=counting)


def answers(
    rows: Mapping[str | None, Sequence[Row]],
    start_s: float,
    known: ProbeContext,
    told: Honesty,
    asked: Sequence[str] = (),
) -> list[Answer]:
    """Return what a record says of each experiment that is in it or was ``asked`` for, and of the headers."""
    found: list[Answer] = []
    for name, question in QUESTIONS.items():
        if name in rows or name in asked:
            found += question.judge(sights(rows.get(name, ()), start_s), known)
    headers = accuracy.judge(*_counted(rows, start_s, found), told, known)
    # Of a run that was made for something else, only what it tells.
    return [*found, *(each for each in headers if found or asked or each.value is not None)]


def _counted(
    rows: Mapping[str | None, Sequence[Row]], start_s: float, found: Sequence[Answer]
) -> tuple[list[ProbeResult], list[ProbeResult]]:
    """Return the requests that count in one limit, and those of which that was not found out."""
    values = {each.question: each.value for each in found}
    status = refusal_status(rows.get(None, ()))
    sure: list[ProbeResult] = []
    doubtful: list[ProbeResult] = []
    for row in (row for each in rows.values() for row in each if row["sent_ns"] is not None):
        seen = seen_of(row, start_s, status)
        question, counts = OTHERS.get(str(row.get("name")), ("", True))
        if not question:
            sure.append(seen)
        elif seen.refused:
            continue
        elif values.get(question) is counts:
            # Its headers may be about something else.
            sure.append(replace(seen, accepted=True, remaining=None, reset_s=None))
        elif values.get(question) is None:
            doubtful.append(seen)
    return sure, doubtful
