"""Tolerances and minimum samples for the accuracy of rate-limit headers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeaderThresholds:
    """Bounds within which a header counts as accurate."""

    min_accurate_fraction: float = 0.9
    """Minimum fraction of accurate values. A few can be wrong because the fit is not exact."""
    min_values: int = 5
    """Minimum values of a header. Fewer can be accurate by chance."""
    remaining_tolerance: float = 1.5
    """Maximum error of Remaining, in requests: rounding, and whether it includes the request itself."""
    reset_tolerance_s: float = 1.2
    """Maximum error of Reset, in seconds. Most servers report whole seconds."""
    late_reset_s: float = 1.0
    """How much later than the event, in seconds, some servers set Reset, besides rounding."""
    min_reset_period_s: float = 4.8
    """Minimum period, in seconds, in which Reset differs from a constant by more than its tolerance."""
    min_wrong_waits: int = 2
    """Minimum contradictions of Retry-After: waits that were too short, or earlier acceptances."""
    max_step_gap_s: float = 0.25
    """Maximum time, in seconds, between two requests whose Remaining is compared. Little refills then."""
    wait_test_s: float = 1.0
    """Time after a Retry-After expired, in seconds, in which a request tests whether the wait was enough."""
    wait_rounding_s: float = 1.0
    """How much longer, in seconds, rounding up to whole seconds makes an accurate Retry-After."""
    max_replayed: int = 1200
    """Maximum requests to replay, the latest ones: as many as are fitted."""
    decision_points: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Points between request and response at which to replay a decision, as fractions."""


HEADERS = HeaderThresholds()
