"""Replay of requests on the fitted limiter, to see which of them it counts and when it refills."""

from collections.abc import Sequence
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


def mismatch(fit: Fit, drain: Sequence[ProbeResult], counted: Sequence[ProbeResult] = ()) -> int:
    """Return by how many requests a drain is longer or shorter than the limiter's.

    The limiter counts the accepted requests of the drain and all ``counted`` ones. Lost responses can hide
    acceptances, so the closer result applies.
    """
    lost_accepted = [
        replace(result, decision=Decision.ACCEPTED) if result.status is None else result for result in drain
    ]
    return min(_mismatch(fit, drain, counted), _mismatch(fit, lost_accepted, counted))


def _mismatch(fit: Fit, drain: Sequence[ProbeResult], counted: Sequence[ProbeResult]) -> int:
    model = fit.model()
    wrong = 0
    charged = [(_decision_s(result), None) for result in counted]
    decided = [(_decision_s(result), result.accepted) for result in drain if result.accepted is not None]
    for at_s, accepted in sorted([*charged, *decided], key=lambda pair: pair[0]):
        if accepted is False:
            while model.decide(at_s).accepted:
                wrong += 1
            break
        wrong += bool(accepted) and not model.peek(at_s).accepted
        model.charge(at_s)
    return wrong


def _decision_s(result: ProbeResult) -> float:
    """Return the likeliest time of the decision: halfway between request and response."""
    return (result.sent_s + (result.decided_s or result.sent_s)) / 2
