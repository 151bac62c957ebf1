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
from bltybench.limits.observations.classify import Decision, refusal_status
from bltybench.limits.observations.probe_result import ProbeResult, result_of
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import STAGE_PREFIX, Experiment
from bltybench.runs.attempt import Attempt


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


AttemptsByExperiment = Mapping[str | None, Sequence[Attempt]]
"""Attempts by the name of their experiment; under None those of the request limit, or of an ordinary run."""


def by_experiment(attempts: Sequence[Attempt]) -> dict[str | None, list[Attempt]]:
    """Group attempts by experiment. The group None is always there."""
    groups: dict[str | None, list[Attempt]] = {None: []}
    for attempt in attempts:
        stage = attempt.stage
        name = (
            stage.removeprefix(STAGE_PREFIX) if stage is not None and stage.startswith(STAGE_PREFIX) else None
        )
        groups.setdefault(name, []).append(attempt)
    return groups


def header_honesty(attempts: AttemptsByExperiment, verdict: Verdict) -> Honesty:
    """Compare headers with decisions. If refusals may count, a request during a wait prolongs the wait."""
    counting = not verdict.consistent or any(
        candidate.count_refused or (candidate.count_refused is None and "window" not in candidate.family)
        for candidate in verdict.consistent
    )
    charges = attempts.get(charges_steps.NAME, ())
    own = [*attempts.get(None, ()), *(attempt for attempt in charges if attempt.name not in OTHERS)]
    return honesty(own, undisturbed=counting)


def answers(
    attempts: AttemptsByExperiment,
    start_s: float,
    known: ProbeContext,
    told: Honesty,
    asked: Sequence[str] = (),
) -> list[Answer]:
    """Return what a run shows about the headers and each experiment that it made or was ``asked`` to make."""
    status = refusal_status([attempt for group in attempts.values() for attempt in group])
    results = {
        name: [result_of(attempt, start_s, status) for attempt in group] for name, group in attempts.items()
    }
    found: list[Answer] = []
    for name, question in QUESTIONS.items():
        if name in attempts or name in asked:
            own = sorted(results.get(name, ()), key=lambda result: result.sent_s)
            found += question.judge(own, known)
    headers = accuracy.analyze(*_counted(results, found), told, known)
    # An ordinary run reports only what it shows.
    return [*found, *(answer for answer in headers if found or asked or answer.value is not None)]


def _counted(
    results: Mapping[str | None, Sequence[ProbeResult]], found: Sequence[Answer]
) -> tuple[list[ProbeResult], list[ProbeResult]]:
    """Return the requests that count in the request limit, and those of which that is unknown."""
    values = {answer.question: answer.value for answer in found}
    counted: list[ProbeResult] = []
    unclear: list[ProbeResult] = []
    for result in (result for group in results.values() for result in group):
        if result.decision is Decision.NOT_SENT:
            continue
        question, counts = OTHERS.get(result.role, ("", True))
        if not question:
            counted.append(result)
        elif result.refused:
            continue
        elif values.get(question) is counts:
            # Its headers may be about another limit.
            counted.append(replace(result, decision=Decision.ACCEPTED, remaining=None, reset_s=None))
        elif values.get(question) is None:
            unclear.append(result)
    return counted, unclear
