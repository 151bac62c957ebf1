"""Differences between two sides, with intervals and a verdict for each metric.

A side is one run, or several repeats of it. docs/compare.md explains how to read the result.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from bltybench.metrics.bootstrap import DRAWS, Interval, fraction_draws, interval, mean_draws, span_weights
from bltybench.metrics.frame import Floats
from bltybench.metrics.latency import PERCENTILES, min_sample
from bltybench.metrics.outline import BINS, MIN_SPAN_S, MIN_SPANS, Outline

Verdict = Literal["better", "worse", "same", "cannot tell"]
MetricKind = Literal["ms", "per_min", "share"]

FREE_TO_DIFFER = frozenset({"title", "answers", "checks", "target", "model", "seed", "duration_s"})
"""Scenario keys that may differ between comparable runs."""

SEED = 1
"""Seed of the draws: the same runs give the same intervals."""

TOO_SHORT = f"the run is too short: its load must last {MIN_SPANS * MIN_SPAN_S} s after the warm-up"


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
    """One metric of one side: its value, and its value in each of DRAWS resamples."""

    value: float | None
    draws: Floats | None
    why_not: str = ""
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
    verdict: Verdict = "cannot tell"
    why: str = ""
    """Why the verdict is "cannot tell"."""


def obstacles(
    base: Sequence[Outline], candidate: Sequence[Outline], *, allow_invalid: bool = False
) -> list[str]:
    """Return the reasons why two sides cannot be compared.

    ``allow_invalid`` accepts runs whose load generator was the bottleneck.
    """
    runs = [*base, *candidate]
    ids = [run.manifest.run_id for run in runs]
    found = [f"{run_id} is named twice" for run_id in sorted({name for name in ids if ids.count(name) > 1})]
    reference = base[0].load
    for run, run_id in zip(runs, ids, strict=True):
        if run.reasons and not allow_invalid:
            found.append(f"{run_id} is INVALID: {run.reasons[0]}")
        for key in sorted({*reference, *run.load} - FREE_TO_DIFFER):
            expected, actual = reference.get(key), run.load.get(key)
            if expected != actual:
                where = _difference_in(key, expected, actual)
                found.append(f"{run_id} had another load than {ids[0]}: {where}")
    for side in (base, candidate):
        for key, values in _identities(side).items():
            if len(values) > 1:
                found.append(f"repeats of one side differ in their {key}: {', '.join(sorted(values))}")
    return found


def compare(base: Sequence[Outline], candidate: Sequence[Outline], tolerance: Tolerance) -> list[Difference]:
    """Compare two sides by every metric of METRICS."""
    return [_difference(metric, base, candidate, tolerance) for metric in METRICS]


def judge(bounds: Interval, tolerance: float, *, lower_is_better: bool) -> Verdict:
    """Return the verdict on a change: better or worse only if the whole interval is beyond the tolerance."""
    low, high = bounds if lower_is_better else (-bounds.high, -bounds.low)
    if low > tolerance:
        return "worse"
    if high < -tolerance:
        return "better"
    return "same" if low >= -tolerance and high <= tolerance else "cannot tell"


def long_enough(run: Outline) -> bool:
    """Return whether a run has enough spans, each long enough, to be resampled."""
    return len(run.counts["attempts"]) >= MIN_SPANS and run.span_s >= MIN_SPAN_S


def _difference(
    metric: Metric, base: Sequence[Outline], candidate: Sequence[Outline], tolerance: Tolerance
) -> Difference:
    rng = np.random.default_rng(SEED)
    ours, theirs = _side(metric, base, rng), _side(metric, candidate, rng)
    sides = (metric.name, metric.kind, metric.lower_is_better, ours.value, theirs.value)
    if ours.value is None or theirs.value is None or ours.draws is None or theirs.draws is None:
        return Difference(*sides, why=ours.why_not or theirs.why_not)
    if metric.kind == "share":
        change, draws = theirs.value - ours.value, theirs.draws - ours.draws
    elif ours.value > 0 and float(ours.draws.min()) > 0:
        change, draws = theirs.value / ours.value - 1, theirs.draws / ours.draws - 1
    else:
        return Difference(*sides, why="the base is 0, so there is no relative change")
    bounds = interval(draws)
    verdict = judge(bounds, tolerance.of(metric.kind), lower_is_better=metric.lower_is_better)
    unsure = "the interval extends beyond the tolerance: measure longer, or repeat the runs"
    return Difference(*sides, change, *bounds, verdict, unsure if verdict == "cannot tell" else "")


def _side(metric: Metric, runs: Sequence[Outline], rng: np.random.Generator) -> Estimate:
    """Return the mean over a side's runs, and over DRAWS resamples of the runs and within them."""
    estimates = [metric.estimate(run, rng) for run in runs]
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    draws = [estimate.draws for estimate in estimates if estimate.draws is not None]
    if len(values) < len(runs) or len(draws) < len(runs):
        return Estimate(None, None, next(one.why_not for one in estimates if one.draws is None))
    picked = rng.integers(0, len(runs), (len(runs), DRAWS))
    means = np.take_along_axis(np.stack(draws), picked, axis=0).mean(axis=0)
    return Estimate(float(np.mean(values)), means)


def _percentile(sample_name: str, percentile: str) -> Measurement:
    def estimate(run: Outline, rng: np.random.Generator) -> Estimate:
        sample, timings = run.samples[sample_name], run.timings[sample_name]
        if len(sample) < min_sample(percentile):
            return Estimate(
                None, None, f"n too small: {len(sample):,} of the {min_sample(percentile):,} needed"
            )
        if not long_enough(run):
            return Estimate(None, None, TOO_SHORT)
        fraction = PERCENTILES[percentile]
        # As floats, which are exact for whole numbers: integer products do not use BLAS.
        drawn = span_weights(len(timings), rng).astype(np.float64) @ timings.astype(np.float64)
        cumulative = np.cumsum(drawn, axis=1)
        step = np.argmax(cumulative >= fraction * cumulative[:, -1:], axis=1)
        ranks = np.clip(np.ceil((step + 0.5) * len(sample) / BINS), 1, len(sample))
        return Estimate(sample.quantile(fraction), sample.at_ranks(ranks.astype(np.int64)))

    return estimate


def _rate(name: str) -> Measurement:
    def estimate(run: Outline, rng: np.random.Generator) -> Estimate:
        if not long_enough(run):
            return Estimate(None, None, TOO_SHORT)
        counts, per_min = run.counts[name], 60 / run.span_s
        return Estimate(float(counts.mean() * per_min), mean_draws(counts, rng) * per_min)

    return estimate


def _share(name: str, of: str) -> Measurement:
    def estimate(run: Outline, rng: np.random.Generator) -> Estimate:
        counts, totals = run.counts[name], run.counts[of]
        if totals.sum() == 0:
            return Estimate(None, None, f"there were no {of}")
        if not long_enough(run):
            return Estimate(None, None, TOO_SHORT)
        weights = span_weights(len(counts), rng)
        draws = fraction_draws(weights @ counts, weights @ totals, rng)
        return Estimate(float(counts.sum() / totals.sum()), draws)

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
]
"""The metrics of a comparison. Rates are means over whole spans of the load, not best minutes."""


def _difference_in(key: str, ours: Any, theirs: Any) -> str:
    """Return the innermost keys at which two values of a scenario differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(f"{key}.{name}", ours.get(name), theirs.get(name)) for name in sorted({*ours, *theirs})]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(f"{key}[{index}]", a, b) for index, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    else:
        return f"{key} {theirs!s:.60} instead of {ours!s:.60}"
    return "; ".join(_difference_in(name, a, b) for name, a, b in pairs if a != b)


def _identities(side: Sequence[Outline]) -> dict[str, set[str]]:
    targets = [run.manifest.target for run in side]
    return {
        "target": {f"{target.name} ({target.base_url})" for target in targets},
        "model": {str(run.load["model"]) for run in side},
        "target's body": {json.dumps(target.body, sort_keys=True) for target in targets},
    }
