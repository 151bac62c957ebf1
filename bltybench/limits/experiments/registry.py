"""The experiments of the probe, and the answers that the attempts of a run give with them."""

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
from bltybench.limits.observations.classify import Decision, refusal_statuses
from bltybench.limits.observations.probe_result import ProbeResult, result_of
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import STAGE_PREFIX, Experiment
from bltybench.runs.attempt import Attempt


@dataclass(frozen=True, slots=True)
class ExperimentKind:
    """The steps of an experiment, and the analysis of their results."""

    steps: Callable[[ProbeContext, float], Experiment]
    analyze: Callable[[Sequence[ProbeResult], ProbeContext], list[Answer]]


EXPERIMENTS = {
    concurrency_steps.NAME: ExperimentKind(concurrency_steps.steps, concurrency_analysis.analyze),
    tokens_steps.NAME: ExperimentKind(tokens_steps.steps, tokens_analysis.analyze),
    charges_steps.NAME: ExperimentKind(charges_steps.steps, charges_analysis.analyze),
}
"""Experiments by the name that is stored with their attempts, in the order of running them."""
REQUESTS = "requests"
"""Name of the measurement of the request limit, which follows a plan of its own."""
MEASUREMENTS = (REQUESTS, *EXPERIMENTS)
SEPARATE_ROLES = {
    charges_steps.SECOND_KEY: ("limit_per_key", False),
    charges_steps.OTHER_MODEL: ("limit_per_model", False),
    charges_steps.MODELS: ("models_endpoint_counts", True),
    **{role: (charges_analysis.KINDS[kind][0], True) for kind, role in charges_steps.TESTED.items()},
}
"""Roles of requests that may not count in the probe's own limit, with the answer that means that they do."""

AttemptsByExperiment = Mapping[str | None, Sequence[Attempt]]
"""Attempts by the name of their experiment; under None those of the request limit, or of an ordinary run."""


def by_experiment(attempts: Sequence[Attempt]) -> dict[str | None, list[Attempt]]:
    """Group attempts by experiment. The group None is always there."""
    groups: dict[str | None, list[Attempt]] = {None: []}
    for attempt in attempts:
        stage = attempt.stage or ""
        name = stage.removeprefix(STAGE_PREFIX) if stage.startswith(STAGE_PREFIX) else None
        groups.setdefault(name, []).append(attempt)
    return groups


def measured_concurrency(attempts: AttemptsByExperiment, start_s: float, context: ProbeContext) -> int | None:
    """Return the limit on requests in flight that an experiment measured; None if none did."""
    group = attempts.get(concurrency_steps.NAME, ())
    statuses = refusal_statuses([attempt for own in attempts.values() for attempt in own])
    results = [result_of(attempt, start_s, statuses) for attempt in group]
    found = concurrency_analysis.analyze(results, context)
    values = [answer.value for answer in found if answer.question == concurrency_analysis.LIMIT]
    return next((value for value in values if isinstance(value, int)), None)


def header_honesty(attempts: AttemptsByExperiment, verdict: Verdict) -> Honesty:
    """Compare headers with decisions. If refused requests may count, a request prolongs the wait."""
    may_count = not verdict.consistent or any(
        fit.count_refused or (fit.count_refused is None and fit.traits.kind != "window")
        for fit in verdict.consistent
    )
    charges = attempts.get(charges_steps.NAME, ())
    own = [*attempts.get(None, ()), *(attempt for attempt in charges if attempt.name not in SEPARATE_ROLES)]
    return honesty(own, undisturbed=may_count)


def answers(
    attempts: AttemptsByExperiment,
    start_s: float,
    context: ProbeContext,
    headers: Honesty,
    requested: Sequence[str] = (),
) -> list[Answer]:
    """Return what a run shows about its experiments, those that it was ``requested`` to make, and headers."""
    statuses = refusal_statuses([attempt for group in attempts.values() for attempt in group])
    results = {
        name: [result_of(attempt, start_s, statuses) for attempt in group] for name, group in attempts.items()
    }
    concluded: list[Answer] = []
    for name, experiment in EXPERIMENTS.items():
        if name in attempts or name in requested:
            own = sorted(results.get(name, ()), key=lambda result: result.sent_s)
            concluded += experiment.analyze(own, context)
    about_headers = accuracy.analyze(*_counted(results, concluded), headers, context)
    if not concluded and not requested:  # an ordinary run reports only what it shows
        about_headers = [answer for answer in about_headers if answer.value is not None]
    return [*concluded, *about_headers]


def _counted(
    results: Mapping[str | None, Sequence[ProbeResult]], concluded: Sequence[Answer]
) -> tuple[list[ProbeResult], list[ProbeResult]]:
    """Return the requests that count in the request limit, and those that may count."""
    values = {answer.question: answer.value for answer in concluded}
    counted: list[ProbeResult] = []
    ambiguous: list[ProbeResult] = []
    for result in (result for group in results.values() for result in group):
        if result.decision is Decision.NOT_SENT:
            continue
        question, value_if_counted = SEPARATE_ROLES.get(result.role, ("", True))
        if not question:
            counted.append(result)
        elif result.refused:
            continue
        elif values.get(question) is value_if_counted:
            # Its headers may be about another limit.
            counted.append(replace(result, decision=Decision.ACCEPTED, remaining=None, reset_s=None))
        elif values.get(question) is None:
            ambiguous.append(result)
    return counted, ambiguous
