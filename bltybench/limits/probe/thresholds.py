"""Thresholds and schedules of the probe. Periods are those of the limiter, as measured or expected so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PlanThresholds:
    """Schedule of the request-limit probe."""

    quick_budget: int = 160
    """Maximum requests of the quick plan: two limits of about 60, and the rest to distinguish algorithms."""
    round_offsets: tuple[float, ...] = (0.0, 0.40, 0.75, 1.05, 1.50)
    """Start of each burst of a round, in periods. Each algorithm frees a different number in between."""
    quick_offsets: tuple[float, ...] = (0.0, 0.40, 0.75, 0.99, 1.01, 1.05, 1.50)
    """The same if the period is known: also just before and just after one period. A window edge rarely
    falls there by chance."""
    first_burst_fraction: float = 0.35
    """Size of a round's first burst, as a fraction of the limit. Only a log gives back the same pattern."""
    first_burst: int = 4
    """Size of a round's first burst, in requests, if the limit is unknown."""
    tried_edges: tuple[float, float] = (0.35, 0.80)
    """Where a clock-aligned window may reset in the test of a documented limit, in periods: after the limit
    is exhausted and before a window that the first request started ends."""
    end_margin: float = 0.004
    """Times of that test before and after each possible end of a window, in periods."""
    predictions: int = 2
    """Predictions of the documented limit that are tested after that."""
    moves: int = 2
    """Maximum windows to begin late."""
    late_periods: tuple[float, float] = (0.4, 1.2)
    """When a window is begun late, and when it is tested whether it ends late too: in periods after the end
    of the previous one."""
    edge_fractions: tuple[float, ...] = (0.70, 0.25, 0.55)
    """Where a clock-aligned window resets within each round, in periods. It varies so that a phase that fits
    one round by chance is ruled out by the next."""
    confirm_fraction: float = 0.02
    """Delay before the request that confirms a refusal, in periods: too short for much to refill."""
    in_flight: tuple[int, ...] = (1, 4, 16)
    """Requests in flight to try, in this order, if responses are too slow to reach the limit."""
    queue_check: int = 12
    """Requests per request in flight after which the drain checks whether the server queues them."""
    drain_requests: int = 64
    """Maximum requests per request in flight before the drain sends more concurrently."""
    wait_growth: float = 1.35
    """Factor between one wait and the next while the period is unknown."""
    precision: float = 0.01
    """Half width of the period's range, relative to the period, at which it is known well enough."""
    max_documented_error: float = 0.03
    """Maximum difference between the measured and the documented period, relative to it, at which one round
    is enough."""
    sharpenings: int = 8
    """Maximum measurements that narrow the range of the period. Each narrows it about threefold."""
    polls: int = 6
    """Intervals between the first and the last request of one such measurement."""
    settlings: int = 4
    """Maximum bursts at the time that best distinguishes the remaining candidates."""
    settle_periods: float = 3.0
    """Maximum duration of these bursts in the full plan, in periods."""
    poll_step: float = 0.06
    """Delay between requests that wait for a window to reset, in periods."""
    exhaust_after: tuple[float, ...] = (0.5, 0.0)
    """Delays after a reset at which the window is exhausted, in periods. A ban of one period looks like a
    window, but its end depends on when the first refusal was."""
    refill_periods: float = 1.2
    """Idle interval after which every limit has refilled, in periods."""
    idle_periods: tuple[float, ...] = (0.85, 0.65, 0.75)
    """Idle intervals after exhausting the limit, in periods. Requests in that time can restart a ban."""
    extra_requests: int = 4
    """Requests sent after the first one that is accepted. If a candidate expects a later refill, each of
    them contradicts it."""
    max_open_lockout: float = 0.5
    """Longest run of refusals, in periods, that the plan may end with. Shorter ones end most bursts."""
    pair_idles: tuple[float, ...] = (0.0, 1.4, 0.6, 1.1)
    """Idle intervals before each series of bursts that exhausts both of two limits, in periods of the longer
    one."""
    pair_bursts: int = 20
    """Maximum bursts of such a series."""
    pair_precision: float = 0.03
    """Half width of the wider range of two periods at which they are known well enough. Usual periods are
    rounded then, and the shorter limit ends most bursts that would narrow the range of the longer one."""
    pair_settlings: int = 8
    """Maximum bursts, or series of them, that distinguish the remaining pairs of limits."""
    first_poll: float = 0.3
    """First wait after a refusal in a series, relative to the median lockout."""
    min_lockout_ratio: float = 3
    """Ratio of the last lockout to the median one from which the longer limit is exhausted."""
    pair_reserve: int = 12
    """Requests left in the budget at which no further burst begins."""
    lost_tokens: int = 16
    """Requests that each lose half a token, if the bucket stores whole tokens."""
    overshoot: int = 2
    """Requests beyond the limit in a burst that is meant to exhaust it."""


@dataclass(frozen=True, slots=True)
class QueryThresholds:
    """Search for the time at which the remaining candidates differ most."""

    times: int = 48
    """Candidate send times. More make the search slower and its result hardly better."""
    family_weight: int = 4
    """Weight of a difference between families. One between parameters of the same family weighs 1."""
    enough: float = 0.75
    """Fraction of the most information that is enough for the full plan if it is available earlier."""
    max_difference: int = 3
    """Difference, in requests, above which a larger one does not make the result clearer."""


@dataclass(frozen=True, slots=True)
class QueueThresholds:
    """Measurement of a limiter that queues requests."""

    idle_intervals: float = 3.0
    """Idle interval after which the queue is surely empty, in service intervals."""
    sizes: tuple[int, ...] = (16, 64, 128)
    """Requests sent concurrently to fill the queue, in this order."""
    max_wait_s: float = 50.0
    """Maximum wait of the last queued request, in seconds. Clients usually give up after 60 s."""
    refills: int = 3
    """Times to fill the queue again if a lost response leaves its size ambiguous."""


@dataclass(frozen=True, slots=True)
class ContextThresholds:
    """What an experiment allows for the request limit."""

    idle_periods: float = 1.03
    """Idle interval after which a limit has refilled, in periods: 3% for errors of the period. A counter
    needs one more period, because it also counts the previous window."""
    drain_fraction: float = 0.3
    """Maximum time to exhaust the request limit, in periods, so that little refills meanwhile."""
    usual_period_s: float = 60.0
    """Period expected of a limit that is documented per minute, or of tokens, in seconds."""
    edge_fraction: float = 0.05
    """Delay after a window's edge before requests that should share one window, in periods."""


@dataclass(frozen=True, slots=True)
class AnnouncedThresholds:
    """How the quick plan uses announced periods."""

    requests: int = 2
    """Requests whose headers are read first. With two, the reset of a bucket grows."""
    max_wait_s: float = 20.0
    """Maximum wait for the next window, in seconds, whose first response announces a whole period."""
    rounding_s: float = 1.0
    """Error of a reset that is rounded to whole seconds."""
    max_error: float = 0.25
    """Maximum error of an announced period, relative to it, that rounding explains."""
    usual_periods_s: tuple[float, ...] = (30.0, 60.0, 120.0)
    """Periods to expect if a reset is longer than ``max_wait_s``."""
    max_period_s: float = 120.0
    """Longest announced period that the quick plan tests, in seconds."""
    min_bucket_growth: float = 0.7
    """How much resets grow, relative to the requests used, from which they are those of a bucket."""


@dataclass(frozen=True, slots=True)
class SessionThresholds:
    """Limits of a whole probe."""

    max_failures: int = 5
    """Failed requests in a row, neither accepted nor refused, that end the probe."""
    request_limit_fraction: float = 0.6
    """Maximum fraction of the budget for the request limit if the probe has other questions too."""
    request_limit_budget: int = 600
    """Maximum requests for the request limit in that case. The full plan rarely needs more."""
    min_full_refusals: int = 16
    """Refusals by a limit on requests in flight, from which the plan for the request limit ends."""
    release_s: float = 2.0
    """Time after which cancelled streams hold no slots any more, in seconds."""
    quick_periods: float = 2.5
    """Usual duration of the quick plan, in periods of the request limit."""
    usual_periods: Mapping[str, float] = field(
        default_factory=lambda: {"requests": 3.5, "concurrency": 1, "tokens": 4.5, "charges": 3}
    )
    """Usual duration of each measurement if the limits are as documented, in periods of the request limit."""


PLAN = PlanThresholds()
QUERY = QueryThresholds()
QUEUE = QueueThresholds()
CONTEXT = ContextThresholds()
ANNOUNCED = AnnouncedThresholds()
SESSION = SessionThresholds()
