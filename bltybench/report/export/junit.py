"""The checks as ``junit.xml``, for CI servers."""

import re
from xml.etree import ElementTree as ET

from bltybench.report.summary import Summary

_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""Characters that XML 1.0 can't represent, even escaped."""


def junit(summary: Summary) -> bytes:
    """Return a test suite with one case for the generator's audit and one for each check.

    A run without checks in which nothing succeeded has a failed case, too.
    """
    nothing = summary.failure is not None and not summary.checks
    failed = sum(not check.passed for check in summary.checks) + (not summary.valid) + nothing
    name = _text(f"{summary.scenario} on {summary.target}")
    suites = ET.Element("testsuites")
    suite = ET.SubElement(
        suites,
        "testsuite",
        name=name,
        tests=str(len(summary.checks) + 1 + nothing),
        failures=str(failed),
        errors="0",
        skipped="0",
        time=f"{summary.duration_s:.3f}",
        timestamp=summary.created.removesuffix("Z")[:19],
    )
    audit = ET.SubElement(suite, "testcase", classname=name, name="generator is not the bottleneck", time="0")
    if not summary.valid:
        ET.SubElement(audit, "failure", message="INVALID").text = _text("\n".join(summary.invalid_reasons))
    if nothing:
        case = ET.SubElement(suite, "testcase", classname=name, name="an attempt succeeds", time="0")
        ET.SubElement(case, "failure", message="NOTHING SUCCEEDED").text = _text(summary.failure or "")
    for check in summary.checks:
        case = ET.SubElement(
            suite, "testcase", classname=name, name=_text(f"{check.metric} {check.target}"), time="0"
        )
        if not check.passed:
            actual = "has no value" if check.actual is None else f"was {check.actual:g} {check.unit}"
            message = _text(f"{check.metric} {actual}, must be {check.target}")
            ET.SubElement(case, "failure", message=message).text = _text(check.note or message)
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _text(value: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)
