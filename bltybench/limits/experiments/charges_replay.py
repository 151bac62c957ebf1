"""Replay of requests on the fitted limiter, to see which of them it counts and when it refills."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from bltybench.limits.fit.result import Fit
from bltybench.limits.observations.classify import Decision
from bltybench.limits.observations.probe_result import ProbeResult


def latest_available_s(fits: Sequence[Fit], drain: Sequence[ProbeResult], now_s: float) -> float:
    """Return the latest time at which any candidate, with any fitting parameters, accepts a request."""
    return max(available_s(variant, drain, now_s) for fit in fits for variant in (fit, *fit.variants))


def available_s(fit: Fit, drain: Sequence[ProbeResult], now_s: float) -> float:
    """Return when the limiter accepts a request if it has counted only the accepted ones of a drain."""
    model = fit.model()
    for at_s in sorted(_decision_s(result) for result in drain if result.accepted):
        model.charge(at_s)
    return now_s + (model.peek(now_s).retry_after_s or 0.0)


def mismatch(fit: Fit, results: Sequence[ProbeResult], counted_roles: Collection[str]) -> int:
    """Return by how many requests a drain is longer or shorter than the limiter's.

    The limiter counts all requests with ``counted_roles``, and the accepted ones of the drain. Lost
    responses can hide acceptances, so the closer result applies.
    """
    lost_accepted = [
        replace(result, decision=Decision.ACCEPTED)
        if result.status is None and result.role not in counted_roles
        else result
        for result in results
    ]
    return min(_mismatch(fit, replayed, counted_roles) for replayed in (results, lost_accepted))


def _mismatch(fit: Fit, results: Sequence[ProbeResult], counted_roles: Collection[str]) -> int:
    model = fit.model()
    wrong = 0
    for result in sorted(results, key=_decision_s):
        at_s = _decision_s(result)
        if result.role in counted_roles:
            model.charge(at_s)
        elif result.accepted:
            wrong += not model.peek(at_s).accepted
            model.charge(at_s)
        elif result.refused:
            while model.decide(at_s).accepted:
                wrong += 1
            break
    return wrong


def _decision_s(result: ProbeResult) -> float:
    """Return the likeliest time of the decision: halfway between request and response."""
    return (result.sent_s + (result.decided_s or result.sent_s)) / 2
