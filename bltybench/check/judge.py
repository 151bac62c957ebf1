"""How an expectation is written: a small function from the evidence to a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import Evidence
from bltybench.check.finding import CheckFinding, Status

Verdict = tuple[Status, str]
"""The status, and what was observed."""

Judge = Callable[[Evidence], Verdict]
AnswerJudge = Callable[[CheckResponse], Verdict]


def holds(observed: str) -> Verdict:
    """It is as expected."""
    return Status.HOLDS, observed


def broken(observed: str) -> Verdict:
    """It is not as expected."""
    return Status.BROKEN, observed


def unclear(observed: str) -> Verdict:
    """Nothing can be said."""
    return Status.UNCLEAR, observed


def skipped(why: str) -> Verdict:
    """It was not asked."""
    return Status.SKIPPED, why


def verdict(good: bool, observed: str) -> Verdict:
    """Return ``holds`` if good, else ``broken``."""
    return (Status.HOLDS if good else Status.BROKEN), observed


@dataclass(frozen=True, slots=True)
class Expectation:
    """One thing that the reference promises, and the function that looks whether it is so."""

    group: str
    name: str
    expected: str
    judge: Judge
    remedy: str | None = None

    def __call__(self, evidence: Evidence) -> CheckFinding:
        """Look at the evidence."""
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
    """A list of expectations that belong together, filled by the decorators ``expect`` and ``about``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.expectations: list[Expectation] = []

    def expect(self, name: str, expected: str, *, remedy: str | None = None) -> Callable[[Judge], Judge]:
        """Make the decorated function, of the evidence, an expectation of this group."""

        def keep(judge: Judge) -> Judge:
            self.expectations.append(Expectation(self.name, name, expected, judge, remedy))
            return judge

        return keep

    def about(
        self, answer: str, name: str, expected: str, *, remedy: str | None = None
    ) -> Callable[[AnswerJudge], AnswerJudge]:
        """Do the same for a function of one answer, the field ``answer`` of the evidence.

        It is skipped unless that answer is whole and has status 200.
        """

        def keep(judge: AnswerJudge) -> AnswerJudge:
            def on_evidence(evidence: Evidence) -> Verdict:
                found: CheckResponse | None = getattr(evidence, answer)
                if found is None:
                    return skipped("not asked for")
                if found.status != 200 or found.failure:
                    return skipped(f"there is no good answer to look at: {found.summary()}")
                return judge(found)

            self.expectations.append(Expectation(self.name, name, expected, on_evidence, remedy))
            return judge

        return keep
