"""Two sides against each other: differences with intervals, and a verdict for each metric.

A side is one run, or several repeats of it. docs/compare.md says how to read the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bltybench.metrics.bootstrap import (
    DRAWS,
    Interval,
    fraction_draws,
    interval,
    mean_draws,
    span_weights,
)
from bltybench.metrics.frame import Floats, Ints
from bltybench.metrics.latency import PERCENTILES, needed
from bltybench.metrics.outline import BINS, MIN_SPAN_S, MIN_SPANS, Outline
from bltybench.metrics.sample import Sample

Verdict = Literal["better", "worse", "same", "cannot tell"]
Kind = Literal["ms", "per_min", "share"]

FREE_TO_DIFFER = frozenset({"title", "answers", "checks", "target", "model", "seed", "duration_s"})
"""Keys of the scenario that two runs may differ in and still be compared."""

SEED = 1


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much worse is still the same: ``relative`` for times and rates, ``share`` (0 … 1) for shares."""

    relative: float = 0.05
    share: float = 0.01

    def of(self, kind: Kind) -> float:
        """Return the tolerance for a kind of metric."""
        return self.share if kind == "share" else self.relative


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one run: what it was, and what resamples of the run make of it."""

    value: float | None
    draws: Floats | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that sides are compared by."""

    name: str
    kind: Kind
    lower_is_better: bool
    measure: Callable[[Outline, np.random.Generator], Measured]


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two sides. ``change`` is candidate / base − 1, or candidate − base for a share."""

    metric: str
    kind: Kind
    lower_is_better: bool
    base: float | None
    candidate: float | None
    change: float | None
    bounds: Interval | None
    """The 95% interval of ``change``."""
    verdict: Verdict
    why: str = ""
    """Where it cannot be told: why not."""


def obstacles(base: Sequence[Outline], candidate: Sequence[Outline], *, invalid: bool = False) -> list[str]:
    """Return why two sides cannot be compared; nothing where they can.

    ``invalid`` lets runs in whose generator was itself the bottleneck.
    """
    found: list[str] = []
    ids = [one.manifest.run_id for one in (*base, *candidate)]
    found += [f"{run} is named twice" for run in sorted({run for run in ids if ids.count(run) > 1})]
    reference = base[0].manifest
    for one in (*base, *candidate):
        manifest = one.manifest
        if one.reasons and not invalid:
            found.append(f"{manifest.run_id} is INVALID: {one.reasons[0]}")
        keys = sorted({*reference.resolved, *manifest.resolved} - FREE_TO_DIFFER)
        for key in keys:
            ours, theirs = reference.resolved.get(key), manifest.resolved.get(key)
            if ours != theirs:
                found.append(
                    f"{manifest.run_id} had another load than {reference.run_id}: {_where(key, ours, theirs)}"
                )
    for side in (base, candidate):
        for key, values in _identities(side).items():
            if len(values) > 1:
                found.append(f"repeats of one side differ in their {key}: {', '.join(sorted(values))}")
    return found


def compare(base: Sequence[Outline], candidate: Sequence[Outline], tolerance: Tolerance) -> list[Difference]:
    """Compare two sides by every metric of METRICS."""
    return [_difference(metric, base, candidate, tolerance) for metric in METRICS]


def judge(bounds: Interval, tolerance: float, *, lower_is_better: bool) -> Verdict:
    """Return the verdict on a change: the whole interval has to lie on one side of the tolerance."""
    low, high = bounds if lower_is_better else (-bounds.high, -bounds.low)
    if low > tolerance:
        return "worse"
    if high < -tolerance:
        return "better"
    return "same" if low >= -tolerance and high <= tolerance else "cannot tell"


def _difference(
    metric: Metric, base: Sequence[Outline], candidate: Sequence[Outline], tolerance: Tolerance
) -> Difference:
    rng = np.random.default_rng(SEED)
    ours, ours_draws, why = _side(metric, base, rng)
    theirs, theirs_draws, why_too = _side(metric, candidate, rng)

    def result(change: float | None, bounds: Interval | None, verdict: Verdict, why: str = "") -> Difference:
        return Difference(
            metric.name, metric.kind, metric.lower_is_better, ours, theirs, change, bounds, verdict, why
        )

    if ours is None or theirs is None or ours_draws is None or theirs_draws is None:
        return result(None, None, "cannot tell", why or why_too)
    if metric.kind == "share":
        change, draws = theirs - ours, theirs_draws - ours_draws
    elif ours > 0 and float(ours_draws.min()) > 0:
        change, draws = theirs / ours - 1, theirs_draws / ours_draws - 1
    else:
        return result(None, None, "cannot tell", "the base had none, so there is nothing to be relative to")
    bounds = interval(draws)
    verdict = judge(bounds, tolerance.of(metric.kind), lower_is_better=metric.lower_is_better)
    unsure = "its interval reaches across the tolerance: measure longer, or repeat"
    return result(change, bounds, verdict, unsure if verdict == "cannot tell" else "")


def _side(
    metric: Metric, runs: Sequence[Outline], rng: np.random.Generator
) -> tuple[float | None, Floats | None, str]:
    """Return the mean over a side's runs, and the same of DRAWS resamples of the runs and within them."""
    measured = [metric.measure(run, rng) for run in runs]
    values = [one.value for one in measured if one.value is not None]
    draws = [one.draws for one in measured if one.draws is not None]
    if len(values) < len(runs) or len(draws) < len(runs):
        return None, None, next(one.why_not for one in measured if one.draws is None)
    picked = rng.integers(0, len(runs), (len(runs), DRAWS))
    mean = np.take_along_axis(np.stack(draws), picked, axis=0).mean(axis=0)
    return float(np.mean(values)), mean, ""


def _percentile(sample: str, name: str) -> Callable[[Outline, np.random.Generator], Measured]:
    def measure(run: Outline, rng: np.random.Generator) -> Measured:
        values = run.samples[sample]
        if len(values) < needed(name):
            return Measured(None, None, f"n too small: {len(values):,} of the {needed(name):,} needed")
        share = PERCENTILES[name]
        value = values.quantile(share)
        if not long_enough(run):
            return Measured(None, None, TOO_SHORT)
        return Measured(value, _spanned_quantile(values, run.timings[sample], share, rng))

    return measure


def _rate(name: str) -> Callable[[Outline, np.random.Generator], Measured]:
    def measure(run: Outline, rng: np.random.Generator) -> Measured:
        counts = run.counts[name]
        if not long_enough(run):
            return Measured(None, None, TOO_SHORT)
        per_min = 60 / run.span_s
        return Measured(float(counts.mean() * per_min), mean_draws(counts, rng) * per_min)

    return measure


def _share(name: str, of: str) -> Callable[[Outline, np.random.Generator], Measured]:
    def measure(run: Outline, rng: np.random.Generator) -> Measured:
        counts, totals = run.counts[name], run.counts[of]
        if totals.sum() == 0:
            return Measured(None, None, "there was nothing to take a share of")
        if not long_enough(run):
            return Measured(None, None, TOO_SHORT)
        weights = span_weights(len(counts), rng)
        draws = fraction_draws(weights @ counts, weights @ totals, rng)
        return Measured(float(counts.sum() / totals.sum()), draws)

    return measure


TOO_SHORT = f"the run is too short: its load must last {MIN_SPANS * MIN_SPAN_S} s, warm-up not counted"


def long_enough(run: Outline) -> bool:
    """Return whether a run has enough spans that are long enough to be resampled."""
    return len(run.counts["attempts"]) >= MIN_SPANS and run.span_s >= MIN_SPAN_S


def _spanned_quantile(sample: Sample, timings: Ints, share: float, rng: np.random.Generator) -> Floats:
    """Return the quantile of DRAWS resamples of the spans, to a step of rank."""
    # As floats, in which whole numbers are exact: products of integers do not go through BLAS.
    drawn = span_weights(len(timings), rng).astype(np.float64) @ timings.astype(np.float64)
    upto = np.cumsum(drawn, axis=1)
    step = np.argmax(upto >= share * upto[:, -1:], axis=1)
    ranks = np.ceil((step + 0.5) * len(sample) / BINS)
    return sample.at_ranks(np.clip(ranks, 1, len(sample)).astype(np.int64))


METRICS = [
    *(
        Metric(f"{sample}.{name}", "ms", lower_is_better=True, measure=_percentile(sample, name))
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
"""What sides are compared by. Rates are means over whole spans of the load, not best minutes."""


def _where(key: str, ours: Any, theirs: Any) -> str:
    """Return where two values of a scenario's key differ, as deep as both are tables."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        differing = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        return "; ".join(_where(f"{key}.{name}", ours.get(name), theirs.get(name)) for name in differing)
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(place, a, b) for place, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        return "; ".join(_where(f"{key}[{place}]", a, b) for place, a, b in pairs)
    return f"{key} {theirs!s:.60} instead of {ours!s:.60}"


def _identities(side: Sequence[Outline]) -> dict[str, set[str]]:
    return {
        "target": {f"{one.manifest.target.name} ({one.manifest.target.base_url})" for one in side},
        "model": {str(one.manifest.resolved.get("model")) for one in side},
    }
