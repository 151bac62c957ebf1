"""Findings about the run as a whole: whether it ended, and the processes that generated its load."""

from collections.abc import Iterable, Iterator

from bltybench.metrics.grading import Figure, Finding, finding_of
from bltybench.runs.manifest import Manifest

ALL_WORKERS = "all workers finished"
"""Name of the finding that fails if a worker was lost. Such a run does not pass."""
MAX_CLOCK_ERROR_MS = 100.0
"""Maximum uncertainty of times on another machine's clock, in milliseconds. Beyond it, events of different
workers can be in the wrong order."""


def end_of_the_run(manifest: Manifest) -> Finding:
    """Return the finding that the run was not killed."""
    return finding_of(
        "end of the run",
        manifest.ended_ns is not None,
        manifest.ended or ("ended" if manifest.ended_ns is not None else "killed"),
        "the run recorded its end",
        affects=[Figure.RATES, Figure.LIMITS],
        reason="the run was killed" + (_merged(manifest) or ", so its last attempts are missing"),
        remedy="repeat the run, and let it finish or stop it with Ctrl-C",
    )


def _merged(manifest: Manifest) -> str:
    names, count = ", ".join(manifest.merged_workers), len(manifest.merged_workers)
    return f"; the records of {count} of {manifest.workers} workers were merged: {names}" if names else ""


def all_workers_finished(findings: Iterable[Finding]) -> bool:
    """Return whether no finding says that a worker was lost."""
    return all(finding.holds for finding in findings if finding.name == ALL_WORKERS)


def workers(manifest: Manifest) -> Iterator[Finding]:
    """Yield a finding for a run with workers."""
    lost = manifest.unfinished_workers
    merged = {worker.name for worker in lost} <= {*manifest.merged_workers}
    if manifest.workers > 1 or lost:
        yield finding_of(
            ALL_WORKERS,
            not lost,
            f"{manifest.workers - len(lost)} of {manifest.workers}",
            f"{manifest.workers} of {manifest.workers}",
            affects=[Figure.RATES, Figure.LIMITS],
            reason="; ".join(f"worker {worker.name} {worker.reason}" for worker in lost)
            + ", so a part of the load"
            + (" is missing" if merged else " and its last records are missing")
            + _merged(manifest),
            remedy="see the output of the worker, and repeat the run",
        )


def clocks(manifest: Manifest) -> Iterator[Finding]:
    """Yield a finding for a run with workers on other machines."""
    if not manifest.worker_clocks:
        return
    worst = max(manifest.worker_clocks, key=lambda clock: clock.uncertainty_ns)
    error_ms = worst.uncertainty_ns / 1e6
    yield finding_of(
        "clocks of the workers",
        error_ms <= MAX_CLOCK_ERROR_MS,
        f"±{error_ms:,.1f} ms between machines",
        f"≤ {MAX_CLOCK_ERROR_MS:g} ms",
        affects=[Figure.RATES, Figure.LIMITS],
        reason=f"the times of worker {worst.worker} ({worst.host}) are known to ±{error_ms:,.0f} ms only",
        remedy="use a network with shorter delays between master and workers",
    )
