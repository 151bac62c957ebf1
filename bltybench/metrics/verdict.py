"""The verdict on a run, which the exit code, JUnit, the summary, and the page share. Policy: docs/cli.md."""

from collections.abc import Collection
from enum import StrEnum


class RunVerdict(StrEnum):
    """The result of a run, of one check, or of a comparison."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    NOT_DECIDED = "not decided"
    """There is too little data. That is no failure."""
    INVALID = "invalid"
    """The load generator affected the run, or the figure of the check."""
    NOTHING_SUCCEEDED = "nothing succeeded"
    NOT_COMPARABLE = "not comparable"
    """The runs of a comparison had different loads."""


class Severity(StrEnum):
    """What a verdict means for whoever starts runs automatically."""

    PASSED = "passed"
    SKIPPED = "skipped"
    """Neither passed nor failed: exit code 0, and a skipped test case."""
    FAILED = "failed"
    """Exit code 1, and a failed test case."""
    ERROR = "error"
    """Nothing could be judged: exit code 2, and a test case with an error."""


ALL_CUT_OFF = "the end of the run cut off every call, so nothing succeeded or failed"
"""Why a run is not decided although no check lacks data."""
OPEN = frozenset({RunVerdict.NOT_DECIDED, RunVerdict.INVALID})
"""Verdicts that ``--strict`` turns into failures."""


def severity(verdict: RunVerdict, *, strict: bool) -> Severity:
    """Return whether a verdict passes, fails, does neither, or could not be reached."""
    if verdict is RunVerdict.PASS:
        return Severity.PASSED
    if verdict is RunVerdict.NOT_COMPARABLE:
        return Severity.ERROR
    return Severity.SKIPPED if verdict in OPEN and not strict else Severity.FAILED


def judge(
    checks: Collection[RunVerdict],
    *,
    valid: bool,
    lost_worker: bool,
    nothing_succeeded: bool,
    undecided: bool,
) -> RunVerdict:
    """Return the verdict on a run.

    Checks that all pass decide even if nothing succeeded, because failures can be what they ask for.
    ``undecided``: whether every call was cut off, so nothing can have succeeded.
    """
    if lost_worker or RunVerdict.FAIL in checks:
        return RunVerdict.FAIL
    if nothing_succeeded and not (checks and set(checks) == {RunVerdict.PASS}):
        return RunVerdict.NOTHING_SUCCEEDED
    if not valid:
        return RunVerdict.INVALID
    return RunVerdict.NOT_DECIDED if undecided or OPEN & set(checks) else RunVerdict.PASS
