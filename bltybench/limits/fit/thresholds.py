"""The numbers that the fit relies on, with their units and reasons."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScoringThresholds:
    """Costs of a candidate, and which candidates to score completely."""

    hard_weight: int = 6
    """Weight of a contradiction that timing uncertainty can't explain. One that it can explain weighs 1."""
    contradiction_cost: int = hard_weight + 1
    """Cost of one contradiction. A family that costs this much less is 1 / ``flip_rate`` times as likely."""
    misread_cost: int = 4
    """Cost of a lost response that the model decides otherwise. The request may never have arrived."""
    flip_rate: float = 0.01
    """Fraction of decisions that can contradict the true model: clock errors, other nodes, other clients."""
    far_cost: int = 4 * hard_weight
    """Cost above the best at which a candidate or family is no longer refined."""
    max_open_fraction: float = 0.3
    """Fraction of decisions that can be ambiguous at no cost. If most are, the candidate explains nothing."""
    screened: int = 150
    """Candidates to score completely first: those with the fewest contradictions in a part of the
    requests."""
    whole_token_slack: int = 3 * hard_weight
    """Cost of ambiguous decisions up to which times per whole token are equivalent. One token more or less
    changes all decisions until the bucket is full, so the actual time costs more than the best."""
    short_period_exchanges: float = 20
    """Period of a log, in exchange times, below which it costs more than the best: the client then sends
    again as soon as it can, so most decisions near the end of the period are ambiguous, and fewest near the
    longest period that is possible."""
    short_period_slack: int = 2 * hard_weight
    """Cost of ambiguous decisions up to which such periods are equivalent."""
    near_cost: int = 3 * hard_weight
    max_near: int = 400
    """Then up to ``max_near`` others within ``near_cost`` of the best are scored completely."""
    informative_requests: int = 80
    """Requests to screen candidates on. A shorter run is scored completely."""
    batch_cells: int = 50_000
    """Candidates times requests per batch: arrays of this size fit the processor's cache."""
    state_cells: int = 300_000
    """The same with all requests, whose charges make the state that some requests are compared with."""
    rounding: float = 1e-6
    """Tolerance, in requests, for the rounding of refill sums."""


@dataclass(frozen=True, slots=True)
class GridThresholds:
    """Density and bounds of the parameter grids."""

    period_step: float = 1.04
    """Ratio of successive periods (or rates) of the coarse grid."""
    first_hit_counter_step: float = 1.006
    """The same for a first-hit counter. It has no phase to adjust, so a period that is 1% off fits badly."""
    max_drift: float = 0.3
    """Maximum shift of the last window between successive periods, in windows."""
    max_token_drift: float = 0.25
    """Maximum difference of what successive token buckets refill in the whole run, in tokens, if their rates
    are within ``sustained_rates``, relative to the rate at which requests were accepted."""
    sustained_rates: tuple[float, float] = (0.3, 1.1)
    phases: int = 8
    """Phases per period of the coarse grid."""
    recoveries: int = 4
    """Recoveries to take phases from: those with the most precise times."""
    first_hit_anchors: int = 5
    """Times within the first exchange at which windows may have started."""
    aligned_phases: int = 401
    """Differences of the clocks to try for windows of a round period, an odd number to include none."""
    hint_phases: int = 100
    """Phases to try at a documented period."""
    min_period_exchanges: int = 8
    """Shortest detectable period for a sequential client, in exchange times."""
    tick_counts: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60)
    """Ticks per complete refill to try."""
    min_tokens_per_tick: float = 0.5
    """With fewer, an interval refill acts like a token bucket."""
    natural_periods_s: tuple[float, ...] = (
        *(0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30),
        *(60, 120, 180, 240, 300, 600, 900, 1800, 3600),
    )
    """Periods that people configure, in seconds."""


@dataclass(frozen=True, slots=True)
class SearchThresholds:
    """How the search for the parameters of one family refines its grid."""

    kept: int = 10
    """Best candidates to refine in each round."""
    other_periods: tuple[int, ...] = (40, 12, 6, 6, 6)
    """Other periods to refine, per round, in case one of them becomes the best."""
    zoom: float = 3.0
    """Ratio of the grid widths of successive rounds."""
    min_period_distance: float = 0.01
    """Relative difference from which two periods are refined separately."""
    slow_progress: float = 0.7
    """A family far from the best is given up if a round leaves more than this fraction of its cost."""
    refill_extra_fraction: float = 1 / 16
    refill_extra_rounds: int = 2
    """In its first rounds, an interval refill can have this many more contradictions per request: on a coarse
    grid, wrong ticks can fit by chance."""
    limit_neighbors: int = 2
    rate_factor: float = 1.2
    """Errors of the limit (in requests) and the rate (as a ratio) that a wrong tick can cause."""
    rescan_width: float = 0.12
    rescan_periods: int = 61
    rescan_phases: int = 24
    """Relative width and size of a second grid around recurring windows that have contradictions."""
    phase_samples: int = 200
    """Phases to score to measure which fraction of them fits."""
    max_lost: int = 24
    """Lost responses up to which each is assigned the better outcome. More are left open."""
    max_enumerated: int = 4
    """Lost responses up to which every combination of outcomes is tried."""
    refined_assignments: int = 4
    """Best alternative outcomes of lost responses to refine."""
    rescored: int = 400
    """Candidates to score again after the outcomes of lost responses changed."""
    accepted_neighbors: int = 2
    """A lost response between this many acceptances on either side counts as accepted."""


@dataclass(frozen=True, slots=True)
class SelectionThresholds:
    """When a family is tried, ruled out, or reported."""

    exclusion_margin: float = 1.5 * ScoringThresholds().contradiction_cost
    """Cost above the best at which a family is ruled out: it is then 1,000 times less likely."""
    refill_exclusion_margin: float = 3 * ScoringThresholds().contradiction_cost
    """Margin if an interval refill is best. It has one more parameter, so it must win by more."""
    min_refill_periods: int = 5
    """Periods to observe before reporting an interval refill. Its four parameters overfit shorter runs."""
    min_tokens_per_tick: float = 1.5
    """With fewer, an interval refill acts like a token bucket, so a token bucket must fit too."""
    max_bucket_wait: float = 1.5
    """Longest lockout, in refill times of one token, that is a bucket's normal wait and not a ban."""
    short_run: int = 250
    """Maximum requests to always try an interval refill. Beyond, it is tried only if no simpler family
    fits."""
    max_ambiguous_fraction: float = 0.3
    """If ambiguous decisions use more than this fraction of the allowed cost, only contradictions count."""
    chance_fraction: float = 0.6
    """A family that contradicts this fraction of the rarer decision on the coarse grid is mere chance. So is
    a bucket of whole tokens if all others are: its ambiguous decisions add up, so it fits more by chance."""
    refill_chance_fraction: float = 0.9
    """The same before an interval refill is tried: simpler families fit one little better than chance."""
    retry_chance_fraction: float = 0.4
    """The same before an interval refill is searched again: a wrong limit explains fewer contradictions."""
    long_run: int = 600
    screen_size: int = 300
    """Longer runs are screened on this many requests. Random refusals show up early."""
    max_cost_ratio: float = 2
    max_extra: float = 3
    max_extra_per_request: float = 1 / 16
    """A family is refined if its cost is at most this ratio of the best, plus these contradictions."""
    rate_slack: int = 2
    rate_factor: float = 1.3
    """Interval refills are searched at the rates of token buckets within about ``rate_slack`` contradictions
    of the best one, widened by ``rate_factor``."""
    same_rate: float = 1.1
    """Rates within this factor are equal: one observed tick more or less explains the difference."""
    remembered: int = 32
    """Last fits to keep the results of. A probe fits its token limit between fits of its request limit."""


@dataclass(frozen=True, slots=True)
class EstimateThresholds:
    """How the best candidates become one fit."""

    clock_error_s: float = 0.25
    """Maximum difference of the server's clock and this one for windows that are aligned to the clock."""
    clock_error_fraction: float = 0.05
    """The same in periods, for short periods."""
    edge_error_fraction: float = 0.01
    """Additional error of an estimated window edge, in periods."""
    variants: int = 12
    """Other parameters to keep with a fit."""
    queue_intervals: int = 21
    """Intervals of a queue to try within the range that the response times allow."""
    same_period: float = 0.001
    """Relative difference up to which two periods are the same."""
    rounding_slack: float = 0.002
    """Relative distance at which a natural period still counts as inside a range."""
    max_rounding: float = 0.03
    """Relative half width of a period's range up to which the period is rounded to a natural one."""


@dataclass(frozen=True, slots=True)
class QueueingThresholds:
    """When delayed responses show a queue, and not a slow server."""

    waiting_ratio: float = 3
    """Latency from which a response has waited, relative to the quickest one."""
    min_waiting: int = 6
    """Responses that must have waited."""
    min_quick: int = 2
    """Quick responses after idle intervals. One alone may be chance."""
    min_interval_ratio: float = 1.5
    """Minimum interval, relative to the quickest response. A server with one slot has a ratio of 1."""
    max_irregularity: float = 0.25
    """Tolerance of intervals and response times, in intervals. Half of the quickest latency is added."""
    min_explained: float = 0.85
    """Fraction of all responses, and of those that waited, that must arrive in their turns."""
    max_free: int = 64
    """Maximum number of immediately served requests to try."""
    max_lost: int = 8
    """Lost responses next to refusals up to which each is tried as one that took a turn."""
    intervals: int = 41
    """Intervals to try within the error of the median interval."""
    interval_slack: int = 1
    """An interval fits as well with this many fewer responses explained: one late response is chance."""
    interval_errors: float = 2.5
    """Half width of the tried range, in standard errors of the mean interval."""


@dataclass(frozen=True, slots=True)
class WaitingThresholds:
    """When accepted requests waited for the limit."""

    unclear_ratio: float = 3
    """Latency, relative to the usual one, up to which a request did not wait."""
    slack_ratio: float = 2
    """Uncertainty of the time of a turn, in usual latencies."""
    min_ratio: float = 6
    """Latency, relative to the usual one, from which a request surely waited."""
    min_waits: int = 6
    """Requests that must have waited."""


@dataclass(frozen=True, slots=True)
class BanThresholds:
    """When recoveries show a ban of a fixed length."""

    min_recoveries: int = 4
    """Recoveries that one length must explain."""
    min_tightness: float = 0.5
    """Minimum ratio of the shortest to the longest possible length. Wider ranges fit almost any recovery."""
    min_starved_refusals: int = 10
    """Minimum refusals that show that a client starved."""
    min_starved_s: float = 5
    """Minimum duration of these refusals if no period is known, in seconds. Most periods are longer."""
    min_starved_periods: float = 1.05
    """The same in periods, if one is known: 5% for errors of the period."""


@dataclass(frozen=True, slots=True)
class EvidenceThresholds:
    """What a model must explain to be claimed."""

    min_refusals: int = 10
    """Refusals that a run other than a probe needs. Fewer fit nearly any limit."""
    min_recoveries: int = 2
    """Acceptances after a refusal that such a run needs, unless the limit is documented. A single one
    can have any cause; the time between two shows a period."""
    max_unexplained: float = 0.1
    """Maximum contradictions, as a fraction of the refusals or of the acceptances, whichever are fewer."""
    tolerance: float = 0.5
    """Contradictions allowed in addition, in case ambiguous decisions add up to less than one."""
    max_probe_contradictions: float = 4
    """Maximum of a probe, however many requests it sent. It tests its best model again after a contradiction,
    which chance rarely repeats."""
    max_rate_ratio: float = 2.0
    """Maximum ratio of the sustained rates that remain possible. With more, no rate is known."""
    same_rate: float = 1.01
    """Rates within this factor are reported as one."""
    min_predicted: float = 0.9
    """Fraction of the decisions that the best model must make too if it is charged with its own."""
    min_sustained_s: float = 60
    min_sustained_periods: float = 5
    """Duration over which a rate counts as sustained: the longer of the two, or all of a shorter run. It
    exceeds bursts, and a window that was full at both ends adds one to ``min_sustained_periods``."""
    max_rate_excess: float = 1.1
    """Maximum ratio of a claimed rate to the highest sustained one. Above, the run shows less than it."""


@dataclass(frozen=True, slots=True)
class ConcurrencyFitThresholds:
    """When a run's refusals show a concurrency limit."""

    max_attempts: int = 2000
    """Attempts to examine. Each is compared with every other, so memory grows with the square."""
    max_range_ratio: int = 2
    """Maximum ratio of the limits that fit equally well. With more, no limit is known."""
    min_slack_s: float = 0.005
    """Minimum uncertainty, in seconds, about when the server releases a slot."""


SCORING = ScoringThresholds()
GRID = GridThresholds()
SEARCH = SearchThresholds()
SELECTION = SelectionThresholds()
ESTIMATE = EstimateThresholds()
QUEUEING = QueueingThresholds()
WAITING = WaitingThresholds()
BAN = BanThresholds()
EVIDENCE = EvidenceThresholds()
CONCURRENCY = ConcurrencyFitThresholds()
