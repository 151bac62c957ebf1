"""Building blocks of an expectation: a function from the evidence to a verdict."""

from collections.abc import Callable

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import Evidence
from bltybench.check.finding import CheckFinding, Status

Verdict = tuple[Status, str]
"""The status, and the observation behind it."""

Judge = Callable[[Evidence], Verdict]
ResponseJudge = Callable[[CheckResponse], Verdict]


def _verdict(status: Status) -> Callable[[str], Verdict]:
    return lambda observed: (status, observed)


holds = _verdict(Status.HOLDS)
broken = _verdict(Status.BROKEN)
unclear = _verdict(Status.UNCLEAR)
skipped = _verdict(Status.SKIPPED)


def verdict(good: bool, observed: str) -> Verdict:
    """Return ``holds`` if ``good``, otherwise ``broken``."""
    return (Status.HOLDS if good else Status.BROKEN), observed


class Group:
    """A group of related expectations, filled by the decorators ``expect`` and ``about``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.expectations: list[Callable[[Evidence], CheckFinding]] = []

    def expect(self, name: str, expected: str, *, remedy: str | None = None) -> Callable[[Judge], Judge]:
        """Register the decorated function of the evidence as an expectation of this group."""

        def register(judge: Judge) -> Judge:
            def evaluate(evidence: Evidence) -> CheckFinding:
                status, observed = judge(evidence)
                return CheckFinding(
                    group=self.name,
                    name=name,
                    status=status,
                    expected=expected,
                    observed=observed,
                    remedy=remedy if status is Status.BROKEN else None,
                )

            self.expectations.append(evaluate)
            return judge

        return register

    def about(
        self, field: str, name: str, expected: str, *, unless: str = ""
    ) -> Callable[[ResponseJudge], ResponseJudge]:
        """Register a function of one response, the ``field`` of the evidence.

        It is skipped unless the response is complete and has status 200, and if the evidence skipped
        ``unless``.
        """

        def register(judge: ResponseJudge) -> ResponseJudge:
            @self.expect(name, expected)
            def _judge(evidence: Evidence) -> Verdict:
                response: CheckResponse | None = getattr(evidence, field)
                if response is None:
                    return skipped("not asked for")
                if unless in evidence.skipped:
                    return skipped(evidence.skipped[unless])
                if response.status != 200 or response.failure:
                    return skipped(f"no successful response to check: {response.summary()}")
                return judge(response)

            return judge

        return register
