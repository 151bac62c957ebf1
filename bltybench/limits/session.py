"""What a probe is to find out, what it has seen, and what that implies: all of it but sending and waiting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from bltybench.limits.experiments.registry import ALL, QUESTIONS, by_experiment
from bltybench.limits.findings.conclude import find
from bltybench.limits.findings.limits_toml import limits_toml
from bltybench.limits.findings.model import Findings
from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.classify import classify, refusal_status
from bltybench.limits.observations.extract import NS, observations_of
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.planner import PlanOptions
from bltybench.limits.probe.thresholds import SESSION
from bltybench.runs.attempt import Attempt, Outcome

SLOTS = "concurrency_limit"
ENFORCED = {SLOTS, "token_limit"}
"""Answers that make a limits.toml worth while by themselves."""
MOMENTS = ("due_ns", "sent_ns", "headers_ns", "first_token_ns", "first_output_ns", "last_token_ns", "end_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTask:
    """What is to be found out, what it may cost, and what is documented."""

    questions: tuple[str, ...] = ALL
    quick: bool = False
    budget: int = 1000
    """Requests, of all questions together."""
    tokens: int = 1_000_000
    period_s: float | None = None
    """Named beforehand."""
    other_model: str | None = None
    second_key: bool = False
    with_401: bool = False
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrency: int | None = None


class ProbeSession:
    """The record of one probe."""

    def __init__(self, task: ProbeTask, start_s: float) -> None:
        """``start_s`` is the zero of the attempts' axis in Unix time."""
        self.task = task
        self.start_s = start_s
        self.rows: list[Attempt] = []
        """What was sent for the limit of requests."""
        self.others: list[Attempt] = []
        """What the experiments sent."""
        self.earlier: dict[str | None, list[Attempt]] = {None: []}
        """Of the run that is resumed, on this run's axis of time."""
        self.done: set[str] = set()
        """Questions that were asked to their ends, by the run that is resumed or by this one."""
        self.slots: int | None = None
        self._unclear = 0

    # Of an earlier run

    def resume(self, attempts: Iterable[Attempt], shift_ns: int, done: Iterable[str]) -> None:
        """Take in what an interrupted probe saw; its times are ``shift_ns`` behind.

        What an experiment had begun to ask is asked again; the limit of requests goes on from what it saw.
        """
        self.done = {name for name in done if name in ALL}
        each = by_experiment([_shifted(attempt, shift_ns) for attempt in attempts])
        self.earlier = {name: own for name, own in each.items() if name is None or name in self.done}

    # The limit of requests

    def aims(self) -> PlanOptions:
        """Return what the plan for the limit of requests may spend and starts from."""
        task = self.task
        period_s = task.period_s or (60.0 if task.requests_per_min is not None else None)
        most = min(SESSION.request_limit_budget, round(SESSION.request_limit_fraction * task.budget))
        limit = None if period_s is None else _per(task.requests_per_min, period_s)
        return PlanOptions(
            budget=most if len(task.questions) > 1 else task.budget,
            quick=task.quick,
            period_s=period_s,
            limit=limit,
            earlier=tuple(observations_of(self.earlier[None], self.start_s)),
        )

    def earlier_verdict(self) -> Verdict:
        """Return what the run that is resumed had found of the limit of requests."""
        return find(self.earlier[None], self.start_s, self.task.requests_per_min).verdict

    def add(self, attempt: Attempt) -> bool:
        """Note an attempt for the limit of requests; say whether it makes sense to go on."""
        self.rows.append(attempt)
        failed = attempt.outcome in {Outcome.CLIENT_ERROR, Outcome.TRANSPORT_ERROR, Outcome.TIMEOUT}
        # A 403 may be a refusal.
        unclear = failed and not classify(attempt, refusal_status(self.rows)).refused
        self._unclear = self._unclear + 1 if unclear else 0
        return self._unclear < SESSION.max_failures

    def refused_since(self, first: int) -> bool:
        """Say whether one of the attempts from number ``first`` on was refused for the rate."""
        status = refusal_status(self.rows)
        return any(classify(row, status).by_request_limit is False for row in self.rows[first:])

    def counts_since(self, first: int) -> tuple[int, int]:
        """Return how many attempts from number ``first`` on were let in, and how many were refused."""
        status = refusal_status(self.rows)
        said = [classify(row, status).by_request_limit for row in self.rows[first:]]
        return said.count(True), said.count(False)

    def sights_since(self, first: int) -> list[Observation]:
        """Return what the attempts from number ``first`` on say of the limit of requests.

        What counts as a refusal, and how long one takes, is judged by all that was seen so far.
        """
        sent = [row.sent_ns for row in self.rows[first:] if row.sent_ns is not None]
        since_s = self.start_s + min(sent, default=0) / NS
        return [sight for sight in observations_of(self.rows, self.start_s) if sight.sent_s >= since_s - 1e-9]

    # The other questions

    def unasked(self) -> list[str]:
        """Return the names of the questions that are still to be asked, beside the limit of requests."""
        return [name for name in QUESTIONS if name in self.task.questions and name not in self.done]

    def known(self, verdict: Verdict | None = None, *, sent: int = 0, tokens: int = 0) -> ProbeContext:
        """Return what the next experiment starts from; ``sent`` and ``tokens`` were spent on others."""
        task = self.task
        took = [
            (row.end_ns - row.sent_ns) / NS
            for row in self.rows
            if row.outcome is Outcome.OK and row.sent_ns is not None
        ]
        known = ProbeContext(
            requests_per_min=task.requests_per_min,
            tokens_per_min=task.tokens_per_min,
            concurrency=task.concurrency,
            expected_period_s=task.period_s,
            latency_s=sorted(took)[len(took) // 2] if took else 0.5,
            second_key=task.second_key,
            other_model=task.other_model,
            with_401=task.with_401,
            requests_left=task.budget - len(self.rows) - sent,
            tokens_left=task.tokens - tokens,
            measured_concurrency=self.slots,
        )
        return known if verdict is None else known.with_limit(verdict, task.requests_per_min)

    def learn(self, found: Iterable[Answer]) -> None:
        """Note what the next experiments need of the answers to the last one."""
        for each in found:
            if each.question == SLOTS and isinstance(each.value, int):
                self.slots = each.value

    # What it comes to

    def findings(self, verdict: Verdict | None) -> Findings:
        """Return what all of it implies; ``verdict`` is that of the limit of requests, if there is one."""
        rows = [*(row for each in self.earlier.values() for row in each), *self.rows, *self.others]
        names = [name for name in QUESTIONS if name in self.task.questions]
        return find(rows, self.start_s, self.task.requests_per_min, verdict, known=self.known(), asked=names)


def enforced(findings: Findings, run_id: str) -> str | None:
    """Return the text of limits.toml; None where nothing was found that the sandbox can enforce."""
    best = findings.verdict.best if findings.verdict.status == "found" else None
    if best is None and not any(
        each.question in ENFORCED and each.value is not None for each in findings.answers
    ):
        return None
    return limits_toml(best, run_id, findings.answers)


def _per(per_min: int | None, period_s: float) -> int | None:
    return None if per_min is None else max(1, round(per_min * period_s / 60))


def _shifted(attempt: Attempt, shift_ns: int) -> Attempt:
    """Return an attempt of another run on this run's axis of time."""
    times = {name: getattr(attempt, name) for name in MOMENTS}
    moved = {name: at_ns + shift_ns for name, at_ns in times.items() if at_ns is not None}
    return msgspec.structs.replace(attempt, **moved)
