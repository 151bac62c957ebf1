"""Sizes, waits, and tolerances of the experiments."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConcurrencyThresholds:
    """Bounds of the concurrency experiment."""

    max_streams: int = 256
    """Maximum streams held open. Higher limits cost more requests than they are worth."""
    max_wave_streams: int = 16
    """Maximum streams opened in one batch, so that the limit is exceeded by only a few."""
    spare_requests: int = 8
    """Requests kept for the retries after the first refusal."""
    cancellations: int = 2
    """Streams to cancel. The second one confirms the first."""
    min_stream_tokens: int = 64
    """Minimum tokens of a held stream, which must last until all are open."""
    max_stream_tokens: int = 1024
    """Maximum tokens of a held stream. More only cost money."""
    retry_waits_s: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    """Waits between the retries after a cancellation, in seconds. A slot is usually released immediately."""
    min_kept_s: float = 1.5
    """Minimum time after a cancellation for which a slot must stay taken to count as kept, in seconds. Some
    servers notice a closed connection only when they write the next tokens."""
    control_wait_ratio: float = 1.5
    """Wait before the control request, in waits for the slot. A rate limit would accept it after that."""
    min_patience_s: float = 1.0
    """Minimum wait for a stream to start, in seconds."""
    max_patience_s: float = 30.0
    """Maximum wait for a stream to start, in seconds."""
    late_start_ratio: float = 5
    """Times the usual time to start after which a stream counts as queued."""
    late_start_tolerance: float = 0.99
    """Fraction of that time that also counts, because waits end a little early or late."""
    min_lifetime_ratio: float = 0.9
    """Fraction of the usual duration after which a cancelled stream could have ended by itself."""


@dataclass(frozen=True, slots=True)
class TokensThresholds:
    """Bounds of the token experiment."""

    first_tokens: int = 1024
    """Tokens of the first request if no limit is documented. The next ones double."""
    short_prompt_tokens: int = 8
    """Approximate tokens of a short prompt."""
    prompt_slack_tokens: int = 2
    """Tokens by which the server's count of a short prompt can differ from the probe's."""
    max_fill_streams: int = 48
    """Maximum streams held open to reach the limit. Each one halves the rest."""
    max_fill_errors: int = 4
    """Requests rejected with a 400 after which filling stops. Each one halves max_tokens."""
    precision: float = 0.001
    """Fraction of the limit to which it is measured."""
    max_documented_ratio: float = 1.3
    """Multiple of the documented limit in flight without a refusal that shows that nothing is reserved."""
    max_sends: int = 3
    """Times that a request is sent if its response is lost."""
    first_refund_fraction: float = 0.5
    """Fraction of the limit that the first request after the fill could use."""
    refund_fraction: float = 0.45
    """Fraction for each of the next ones. If reservations are kept, it fits once after the first."""
    total_refund_fraction: float = 1.35
    """Fraction that the next ones use in total: far more than fits if reservations are kept."""
    spare_requests: int = 8
    """Requests kept for the test of refunds."""
    max_refund_wait_s: float = 300.0
    """Maximum wait until the limit has refilled, in seconds. Longer periods are rare."""
    max_used_fraction: float = 0.02
    """Fraction of the limit that may still be in use when units are sent without an idle interval before."""
    units: int = 8
    """Equal requests per limit: enough to identify the algorithm."""
    fitting_units: tuple[float, float] = (0.6, 2.0)
    """Fewest and most units until the first refusal, relative to the expected number. Otherwise units of
    another size are sent."""
    unit_rounds: int = 4
    """Times the units of a whole limit that are sent within a period of the request limit, at most."""
    min_units: int = 4
    """Minimum affordable units. Fewer identify nothing."""
    first_wait_periods: float = 1 / 32
    """First wait after a refused unit if the limit is as documented, in periods. Shorter waits would use up
    the units."""
    max_documented_error: float = 0.02
    """Maximum difference between the measured and the documented limit, relative to it, for that."""
    max_units: int = 120
    """Maximum units sent to find the period. A typical request limit needs fewer requests."""
    size_search_divisor: int = 6
    """Divisor of the token budget that the search for the size can spend. The units need the rest."""
    parts_per_unit: int = 8
    """Parts of a unit that measure the exact size."""
    extra_units: int = 3
    """Units beyond the limit that are sent concurrently: with one, a lost response would hide the excess."""
    min_units_for_period: int = 3
    """Minimum units within the limit that identify its period. With fewer, rounding dominates."""
    max_period_spread: float = 0.1
    """Maximum width of the period's range, relative to its upper end."""
    max_usual_period_ratio: float = 1.5
    """Factor by which an uncertain period can differ from the usual one and still be that one."""


@dataclass(frozen=True, slots=True)
class ChargesThresholds:
    """Bounds of the experiment on what counts against the request limit."""

    limit_per_unit: int = 16
    """Requests of the limit for each request of the first invalid kind. The other kinds double."""
    min_limit_for_two: int = 6
    """Minimum limit with two requests of the first kind, because one can be lost."""
    max_invalid_fraction: float = 0.85
    """Maximum fraction of the limit to spend on invalid requests."""
    max_invalid_fraction_refilling: float = 0.6
    """The same if the limit refills meanwhile, which hides some of them."""
    scope_rounds: int = 2
    """Times that other keys, models, and endpoints are tried while the limit is exhausted."""
    max_retry_after_waits: int = 3
    """Times that Retry-After is followed if it was too short."""
    max_retry_after_s: float = 150.0
    """Maximum Retry-After to follow, in seconds."""
    early_s: float = 1.3
    """Time before the end of Retry-After at which it is tested, in seconds. One second can be rounding."""
    min_early_wait_s: float = 0.2
    """Minimum time from the refusal to that test, in seconds."""
    after_s: float = 0.03
    """Time after the end of Retry-After at which it is tested, in seconds."""
    refused_retries: int = 6
    """Requests sent while the limit is exhausted, to see whether they count."""
    min_refused_retries: int = 3
    """Minimum refused ones that show it."""
    margin_periods: float = 0.04
    """Time after the predicted end of refusals at which it is tested, in periods."""
    later_waits_periods: tuple[float, ...] = (0.3, 0.5, 1.0)
    """Waits between the tests after that, in periods."""
    spare_requests: int = 3
    """Requests beyond the limit that certainly exhaust it."""


CONCURRENCY = ConcurrencyThresholds()
TOKENS = TokensThresholds()
CHARGES = ChargesThresholds()
