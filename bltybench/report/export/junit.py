"""Verdicts as JUnit XML, for CI servers: the checks of a run."""

import re
from collections import Counter
from xml.etree import ElementTree as ET

from bltybench.metrics.run_findings import all_workers_finished
from bltybench.metrics.verdict import ALL_CUT_OFF, RunVerdict, Severity, severity
from bltybench.report.summary import Summary

_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""Characters that XML 1.0 can't represent, even escaped."""
TAGS = {Severity.SKIPPED: "skipped", Severity.FAILED: "failure", Severity.ERROR: "error"}
"""Elements of the cases that do not pass."""


class Suite:
    """A test suite."""

    def __init__(self, suites: ET.Element, name: str) -> None:
        self._name = _text(name)
        self._element = ET.SubElement(suites, "testsuite", name=self._name)
        self._counts: Counter[Severity] = Counter()

    def add(self, name: str, result: Severity, message: str, details: str) -> None:
        """Add a case. The message and details are shown if it does not pass."""
        case = ET.SubElement(self._element, "testcase", classname=self._name, name=_text(name), time="0")
        self._counts[result] += 1
        if result in TAGS:
            ET.SubElement(case, TAGS[result], message=_text(message)).text = _text(details)

    def close(self, **about: str) -> None:
        """Write the numbers of cases, and further attributes."""
        self._element.attrib |= {
            "tests": str(self._counts.total()),
            "failures": str(self._counts[Severity.FAILED]),
            "errors": str(self._counts[Severity.ERROR]),
            "skipped": str(self._counts[Severity.SKIPPED]),
            **about,
        }


def junit(summary: Summary) -> bytes:
    """Return a test suite with one case for the generator's audit and one for each check.

    A run in which nothing succeeded, or whose calls were all cut off, has a case for that, too. A case is
    skipped if it neither passes nor fails, so the suite fails if and only if the exit code is 1.
    """
    suites = ET.Element("testsuites")
    suite = Suite(suites, f"{summary.scenario} on {summary.target}")

    def add(name: str, verdict: RunVerdict, message: str, details: str) -> None:
        suite.add(name, severity(verdict, strict=summary.strict), message, details)

    lost_worker = not all_workers_finished(summary.audit)
    audit = RunVerdict.PASS if summary.valid else RunVerdict.FAIL if lost_worker else RunVerdict.INVALID
    add("generator is not the bottleneck", audit, "INVALID", "\n".join(summary.invalid_reasons))
    if summary.verdict is RunVerdict.NOTHING_SUCCEEDED:
        add("an attempt succeeds", summary.verdict, "NOTHING SUCCEEDED", summary.failure or "")
    if summary.calls and summary.calls == summary.calls_cut_off:
        add("an attempt succeeds", RunVerdict.NOT_DECIDED, "NOT DECIDED", ALL_CUT_OFF)
    for check in summary.checks:
        was = "has no value" if check.actual is None else f"was {check.actual:g} {check.unit}"
        message = f"{check.metric} {was}, must be {check.bound}"
        add(f"{check.metric} {check.target}", check.verdict, message, check.note or message)
    suite.close(time=f"{summary.duration_s:.3f}", timestamp=summary.created.removesuffix("Z")[:19])
    return to_xml(suites)


def to_xml(suites: ET.Element) -> bytes:
    """Return the indented document."""
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _text(value: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)
