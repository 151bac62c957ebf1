"""A comparison as JUnit XML, for CI servers."""

from xml.etree import ElementTree as ET

from bltybench.metrics.compare import Difference, Judgment
from bltybench.metrics.verdict import RunVerdict, severity
from bltybench.report import text
from bltybench.report.comparison.model import Comparison, value_of
from bltybench.report.export.junit import Suite, to_xml

VERDICTS: dict[Judgment, RunVerdict] = {
    "worse": RunVerdict.FAIL,
    "better": RunVerdict.PASS,
    "same": RunVerdict.PASS,
    "not decided": RunVerdict.NOT_DECIDED,
    "invalid": RunVerdict.INVALID,
}
"""Verdict of a metric's case."""


def junit(comparison: Comparison) -> bytes:
    """Return a suite per candidate: a case per metric, after one for whether anything is decided.

    One metric alone that is not decided is skipped even if the comparison is strict. So the suites fail if
    and only if the exit code is 1, and have an error if and only if it is 2.
    """
    suites = ET.Element("testsuites")
    base = comparison.base.label
    for candidate in comparison.candidates:
        suite = Suite(suites, comparison.title(candidate))
        decided = RunVerdict.PASS if candidate.verdict is RunVerdict.FAIL else candidate.verdict
        result = severity(decided, strict=comparison.strict)
        suite.add("the comparison is decided", result, candidate.stamp, candidate.answer(base))
        for change in candidate.measured:
            if not candidate.unlike:
                result = severity(VERDICTS[change.verdict], strict=False)
                suite.add(change.metric, result, _message(change), change.explanation or _message(change))
        suite.close(time="0")
    return to_xml(suites)


def _message(change: Difference) -> str:
    """Return a metric's verdict, values, and change."""
    values = f"{value_of(change.base, change.kind)} → {value_of(change.candidate, change.kind)}"
    return f"{change.verdict}: {values}, change {text.signed(change.change, change.kind)}"
