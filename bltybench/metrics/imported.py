"""Audit of an imported run: whether the log is complete and exact enough for its figures."""

from bltybench.imports.record import ImportRecord
from bltybench.metrics.grading import TIMING, Figure, Finding, finding_of

MAX_BROKEN_SHARE = 0.01
"""Maximum fraction of rows that can't be read, as for arrivals that a generator sends late."""


def audit_import(source: ImportRecord) -> list[Finding]:
    """Return the findings. There was no load generator, so nothing else can affect the figures."""
    total = source.rows + source.broken
    rough = not source.measured_durations and source.coarse
    return [
        finding_of(
            "readable rows",
            source.broken <= MAX_BROKEN_SHARE * total,
            f"{source.rows:,} of {total:,}",
            f"≥ {1 - MAX_BROKEN_SHARE:.0%}",
            affects=[Figure.RATES, Figure.LIMITS],
            reason=f"{source.broken:,} of {total:,} rows could not be read, so their requests are missing",
            remedy="repair the rows that `bltybench import` named, or export the log again",
        ),
        finding_of(
            "resolution of durations",
            not rough,
            f"{source.clock_s:g} s" if not source.measured_durations else "measured by the server's log",
            "< 0.1 s, or durations measured separately",
            affects=TIMING,
            reason="durations are differences of whole seconds",
            remedy="log times with milliseconds",
        ),
    ]
