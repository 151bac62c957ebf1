"""Selections of an experiment's results."""

from __future__ import annotations

from collections.abc import Sequence

from bltybench.limits.observations.probe_result import ProbeResult


def with_role(results: Sequence[ProbeResult], *roles: str) -> list[ProbeResult]:
    """Return the results with one of these roles."""
    return [result for result in results if result.role in roles]


def last_activity_s(results: Sequence[ProbeResult], default_s: float = 0.0) -> float:
    """Return the time at which the last request ended or was sent, in Unix time."""
    return max((result.end_s or result.sent_s for result in results), default=default_s)
