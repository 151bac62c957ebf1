"""Building blocks of an expectation: a function from the evidence to a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import Evidence
from bltybench.check.finding import CheckFinding, Status

Verdict = tuple[Status, str]
"""The status, and the observation behind it."""

Judge = Callable[[Evidence], Verdict]
AnswerJudge = Callable[[CheckResponse], Verdict]


def holds(observed: str) -> Verdict:
    """Return the verdict that the expectation holds."""
    return Status.HOLDS, observed


def broken(observed: str) -> Verdict:
    """Return the verdict that the expectation is broken."""
    return Status.BROKEN, observed


def unclear(observed: str) -> Verdict:
    """Return the verdict that the response allows no conclusion."""
    return Status.UNCLEAR, observed


def skipped(why: str) -> Verdict:
    """Return the verdict that nothing was sent for it."""
    return Status.SKIPPED, why


def verdict(good: bool, observed: str) -> Verdict:
    """Return ``holds`` if ``good``, otherwise ``broken``."""
    return (Status.HOLDS if good else Status.BROKEN), observed


@dataclass(frozen=True, slots=True)
class Expectation:
    """One promise of the reference, and the function that checks it."""

    group: str
    name: str
    expected: str
    judge: Judge
    remedy: str | None = None

    def __call__(self, evidence: Evidence) -> CheckFinding:
        """Evaluate the evidence."""
        status, observed = self.judge(evidence)
        return CheckFinding(
            group=self.group,
            name=self.name,
            status=status,
            expected=self.expected,
            observed=observed,
            remedy=self.remedy if status is Status.BROKEN else None,
        )


class Group:
    """A group of related expectations, filled by the decorators ``expect`` and ``about``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.expectations: list[Expectation] = []

    def expect(self, name: str, expected: str, *, remedy: str | None = None) -> Callable[[Judge], Judge]:
        """Register the decorated function of the evidence as an expectation of this group."""

        def keep(judge: Judge) -> Judge:
            self.expectations.append(Expectation(self.name, name, expected, judge, remedy))
            return judge

        return keep

    def about(
        self, answer: str, name: str, expected: str, *, remedy: str | None = None
    ) -> Callable[[AnswerJudge], AnswerJudge]:
        """Register a function of one response, the field ``answer`` of the evidence.

        It is skipped unless the response is complete and has status 200.
        """

        def keep(judge: AnswerJudge) -> AnswerJudge:
            def on_evidence(evidence: Evidence) -> Verdict:
                found: CheckResponse | None = getattr(evidence, answer)
                if found is None:
                    return skipped("not asked for")
                if found.status != 200 or found.failure:
                    return skipped(f"no successful response to check: {found.summary()}")
                return judge(found)

            self.expectations.append(Expectation(self.name, name, expected, on_evidence, remedy))
            return judge

        return keep
