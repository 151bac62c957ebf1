"""Verdicts that claim no more than a run shows: other causes, delays, short evidence, and coarse clocks."""

import math
from collections.abc import Sequence
from dataclasses import replace

from bltybench.limits.findings.replay import agreement
from bltybench.limits.findings.thresholds import FINDINGS
from bltybench.limits.fit.evidence import missing_recoveries, undetermined_rate, unpredicted
from bltybench.limits.fit.in_flight import ConcurrencyFit
from bltybench.limits.fit.result import ANY_LIMIT_FITS, Fit, Verdict
from bltybench.limits.fit.thresholds import EVIDENCE, QUEUEING, WAITING
from bltybench.limits.models.families import FIRST_HIT_WINDOW
from bltybench.limits.observations.observation import (
    Observation,
    Observations,
    most_informative,
    sustained_per_min,
)
from bltybench.limits.observations.thresholds import WAITS
from bltybench.limits.observations.waits import Waits

CONCURRENCY_FITS = "a concurrency limit fits the refusals"


def unless_concurrency(verdict: Verdict, slots: ConcurrencyFit | None) -> Verdict:
    """Return the verdict, or ``unknown`` if a concurrency limit fits every refusal, or those of one limit.

    Responses release slots when they end, so a concurrency limit looks like a rate over about one response
    time. A rate over a much longer period can't be mistaken for it.
    """
    best = verdict.best
    if slots is None or verdict.reason == ANY_LIMIT_FITS:
        return verdict
    if best is not None and best.shortest_period_s > FINDINGS.max_release_period * slots.latency_s:
        return verdict
    if best is not None and best.also is not None:
        return unknown(verdict, "two limits fit, but the shorter one may be on requests in flight")
    if not slots.explains:
        return verdict
    return unknown(verdict, CONCURRENCY_FITS)


def unless_delayed(verdict: Verdict, waits: Waits | None, observations: Sequence[Observation]) -> Verdict:
    """Return the verdict without periods shorter than requests waited; ``unknown`` if the best one is.

    Windows that spread out their requests explain the waits.

    An accepted request is dated at its sending. If the server delays it, it may count only when it is served,
    so a burst that is served over seconds looks like one that a short window accepts.
    """
    if waits is None or verdict.best is None or verdict.explains_waits:
        return verdict
    if _is_spread(verdict.best, observations, waits.usual_s):
        spread = tuple(replace(fit, spread=True) for fit in verdict.best.variants)
        best = replace(verdict.best, spread=True, variants=spread)
        return replace(verdict, consistent=(best, *verdict.consistent[1:]))
    if _confused_s(verdict.best, waits) <= waits.repeated_s:
        reason = (
            f"a period of {verdict.best.shortest_period_s:.3g} s fits, but accepted requests waited up to "
            f"{waits.longest_s:.2g} s, so it may come from the waiting"
        )
        return unknown(verdict, reason)
    kept = tuple(fit for fit in verdict.consistent if _confused_s(fit, waits) > waits.repeated_s)
    return replace(verdict, consistent=kept)


def _confused_s(fit: Fit, waits: Waits) -> float:
    """Return the wait, in seconds, from which a fit can come from the waiting.

    If the server makes many requests wait, half a refill is enough for a bucket: a window that serves them
    when it resets looks like one that refills then, and they wait up to the whole period.
    """
    if fit.traits.refills_gradually and waits.waited >= WAITS.many_fraction * waits.accepted:
        return min(limit.period_s / (limit.ticks or limit.limit) for limit in fit.limits) / 2
    return fit.shortest_period_s


def _is_spread(fit: Fit, observations: Sequence[Observation], usual_s: float) -> bool:
    """Return whether requests wait as they do in first-hit windows that spread them out.

    Concurrent requests have no order, so the first response is due to the first of them. A lost one shifts
    those after it by less than the usual spacing.
    """
    if fit.family != FIRST_HIT_WINDOW or fit.also is not None:
        return False
    model, at_s = replace(fit, spread=True).model(), -math.inf
    due_s: list[float] = []
    for one in sorted(observations, key=lambda one: one.sent_s):
        if one.accepted:
            at_s = max(at_s, (one.sent_s + one.decided_s) / 2)
            model.charge(at_s)
            due_s.append(at_s + model.delay_s(at_s))
    answered_s = sorted(one.answered_s or one.decided_s for one in observations if one.accepted)
    slack_s = WAITING.unclear_ratio * usual_s + fit.period_s / fit.limit / 2
    in_time = sum(abs(a - b) <= slack_s for a, b in zip(answered_s, sorted(due_s), strict=True))
    return in_time >= QUEUEING.min_explained * len(due_s)


def measured(verdict: Verdict) -> Verdict:
    """Return the verdict of a probe, whose rates need no further evidence."""
    return replace(verdict, consistent=tuple(map(_exact, verdict.consistent)))


def for_clients(
    verdict: Verdict, documented_per_min: int | None, observations: Sequence[Observation]
) -> Verdict:
    """Return the verdict of an ordinary run with rates to rely on, the slowest candidate first.

    A rate is at most what the run was accepted at for long: a lower limit may be hidden, or other clients may
    share it. If a candidate has the documented rate, that is evidence enough. The verdict is ``unknown`` if
    there were too few recoveries, if the best candidate does not reproduce the decisions on its own, or if
    the candidates differ too much to say how fast to send.
    """

    def is_documented(fit: Fit) -> bool:
        ratio = fit.rate_per_min / (documented_per_min or math.inf)
        return 1 / EVIDENCE.same_rate <= ratio <= EVIDENCE.same_rate

    documented = [fit for fit in verdict.consistent if is_documented(fit)]
    fits = [
        _exact(fit) if is_documented(fit) else fit if documented else _sustained(fit, observations)
        for fit in verdict.consistent
    ]
    if not fits:
        return verdict
    fits.sort(key=lambda fit: fit.safe_rate_per_min)
    low, high = min(fit.rates_per_min[0] for fit in fits), max(fit.rates_per_min[1] for fit in fits)
    # Candidates that accept more than is documented do not change how fast to send.
    reason = undetermined_rate(low, documented[0].rate_per_min if documented else high)
    if reason is None and not documented and verdict.queue is None:
        part = most_informative(observations)
        reason = missing_recoveries(len(Observations(part).recoveries))
        reason = reason or unpredicted(agreement(part, verdict.consistent[0].model))
    return replace(verdict, consistent=tuple(fits)) if reason is None else unknown(verdict, reason)


def blurred(verdict: Verdict, requests: int) -> Verdict:
    """Return the verdict of times with a coarse clock: ``requests`` may be in the next window instead."""

    def blurred(fit: Fit) -> Fit:
        low, high = fit.limit_range
        lowest = max(1, low - requests)
        slowest, fastest = fit.rates_per_min
        rates = (slowest * lowest / low, fastest * (high + requests) / high)
        return replace(fit, limit_range=(lowest, high + requests), rate_range_per_min=rates)

    return replace(verdict, consistent=tuple(map(blurred, verdict.consistent)))


def _exact(fit: Fit) -> Fit:
    return replace(fit, rate_range_per_min=(fit.rate_per_min,) * 2)


def _sustained(fit: Fit, observations: Sequence[Observation]) -> Fit:
    """Return the fit with a lowest rate that the run was accepted at for long."""
    period_s = max(EVIDENCE.min_sustained_s, EVIDENCE.min_sustained_periods * fit.period_s)
    sustained = sustained_per_min(observations, period_s)
    if fit.safe_rate_per_min <= EVIDENCE.max_rate_excess * sustained:
        return fit
    return replace(fit, rate_range_per_min=(sustained, fit.rates_per_min[1]))


def unknown(verdict: Verdict, reason: str) -> Verdict:
    """Return the verdict without a limiter, because of ``reason``."""
    return replace(
        verdict, status="unknown", fits=(), consistent=(), confidence=None, reason=reason, ban=None
    )
