"""What works with an API, from the findings: the first lines of a check."""

from collections.abc import Sequence
from typing import NamedTuple

from bltybench.check.finding import CheckFinding, Status

NO_USAGE = "usage is missing"
NO_STREAM_USAGE = "no chunk has usage"
UNREQUESTED = "none, and it was not requested because of stream_options = false"
NO_DONE = "it never arrives"


class _Capability(NamedTuple):
    words: str
    consequence: str
    """What to expect without it."""
    missing: str | None = None
    """Observation that means that it is missing; None if any deviation does."""


CAPABILITIES = {
    "a completion is made": _Capability("completions", "nothing can be measured"),
    "a stream is made": _Capability("streams", "set stream = false of the calls"),
    "usage": _Capability("usage in completions", "their tokens are estimated", NO_USAGE),
    "include_usage": _Capability("usage in streams", "their tokens are estimated", NO_STREAM_USAGE),
    "[DONE]": _Capability(
        "[DONE] at the end of streams", "recorded as a note, nothing needs to be set", NO_DONE
    ),
    "max_tokens": _Capability("a bound of completions", "budgets can be exceeded"),
    "models are listed": _Capability("GET /models", "name the model yourself"),
}
"""Findings that decide what works, by their names."""


def capabilities(findings: Sequence[CheckFinding]) -> tuple[list[str], list[str]]:
    """Return what works, and what does not, with its consequence."""
    works: list[str] = []
    fails: list[str] = []
    by_name = {finding.name: finding for finding in findings}
    for name, capability in CAPABILITIES.items():
        finding = by_name.get(name)
        if finding is None:
            continue
        if finding.observed == UNREQUESTED:
            fails.append(f"{capability.words} ({capability.consequence})")
        elif finding.status in {Status.SKIPPED, Status.UNCLEAR}:
            continue
        elif finding.status is Status.BROKEN and capability.missing in {None, finding.observed}:
            fails.append(f"{capability.words} ({capability.consequence})")
        else:
            works.append(capability.words)
    return works, fails
