"""The standings of a tournament of client policies: what each achieved, with intervals, and which is best.

A stage is divided into spans of time. For what is counted when it occurs, goodput and refusals, they are at
least as long as the longest period of the limits: within one, a limiter first accepts and then refuses. For
what is counted when a call was due, its success and its time, there are ten. Intervals of rates and fractions
are Student's t over the spans, because a bootstrap of a few spans shows too little of how they differ. Those
of percentiles are of the effective size of the sample (``bootstrap.effective_size``).
"""

import math

import msgspec
import numpy as np
import pandas as pd

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.bootstrap import effective_size, interval, quantile_draws, student_t
from bltybench.metrics.frame import NS_PER_S, Bools, Floats, Ints, bools, cut_off, floats, has_fate, ints
from bltybench.metrics.goodput import good_calls
from bltybench.metrics.grading import Figure, affected
from bltybench.metrics.latency import PERCENTILES, min_sample
from bltybench.metrics.policy_choice import IntervalEstimate, Standing, TournamentResult, ranked, recommend
from bltybench.metrics.sample import Sample
from bltybench.policies.optimum import optimum
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.runs.trials.tournament import PolicyStage, TournamentCourse
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import SandboxLimits

MIN_SPANS, MAX_SPANS = 3, 10
"""Number of spans. With fewer periods than the minimum, spans are shorter than a period."""


def tournament_result(analysis: Analysis, course: TournamentCourse | None) -> TournamentResult | None:
    """Return the result of a run's tournament; None if the run was none."""
    if course is None:
        return None
    good = good_calls(analysis.attempts, analysis.calls, analysis.scenario.objectives)
    wrong = affected(analysis.findings)
    timed = Figure.CALL_LATENCY not in wrong
    found = ranked(_standings(analysis, good, course), timed=timed)
    recommendation, recommended = recommend(found, course, valid=Figure.RATES not in wrong, timed=timed)
    return TournamentResult(
        course=course, standings=found, recommendation=recommendation, recommended=recommended
    )


def _standings(analysis: Analysis, good: Bools, course: TournamentCourse) -> list[Standing]:
    """Return the standings of the policies that had their turn. ``good`` calls met the objectives."""
    found = []
    for stage in course.stages:
        own = np.asarray(analysis.calls["stage"] == stage.stage, dtype=np.bool_)
        tries = analysis.attempts[np.asarray(analysis.attempts["stage"] == stage.stage, dtype=np.bool_)]
        if own.any():
            calls = analysis.calls[own]
            below = _below_optimum(tries, calls, stage, course, analysis)
            standing = _standing(tries, calls, good[own], stage, course)
            found.append(msgspec.structs.replace(standing, below_optimum_percent=below))
    return found


def _standing(
    tries: pd.DataFrame, calls: pd.DataFrame, good: Bools, stage: PolicyStage, course: TournamentCourse
) -> Standing:
    span_s = _span_s(course)
    due_s = ints(calls, "first_due_ns") / NS_PER_S - stage.begin_s
    ok, latency_s = bools(calls, "ok"), floats(calls, "latency_ms") / 1000
    end_s = (due_s + latency_s)[good]
    due_spans = (due_s / (course.stage_s / MAX_SPANS)).astype(np.int64)
    refused_s = floats(tries[has_fate(tries, "refused")], "at_ns") / NS_PER_S - stage.begin_s
    last_s = float(tries["end_ns"].max()) / NS_PER_S - stage.begin_s
    failed = tries[~bools(tries, "ok") & tries["sent_ns"].notna().to_numpy()]
    prompts = failed["prompt_tokens"].fillna(failed["wanted_prompt_tokens"]).fillna(0)
    times = {name: _quantile(latency_s[ok], due_spans[ok], name) for name in ("p50", "p95", "p99")}
    in_time = np.bincount((end_s[end_s <= course.stage_s] / span_s).astype(np.int64))
    return Standing(
        policy=stage.stage,
        rank=1,
        calls=len(calls),
        ok=int(ok.sum()),
        gave_up=int((calls["outcome"].astype("object") == "rate_limited").sum()),
        cut_off=int(cut_off(calls).sum()),
        goodput_per_min=_mean(_padded(in_time, round(course.stage_s / span_s)), 60 / span_s),
        ok_share=_ratio(np.bincount(due_spans[ok], minlength=due_spans.max() + 1), np.bincount(due_spans)),
        refusals_per_success=_per_success(refused_s, (due_s + latency_s)[ok], span_s) if ok.any() else None,
        success_p50_s=times["p50"],
        success_p95_s=times["p95"],
        success_p99_s=times["p99"],
        wasted_tokens=int(prompts.sum() + np.nansum(floats(failed, "completion_tokens"))),
        makespan_s=last_s,
        recovered=_recovered(tries),
        no_free_user=stage.no_free_user,
    )


def _span_s(course: TournamentCourse) -> float:
    """Return the length of a span: at least a period, if that leaves enough spans."""
    periods = MAX_SPANS if not course.period_s else int(course.stage_s / course.period_s + 1e-9)
    return course.stage_s / min(max(periods, MIN_SPANS), MAX_SPANS)


def _padded(counts: Ints, spans: int) -> Ints:
    """Return the count of each of ``spans`` spans. One that ends with the stage belongs to the last."""
    padded = np.zeros(spans, dtype=np.int64)
    np.add.at(padded, np.minimum(np.arange(len(counts)), spans - 1), counts)
    return padded


def _mean(counts: Ints, scale: float) -> IntervalEstimate:
    """Return the mean of counts by span, times ``scale``."""
    value, half = float(counts.mean()) * scale, None
    if len(counts) >= MIN_SPANS:
        half = student_t(len(counts) - 1) * float(counts.std(ddof=1)) / math.sqrt(len(counts)) * scale
    return _estimate(value, half)


def _ratio(top: Ints, bottom: Ints) -> IntervalEstimate:
    """Return Σ top / Σ bottom, with the interval of a ratio estimator over spans."""
    spans = max(len(top), len(bottom))
    top, bottom = _padded(top, spans), _padded(bottom, spans)
    value, half = float(top.sum() / bottom.sum()), None
    if spans >= MIN_SPANS:
        between = spans / (spans - 1) * float(np.sum((top - value * bottom) ** 2))
        half = student_t(spans - 1) * math.sqrt(between) / float(bottom.sum())
    return _estimate(value, half)


def _per_success(refused_s: Floats, ok_s: Floats, span_s: float) -> IntervalEstimate:
    """Return refusals per success, both by when they occurred."""
    refused, ok = (np.bincount((at_s / span_s).astype(np.int64)) for at_s in (refused_s, ok_s))
    return _ratio(refused, ok)


def _estimate(value: float, half: float | None) -> IntervalEstimate:
    return IntervalEstimate(
        value, None if half is None else max(0.0, value - half), None if half is None else value + half
    )


def _quantile(values: Floats, spans: Ints, name: str) -> IntervalEstimate | None:
    """Return a percentile; None if the sample is too small for it."""
    sample, fraction = Sample.of(values), PERCENTILES[name]
    if len(sample) < min_sample(name):
        return None
    value = sample.quantile(fraction)
    independent = effective_size(
        np.bincount(spans[values <= value], minlength=spans.max() + 1), np.bincount(spans)
    )
    if independent is None:
        return IntervalEstimate(value, None, None)
    bounds = interval(quantile_draws(sample, fraction, np.random.default_rng(1), independent))
    return IntervalEstimate(value, bounds.low, bounds.high)


def _below_optimum(
    tries: pd.DataFrame,
    calls: pd.DataFrame,
    stage: PolicyStage,
    course: TournamentCourse,
    analysis: Analysis,
) -> float | None:
    """Return how many percent fewer calls were accepted than by the best client; None if that is unknown."""
    accepted = tries[has_fate(tries, "accepted")]
    took_s = floats(accepted, "latency_ms") / 1000
    if course.limits is None or not len(took_s):
        return None
    first = tries[ints(tries, "attempt") == 0].set_index("call").loc[calls["call"]]
    sizes = zip(first["wanted_prompt_tokens"].fillna(0), first["max_tokens"].fillna(0), strict=True)
    load = SimulatedLoad(
        clients=1,
        users=analysis.scenario.users,
        due_s=tuple(ints(calls, "first_due_ns") / NS_PER_S - stage.begin_s),
        think_s=0.0,
        end_s=course.stage_s,
        sizes=tuple(CallSize(int(prompt), int(completion)) for prompt, completion in sizes),
    )
    begin_s = analysis.manifest.clock.wall_ns / NS_PER_S + stage.begin_s
    service = ServiceTime(float(np.nanmedian(took_s)), 0.0)
    best = optimum(load, SandboxLimits.model_validate(course.limits), service, begin_s)
    sent_s = floats(accepted, "sent_ns") / NS_PER_S - stage.begin_s
    return None if best is None else best.below(sent_s.tolist(), course.stage_s)


def _recovered(tries: pd.DataFrame) -> bool | None:
    """Return whether the first response announced that no more was used than the stage had sent by then."""
    known = tries[tries["limit_requests"].notna().to_numpy() & tries["remaining_requests"].notna().to_numpy()]
    if known.empty:
        return None
    first = known.sort_values("end_ns", kind="stable").iloc[0]
    sent = int((floats(tries, "sent_ns") <= float(first["end_ns"])).sum())
    return bool(first["limit_requests"] - first["remaining_requests"] <= sent)
