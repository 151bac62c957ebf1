"""Bounds for observations, and the confidence of answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObservationThresholds:
    """When a request was decided, and which part of a run to fit."""

    refusal_quantile: float = 0.9
    refusal_factor: float = 2
    """A request is decided within ``refusal_factor`` times this quantile of the refusals' durations. A server
    sends a refusal as soon as it decides; the slowest ones are outliers of the network."""
    min_decision_s: float = 0.05
    """Minimum of that time, in seconds: few and fast refusals say little about the slowest decision."""
    max_fitted: int = 1200
    """Maximum observations to fit: enough to identify a limiter, and fitted within seconds."""
    max_span_ratio: float = 2
    """A long run's first part is fitted unless another has more than this many times its ends of refusals."""
    max_clock_s: float = 0.02
    """Maximum uncertainty of times, in seconds, for requests in flight and headers to be analyzed. Beyond it,
    the order of concurrent requests is unknown."""
    min_continuing: int = 3
    """Minimum 503s or 403s that count as refusals next to those with another status. Fewer may be chance."""
    min_continuing_fraction: float = 0.95
    """Fraction of them that must follow a refusal. Concurrent requests have no certain order."""


@dataclass(frozen=True, slots=True)
class AnswerThresholds:
    """How the number of observations becomes a confidence."""

    misleading_rate: float = 0.05
    """Assumed fraction of observations that mislead."""
    max_votes: int = 20
    """Maximum balance of observations, so that a confidence stays below 1."""
    max_confidence: float = 0.9999
    """Maximum confidence to report."""


@dataclass(frozen=True, slots=True)
class WaitThresholds:
    """When an accepted request counts as delayed by the server."""

    min_ratio: float = 3
    """Response time, relative to the usual one."""
    min_s: float = 0.5
    """Response time in seconds. Networks cause shorter waits."""
    min_requests: int = 2
    """Requests that must have waited: one alone may be chance."""
    many_fraction: float = 0.1
    """Fraction of the accepted requests from which on the server seems to make them wait on purpose."""


OBSERVATIONS = ObservationThresholds()
ANSWERS = AnswerThresholds()
WAITS = WaitThresholds()
