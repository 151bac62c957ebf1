"""The checks as ``junit.xml``, for CI servers."""

import re
from collections import Counter
from xml.etree import ElementTree as ET

from bltybench.metrics.validity import all_workers_finished
from bltybench.metrics.verdict import ALL_CUT_OFF, Severity, Verdict, severity
from bltybench.report.summary import Summary

_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""Characters that XML 1.0 can't represent, even escaped."""


def junit(summary: Summary) -> bytes:
    """Return a test suite with one case for the generator's audit and one for each check.

    A run in which nothing succeeded, or whose calls were all cut off, has a case for that, too. A case is
    skipped if it neither passes nor fails, so the suite fails if and only if the exit code is 1.
    """
    name = _text(f"{summary.scenario} on {summary.target}")
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite", name=name)
    counts: Counter[Severity] = Counter()

    def add(case_name: str, verdict: Verdict, message: str, details: str) -> None:
        case = ET.SubElement(suite, "testcase", classname=name, name=_text(case_name), time="0")
        result = severity(verdict, strict=summary.strict)
        counts[result] += 1
        if result is not Severity.PASSED:
            tag = "failure" if result is Severity.FAILED else "skipped"
            ET.SubElement(case, tag, message=_text(message)).text = _text(details)

    lost_worker = not all_workers_finished(summary.audit)
    audit = Verdict.PASS if summary.valid else Verdict.FAIL if lost_worker else Verdict.INVALID
    add("generator is not the bottleneck", audit, "INVALID", "\n".join(summary.invalid_reasons))
    if summary.verdict is Verdict.NOTHING_SUCCEEDED:
        add("an attempt succeeds", summary.verdict, "NOTHING SUCCEEDED", summary.failure or "")
    if summary.calls and summary.calls == summary.calls_cut_off:
        add("an attempt succeeds", Verdict.NOT_DECIDED, "NOT DECIDED", ALL_CUT_OFF)
    for check in summary.checks:
        was = "has no value" if check.actual is None else f"was {check.actual:g} {check.unit}"
        message = f"{check.metric} {was}, must be {check.target}"
        add(f"{check.metric} {check.target}", check.verdict, message, check.note or message)
    suite.attrib |= {
        "tests": str(counts.total()),
        "failures": str(counts[Severity.FAILED]),
        "errors": "0",
        "skipped": str(counts[Severity.SKIPPED]),
        "time": f"{summary.duration_s:.3f}",
        "timestamp": summary.created.removesuffix("Z")[:19],
    }
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _text(value: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)
