"""Thresholds of what the findings report."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FindingsThresholds:
    """What the findings report."""

    max_release_period: float = 3
    """Longest period of a rate limit that released slots can imitate, in median response times."""
    min_documented_fraction: float = 0.95
    """Fraction of the documented rate below which the measured rate is reported. Less may be error."""
    min_precision: float = 0.0005
    """Relative half width of a period's range from which a sentence states it. Below, it rounds to 0%."""
    min_replayed: float = 0.99
    """Fraction of a run's decisions that limits.toml must reproduce. Below, the limiter is not found."""


FINDINGS = FindingsThresholds()
