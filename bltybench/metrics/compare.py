"""Differences between two sides, with intervals and a verdict for each metric.

A side is one run, or several repeats of it. docs/compare.md explains how to read the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from bltybench.metrics.bootstrap import DRAWS, Interval, fraction_draws, interval, mean_draws, span_weights
from bltybench.metrics.frame import Floats
from bltybench.metrics.grading import figure_of
from bltybench.metrics.latency import PERCENTILES, min_sample
from bltybench.metrics.outline import BINS, MIN_SPAN_S, MIN_SPANS, Outline
from bltybench.metrics.undecided import Reason, affected, few_values, too_short, wide_interval

Judgment = Literal["better", "worse", "same", "not decided", "invalid"]
MetricKind = Literal["ms", "per_min", "share"]

SEED = 1
"""Seed of the draws: the same runs give the same intervals."""

MIN_RATE_S = 1
"""Shortest load that has rates, in seconds."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest change that counts as the same: ``relative`` for times and rates, ``share`` for fractions."""

    relative: float = 0.05
    share: float = 0.01

    def of(self, kind: MetricKind) -> float:
        """Return the tolerance for a kind of metric."""
        return self.share if kind == "share" else self.relative


@dataclass(frozen=True, slots=True)
class Estimate:
    """One metric of one run or side: its value, and its value in each of DRAWS resamples."""

    value: float | None
    draws: Floats | None = None
    missing: Reason | None = None
    """Why there are no draws."""


Measurement = Callable[[Outline, np.random.Generator], Estimate]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric by which sides are compared."""

    name: str
    kind: MetricKind
    lower_is_better: bool
    estimate: Measurement


class Difference(msgspec.Struct, frozen=True):
    """One metric of two sides."""

    metric: str
    kind: MetricKind
    lower_is_better: bool
    base: float | None
    candidate: float | None
    change: float | None = None
    """candidate / base − 1, or candidate − base for a fraction."""
    low: float | None = None
    """Lower bound of the 95% interval of ``change``."""
    high: float | None = None
    verdict: Judgment = "not decided"
    why: str = ""
    """Why the metric is not decided or invalid."""
    remedy: str = ""
    """What would decide it."""

    @property
    def measured(self) -> bool:
        """Whether either side has a value."""
        return self.base is not None or self.candidate is not None

    @property
    def explanation(self) -> str:
        """Why the metric is not decided, and what would decide it."""
        return f"{self.why}; {self.remedy}" if self.remedy else self.why


def compare(
    base: Sequence[Outline],
    candidate: Sequence[Outline],
    tolerance: Tolerance,
    *,
    allow_invalid: bool = False,
    unlike: str = "",
) -> list[Difference]:
    """Compare two sides by every metric of METRICS, except those of OPTIONAL that neither side has.

    ``allow_invalid`` also judges metrics that the load generator affected. ``unlike`` is why nothing is
    judged.
    """
    differences = (
        _difference(metric, base, candidate, tolerance, allow_invalid=allow_invalid, unlike=unlike)
        for metric in METRICS
    )
    return [found for found in differences if found.measured or found.metric not in OPTIONAL]


def judge(bounds: Interval, tolerance: float, *, lower_is_better: bool) -> Judgment:
    """Return the verdict on a change: better or worse only if the whole interval is beyond the tolerance."""
    low, high = bounds if lower_is_better else (-bounds.high, -bounds.low)
    if low > tolerance:
        return "worse"
    if high < -tolerance:
        return "better"
    return "same" if low >= -tolerance and high <= tolerance else "not decided"


def long_enough(run: Outline) -> bool:
    """Return whether a run has enough spans, each long enough, to be resampled."""
    return len(run.counts["attempts"]) >= MIN_SPANS and run.span_s >= MIN_SPAN_S


def _difference(
    metric: Metric,
    base: Sequence[Outline],
    candidate: Sequence[Outline],
    tolerance: Tolerance,
    *,
    allow_invalid: bool,
    unlike: str,
) -> Difference:
    rng = np.random.default_rng(SEED)
    ours, theirs = _side(metric, base, rng), _side(metric, candidate, rng)
    plain = Difference(metric.name, metric.kind, metric.lower_is_better, ours.value, theirs.value)
    if ours.value is None or theirs.value is None or unlike:
        return _undecided(plain, _missing(ours, theirs, base, candidate), unlike)
    if metric.kind != "share" and ours.value == 0:
        return _undecided(plain, Reason("the base is 0, so there is no relative change", "see the fractions"))
    change = theirs.value - ours.value if metric.kind == "share" else theirs.value / ours.value - 1
    changed = msgspec.structs.replace(plain, change=change)
    if (fault := _fault(metric, base, candidate)) is not None and not allow_invalid:
        return msgspec.structs.replace(_undecided(changed, fault), verdict="invalid")
    if ours.draws is None or theirs.draws is None:
        return _undecided(changed, _missing(ours, theirs, base, candidate))
    return _judged(changed, ours.draws, theirs.draws, tolerance.of(metric.kind), (base, candidate))


def _judged(
    changed: Difference, ours: Floats, theirs: Floats, tolerance: float, sides: Sequence[Sequence[Outline]]
) -> Difference:
    """Return a difference with its interval and verdict, from the draws of both sides."""
    if changed.change is None or (changed.kind != "share" and float(ours.min()) <= 0):
        return _undecided(changed, Reason("the base is too close to 0 for a relative change", "run longer"))
    bounds = interval(theirs - ours if changed.kind == "share" else theirs / ours - 1)
    verdict = judge(bounds, tolerance, lower_is_better=changed.lower_is_better)
    judged = msgspec.structs.replace(changed, low=bounds.low, high=bounds.high, verdict=verdict)
    if verdict != "not decided":
        return judged
    calls = max(sum(int(run.counts["calls"].sum()) for run in side) for side in sides)
    runs = max(len(side) for side in sides)
    return _undecided(judged, wide_interval(changed.change, bounds, tolerance, calls, runs))


def _undecided(difference: Difference, reason: Reason, unlike: str = "") -> Difference:
    """Return a difference with the reason why it is not decided. ``unlike`` takes precedence."""
    remedy = "" if unlike else reason.remedy
    return msgspec.structs.replace(difference, why=unlike or reason.why, remedy=remedy)


def _missing(
    ours: Estimate, theirs: Estimate, base: Sequence[Outline], candidate: Sequence[Outline]
) -> Reason:
    """Return why a side has no draws: of the two reasons, the one that needs more data."""
    named = [
        (reason, f"{'a run of ' if len(runs) > 1 else ''}the {name}")
        for reason, runs, name in ((ours.missing, base, "base"), (theirs.missing, candidate, "candidate"))
        if reason is not None
    ]
    if not named:
        return Reason("", "")
    reason, whose = max(named, key=lambda one: one[0].factor)
    return Reason(f"{whose} {reason.why}", reason.remedy, reason.factor)


def _fault(metric: Metric, base: Sequence[Outline], candidate: Sequence[Outline]) -> Reason | None:
    """Return how the load generator affected a metric, if it did."""
    figure = figure_of(metric.name)
    for run in (*base, *candidate):
        for fault in run.faults:
            if figure in fault.affects:
                reason = affected(fault)
                return Reason(f"{run.manifest.run_id} {reason.why}", reason.remedy)
    return None


def _side(metric: Metric, runs: Sequence[Outline], rng: np.random.Generator) -> Estimate:
    """Return the mean over a side's runs, and over DRAWS resamples of the runs and within them."""
    estimates = [metric.estimate(run, rng) for run in runs]
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    value = float(np.mean(values)) if values else None
    missing = [estimate.missing for estimate in estimates if estimate.missing is not None]
    if missing:
        return Estimate(value, missing=max(missing, key=lambda reason: reason.factor))
    draws = np.stack([estimate.draws for estimate in estimates if estimate.draws is not None])
    picked = rng.integers(0, len(runs), (len(runs), DRAWS))
    return Estimate(value, np.take_along_axis(draws, picked, axis=0).mean(axis=0))


def _percentile(sample_name: str, percentile: str) -> Measurement:
    def estimate(run: Outline, rng: np.random.Generator) -> Estimate:
        sample, timings = run.samples[sample_name], run.timings[sample_name]
        fraction, needed = PERCENTILES[percentile], min_sample(percentile)
        if len(sample) == 0:
            return Estimate(None, missing=few_values(percentile, 0, needed))
        value = sample.quantile(fraction)
        if len(sample) < needed:
            return Estimate(value, missing=few_values(percentile, len(sample), needed))
        if not long_enough(run):
            return Estimate(value, missing=too_short(run))
        # As floats, which are exact for whole numbers: integer products do not use BLAS.
        weights = span_weights(len(timings), rng).astype(np.float64)
        cumulative = weights @ np.cumsum(timings, axis=1, dtype=np.float64)
        step = np.argmax(cumulative >= fraction * cumulative[:, -1:], axis=1)
        ranks = np.clip(np.ceil((step + 0.5) * len(sample) / BINS), 1, len(sample))
        return Estimate(value, sample.at_ranks(ranks.astype(np.int64)))

    return estimate


def _rate(name: str) -> Measurement:
    def estimate(run: Outline, rng: np.random.Generator) -> Estimate:
        counts, per_min = run.counts[name], 60 / run.span_s
        if len(counts) * run.span_s < MIN_RATE_S:
            return Estimate(None, missing=too_short(run))
        value = float(counts.mean() * per_min)
        if not long_enough(run):
            return Estimate(value, missing=too_short(run))
        return Estimate(value, mean_draws(counts, rng) * per_min)

    return estimate


def _share(name: str, of: str) -> Measurement:
    def estimate(run: Outline, rng: np.random.Generator) -> Estimate:
        counts, totals = run.counts[name], run.counts[of]
        if totals.sum() == 0:
            return Estimate(None, missing=Reason(f"has no {of}", "run longer"))
        value = float(counts.sum() / totals.sum())
        if not long_enough(run):
            return Estimate(value, missing=too_short(run))
        weights = span_weights(len(counts), rng)
        return Estimate(value, fraction_draws(weights @ counts, weights @ totals, rng))

    return estimate


METRICS = [
    *(
        Metric(f"{sample}.{name}", "ms", lower_is_better=True, estimate=_percentile(sample, name))
        for sample, names in {
            "ttft": ("p50", "p95", "p99"),
            "itl": ("p50", "p95", "p99"),
            "tpot": ("p50", "p95"),
            "latency": ("p50", "p95", "p99"),
            "attempt_latency": ("p50", "p95", "p99"),
        }.items()
        for name in names
    ),
    Metric("accepted.per_min", "per_min", False, _rate("accepted")),
    Metric("ok.per_min", "per_min", False, _rate("ok")),
    Metric("tokens.per_min", "per_min", False, _rate("tokens")),
    Metric("refused.share", "share", True, _share("refused", "attempts")),
    Metric("errors.share", "share", True, _share("errors", "attempts")),
    Metric("calls.ok_share", "share", False, _share("calls_ok", "calls")),
    Metric("json_valid.share", "share", False, _share("json_valid", "answers in JSON")),
    Metric("schema_valid.share", "share", False, _share("schema_valid", "answers with a schema")),
]
"""The metrics of a comparison. Rates are means over whole spans of the load, not best minutes."""
OPTIONAL = ("json_valid.share", "schema_valid.share")
"""Metrics of requests that few loads contain."""
