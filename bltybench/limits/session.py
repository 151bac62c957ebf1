"""State of one probe: what to measure, the attempts so far, and the findings. It neither waits nor sends."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_high

import msgspec

from bltybench.limits.experiments import concurrency_steps
from bltybench.limits.experiments.concurrency_analysis import LIMIT
from bltybench.limits.experiments.registry import EXPERIMENTS, MEASUREMENTS, REQUESTS, by_experiment
from bltybench.limits.findings.cautious import CONCURRENCY_FITS, unknown
from bltybench.limits.findings.conclude import find
from bltybench.limits.findings.limits_toml import limits_toml
from bltybench.limits.findings.model import Findings
from bltybench.limits.findings.replay import is_confirmed
from bltybench.limits.fit.in_flight import fit_concurrency, unless_full
from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.classify import classify, refusal_statuses
from bltybench.limits.observations.extract import NS, observations_of
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.planner import PlanOptions
from bltybench.limits.probe.thresholds import CONTEXT, SESSION
from bltybench.runs.attempt import Attempt, Outcome

RECORD_FILE = "probe.json"
"""File in the run's directory that holds the ProbeRecord."""
ENFORCEABLE = {LIMIT, "token_limit"}
"""Questions whose answer is worth a limits.toml even if the request limit is unknown."""
FAILURES = {Outcome.CLIENT_ERROR, Outcome.TRANSPORT_ERROR, Outcome.TIMEOUT}
TIMES = ("due_ns", "sent_ns", "headers_ns", "first_token_ns", "first_output_ns", "last_token_ns", "end_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTask:
    """What to measure, the budget, and the documented limits."""

    questions: tuple[str, ...] = MEASUREMENTS
    quick: bool = False
    budget: int = 1000
    """Maximum requests for all questions together."""
    tokens: int = 1_000_000
    """Maximum tokens for all questions together."""
    period_s: float | None = None
    """Period given by the user, in seconds."""
    other_model: str | None = None
    second_key: bool = False
    with_401: bool = False
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrency: int | None = None

    @property
    def usual_duration_s(self) -> float:
        """Duration if the limits are as documented, in seconds."""
        periods = (
            SESSION.quick_periods
            if self.quick
            else sum(map(SESSION.usual_periods.__getitem__, self.questions))
        )
        return periods * (self.period_s or CONTEXT.usual_period_s)


class ProbeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What ``bltybench limits`` and a resuming probe need besides the attempts: ``probe.json`` of a run."""

    task: ProbeTask
    done: tuple[str, ...] = ()
    """Questions that were measured completely, by this run or by the one that it resumes."""
    resumed: str | None = None
    """ID of the run that this one resumes."""
    resumed_done: tuple[str, ...] = ()
    """Questions whose answers come from that run."""


class ProbeSession:
    """The record of one probe."""

    def __init__(self, task: ProbeTask, start_s: float) -> None:
        """Start at ``start_s``, the zero of the attempts' time axis in Unix time."""
        self.task = task
        self.start_s = start_s
        self.attempts: list[Attempt] = []
        """Attempts for the request limit."""
        self.experiment_attempts: list[Attempt] = []
        self.done: set[str] = set()
        """Questions that were measured completely, by this run or by the one that it resumes."""
        self._earlier: dict[str | None, list[Attempt]] = {None: []}
        """Attempts of the resumed run, by question, on this run's time axis."""
        self._measured_concurrency: int | None = None
        self._failures = 0
        """Failures in a row."""

    def resume(self, attempts: Iterable[Attempt], shift_ns: int, done: Iterable[str]) -> None:
        """Continue an interrupted probe, after adding ``shift_ns`` to the times of its attempts.

        The request limit continues from its attempts. An interrupted experiment starts again.
        """
        self.done = {name for name in done if name in MEASUREMENTS}
        by_name = by_experiment([_shifted(attempt, shift_ns) for attempt in attempts])
        self._earlier = {name: own for name, own in by_name.items() if name is None or name in self.done}

    # The request limit

    def plan_options(self, sent: int = 0) -> PlanOptions:
        """Return the budget and prior knowledge of the plan for the request limit.

        ``sent`` is the number of requests of earlier experiments.
        """
        task, budget, slots = self.task, self.task.budget, self._measured_concurrency
        if len(task.questions) > 1:
            budget = min(SESSION.request_limit_budget, round(SESSION.request_limit_fraction * budget))
        budget = min(budget, task.budget - len(self.attempts) - sent)
        period_s, limit = task.period_s, None
        if task.requests_per_min is not None:
            period_s = period_s or CONTEXT.usual_period_s
            limit = max(1, round(task.requests_per_min * period_s / 60))
        earlier = () if slots else tuple(observations_of(self._earlier[None], self.start_s))
        return PlanOptions(
            budget=budget,
            quick=task.quick,
            period_s=period_s,
            limit=limit,
            earlier=earlier,
            max_in_flight=None if slots is None else slots - 1,
        )

    def verdict(self) -> Verdict:
        """Return the verdict on the request limit from which the experiments start: that of the findings.

        The plan's own verdict ignores that released slots of a concurrency limit can imitate a rate limit.
        """
        own, documented = [*self._earlier[None], *self.attempts], self.task.requests_per_min
        verdict = find(own, self.start_s, documented, known=self.context(), probed=True).verdict
        return unknown(verdict, CONCURRENCY_FITS) if self.slots_refuse() else verdict

    def add(self, attempt: Attempt) -> bool:
        """Record an attempt for the request limit. Return False after too many failures in a row."""
        self.attempts.append(attempt)
        # A 403 can be a refusal.
        refused = classify(attempt, refusal_statuses(self.attempts)).refused
        failed = attempt.outcome in FAILURES and not refused
        self._failures = self._failures + 1 if failed else 0
        return self._failures < SESSION.max_failures

    def counts_since(self, first: int) -> tuple[int, int]:
        """Return how many attempts from index ``first`` on the request limit accepted and refused."""
        statuses = refusal_statuses(self.attempts)
        accepted = [classify(attempt, statuses).by_request_limit for attempt in self.attempts[first:]]
        return accepted.count(True), accepted.count(False)

    def refused_since(self, first: int) -> bool:
        """Return whether the request limit refused an attempt from index ``first`` on."""
        return self.counts_since(first)[1] > 0

    def slots_refuse(self) -> bool:
        """Return whether the plan can end, because a limit on requests in flight explains its refusals.

        Only if that is measured next, and the request limit again afterwards.
        """
        if concurrency_steps.NAME not in self.remaining_experiments():
            return False
        slots = fit_concurrency(self.attempts)
        return slots is not None and slots.explains and slots.refused >= SESSION.min_full_refusals

    def observations_since(self, first: int) -> list[Observation]:
        """Return the observations from index ``first`` on, interpreted with all attempts so far."""
        sent = [attempt.sent_ns for attempt in self.attempts[first:] if attempt.sent_ns is not None]
        since_s = self.start_s + min(sent, default=0) / NS - 1e-9
        observations = observations_of(self.attempts, self.start_s)
        return [observation for observation in observations if observation.sent_s >= since_s]

    # The other questions

    def remaining_experiments(self) -> list[str]:
        """Return the experiments that are still to be made."""
        return [name for name in EXPERIMENTS if name in self.task.questions and name not in self.done]

    def context(self, verdict: Verdict | None = None, *, sent: int = 0, tokens: int = 0) -> ProbeContext:
        """Return the start of the next experiment, after ``sent`` requests and ``tokens`` by earlier ones."""
        task = self.task
        took_ns = [
            attempt.end_ns - attempt.sent_ns
            for attempt in self.attempts
            if attempt.outcome is Outcome.OK and attempt.sent_ns is not None
        ]
        context = ProbeContext(
            requests_per_min=task.requests_per_min,
            tokens_per_min=task.tokens_per_min,
            concurrency=task.concurrency,
            expected_period_s=task.period_s,
            quick=task.quick,
            latency_s=median_high(took_ns) / NS if took_ns else 0.5,
            second_key=task.second_key,
            other_model=task.other_model,
            with_401=task.with_401,
            requests_left=task.budget - len(self.attempts) - sent,
            tokens_left=task.tokens - tokens,
            measured_concurrency=self._measured_concurrency,
        )
        return context if verdict is None else context.with_limit(verdict, task.requests_per_min)

    def learn(self, answers: Iterable[Answer]) -> bool:
        """Keep what later experiments need from the answers of an experiment.

        Return whether the request limit must be measured again, because a limit on requests in flight was
        measured that may have refused its requests.
        """
        before = self._measured_concurrency
        for answer in answers:
            if answer.question == LIMIT and isinstance(answer.value, int):
                self._measured_concurrency = answer.value
        slots = self._measured_concurrency
        if slots == before or slots is None or slots < 2 or REQUESTS not in self.task.questions:
            return False
        own = [*self._earlier[None], *self.attempts]
        return len(unless_full(own, slots)) < len(own)

    def findings(self) -> Findings:
        """Return the findings from all attempts.

        The plan's own verdict is not used, because ``bltybench limits`` has only the attempts.
        """
        earlier = [attempt for own in self._earlier.values() for attempt in own]
        attempts = [*earlier, *self.attempts, *self.experiment_attempts]
        names = [name for name in EXPERIMENTS if name in self.task.questions]
        return find(
            attempts,
            self.start_s,
            self.task.requests_per_min,
            known=self.context(),
            asked=names,
            probed=True,
        )


def limits_toml_of(findings: Findings, run_id: str) -> str | None:
    """Return the text of limits.toml; None if the findings hold nothing that the sandbox can enforce."""
    verdict, best, ban = findings.verdict, None, None
    if verdict.status == "found":
        best = verdict.best
    elif verdict.ban is not None and findings.replayed is not None and is_confirmed(findings.replayed):
        ban = verdict.ban
        best = ban.fits[0]
    enforceable = any(
        answer.question in ENFORCEABLE and answer.value is not None for answer in findings.answers
    )
    if best is None and not enforceable:
        return None
    return limits_toml(best, run_id, findings.answers, findings.replayed, ban=ban)


def _shifted(attempt: Attempt, shift_ns: int) -> Attempt:
    times = {name: getattr(attempt, name) for name in TIMES}
    shifted = {name: at_ns + shift_ns for name, at_ns in times.items() if at_ns is not None}
    return msgspec.structs.replace(attempt, **shifted)
