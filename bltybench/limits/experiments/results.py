"""Selections of an experiment's results."""

from collections.abc import Iterable, Sequence

from bltybench.limits.observations.probe_result import ProbeResult


def with_role(results: Sequence[ProbeResult], *roles: str) -> list[ProbeResult]:
    """Return the results with one of these roles."""
    return [result for result in results if result.role in roles]


def accepted(results: Iterable[ProbeResult]) -> list[ProbeResult]:
    """Return the results that were accepted."""
    return [result for result in results if result.accepted]


def refused(results: Iterable[ProbeResult]) -> list[ProbeResult]:
    """Return the results that were refused."""
    return [result for result in results if result.refused]


def last_activity_s(results: Sequence[ProbeResult], default_s: float = 0.0) -> float:
    """Return the time at which the last request ended or was sent, in Unix time."""
    return max((result.end_s or result.sent_s for result in results), default=default_s)
