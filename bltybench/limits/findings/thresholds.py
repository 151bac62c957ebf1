"""Thresholds of what the findings report."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FindingsThresholds:
    """What the findings report."""

    max_release_period: float = 3
    """Longest period of a rate limit that released slots can imitate, in median response times."""
    min_refusals: int = 10
    """Minimum refusals of an ordinary run for a claim about its limits. Fewer fit nearly any limit."""
    max_unexplained_refusals: float = 0.1
    """Maximum contradictions of a concurrency limit, as a fraction of the refusals. A server that accepts
    everything contradicts all of them."""
    min_documented_fraction: float = 0.95
    """Fraction of the documented rate below which the measured rate is reported. Less may be error."""
    min_precision: float = 0.0005
    """Relative half width of a period's range from which a sentence states it. Below, it rounds to 0%."""
    min_replayed: float = 0.99
    """Fraction of a run's decisions that limits.toml must reproduce. Below, it does not describe the API."""


FINDINGS = FindingsThresholds()
