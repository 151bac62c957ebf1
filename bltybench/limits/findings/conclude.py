"""What was found of an API's limit of requests: for programs (docs/limits.md has the form) and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from bltybench.limits.experiments.registry import answers, by_question, told_by
from bltybench.limits.findings import narrative
from bltybench.limits.fit.in_flight import ConcurrencyFit, in_flight
from bltybench.limits.fit.queueing import QueueTiming
from bltybench.limits.fit.result import ANY_LIMIT_FITS, Fit, Verdict
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.headers.honesty import Honesty
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.evidence import Row, busiest, refusal_status, sights_of, stretch
from bltybench.limits.observations.proportion import Proportion
from bltybench.limits.probe.context import ProbeContext

FINDINGS_VERSION = 1
LONGER = 3
"""A period of so many median answers is not taken for the time in which slots are freed."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Documented, announced and observed, side by side."""

    documented_per_min: int | None
    verdict: Verdict
    honesty: Honesty
    refusal_status: int | None
    busiest_count: int
    busiest_at_s: float
    in_flight: ConcurrencyFit | None = None
    """A limit on how many are in flight, where that alone would explain the refusals."""
    answers: tuple[Answer, ...] = ()
    """To the questions beside the limit of requests."""

    def value(self, question: str) -> int | float | str | bool | None:
        """Return the answer to a question; None where it cannot be told, or was not asked."""
        return next((each.value for each in self.answers if each.question == question), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        verdict = self.verdict
        return {
            "findings_version": FINDINGS_VERSION,
            "status": verdict.status,
            "reason": verdict.reason or None,
            "confidence": None if verdict.confidence is None else round(verdict.confidence, 4),
            "attempts": verdict.attempts,
            "accepted": verdict.accepted,
            "refused": verdict.refused,
            "refusal_status": self.refusal_status,
            "documented": {"requests_per_min": self.documented_per_min},
            "announced": {"limit": self.honesty.announced_limit, "dialect": self.honesty.dialect},
            "observed": None if verdict.best is None else _fit(verdict.best),
            "consistent": [_fit(each) for each in verdict.consistent],
            "rejected": [
                {
                    "family": each.family,
                    "count_refused": each.count_refused,
                    "contradictions": each.contradictions,
                }
                for each in verdict.fits
                if each.family not in verdict.families
            ],
            "in_flight": None
            if self.in_flight is None
            else {
                "limit": self.in_flight.limit,
                "limit_range": list(self.in_flight.limit_range),
                "contradictions": self.in_flight.contradictions,
            },
            "delayed": None if verdict.queue is None else _delayed(verdict.queue),
            "busiest_minute": {"accepted": self.busiest_count, "at": _utc(self.busiest_at_s)},
            "headers": {name: _share(value) for name, value in asdict_shares(self.honesty).items()},
            "answers": [each.to_dict() for each in self.answers],
            "says": narrative.sentences(self),
            "advice": narrative.advice(self),
        }

    def sentences(self) -> list[str]:
        """Say what was found, and what to do about it."""
        return [*narrative.sentences(self), *narrative.advice(self)]


def find(
    rows: Sequence[Row],
    start_s: float,
    documented_per_min: int | None,
    verdict: Verdict | None = None,
    *,
    known: ProbeContext | None = None,
    asked: Sequence[str] = (),
) -> Findings:
    """Find out what attempts imply.

    ``start_s`` is the run's start in Unix time, ``verdict`` one that was already made, ``known`` what is
    documented besides, ``asked`` the names of the experiments that were to be made.
    """
    each = by_question(rows)
    own = each[None]
    sights = sights_of(own, start_s)
    hints = (60.0,) if documented_per_min is not None else ()
    count, at_s = busiest(sights)
    open_at_once = in_flight(own)
    verdict = _reconciled(verdict or fit_limiter(stretch(sights), hints_s=hints), open_at_once)
    told = told_by(each, verdict)
    known = (known or ProbeContext()).with_limit(verdict, documented_per_min)
    return Findings(
        documented_per_min,
        verdict,
        told,
        refusal_status(own),
        count,
        at_s,
        open_at_once if open_at_once is not None and open_at_once.explains else None,
        tuple(answers(each, start_s, known, told, asked)),
    )


def _reconciled(verdict: Verdict, slots: ConcurrencyFit | None) -> Verdict:
    """Choose between a limit of the rate and one of what is in flight, where the latter explains all.

    Slots are freed by answers that end, so a run that met such a limit looks like a rate over about that
    time. A rate over a period that is much longer cannot be mistaken for it.
    """
    best = verdict.best
    if slots is None or not slots.explains or verdict.reason == ANY_LIMIT_FITS:
        return verdict
    if best is not None and best.period_s > LONGER * slots.answer_s:
        return verdict
    return replace(
        verdict,
        status="unknown",
        fits=(),
        consistent=(),
        confidence=None,
        reason="a limit on how many are in flight explains the refusals",
    )


def asdict_shares(told: Honesty) -> dict[str, Proportion]:
    """Return the counted claims by name."""
    return {name: getattr(told, name) for name in asdict(told) if isinstance(getattr(told, name), Proportion)}


def _fit(best: Fit) -> dict[str, Any]:
    period_s = round(best.period_s, 4)
    # Unix time holds very many periods: the phase must be that of the period as it is written.
    phase_s = best.phase_s() if best.phase == "clock" else best.phase_s(period_s)
    return {
        "family": best.family,
        "limit": best.limit,
        "limit_range": list(best.limit_range),
        "period_s": period_s,
        "period_range_s": [round(each, 4) for each in best.period_range_s],
        "rate_per_min": round(best.rate_per_min, 4),
        "phase": best.phase,
        "phase_s": None if phase_s is None else round(phase_s, 4),
        "ticks": best.ticks,
        "free": best.free if best.traits.kind == "queue" else None,
        "count_refused": best.count_refused,
        "contradictions": best.contradictions,
    }


def _delayed(held: QueueTiming) -> dict[str, Any]:
    return {
        "interval_s": round(held.interval_s, 4),
        "interval_range_s": [round(each, 4) for each in held.interval_range_s],
        "rate_per_min": round(held.rate_per_min, 4),
        "free": held.free,
        "explained": held.explained,
        "answers": held.answers,
        "held": held.held,
        "longest_wait_s": round(held.longest_wait_s, 3),
    }


def _share(value: Proportion) -> dict[str, Any]:
    interval = value.interval()
    return {
        "count": value.count,
        "of": value.of,
        "interval": None if interval is None else [math.floor(1000 * each) / 1000 for each in interval],
    }


def _utc(at_s: float) -> str | None:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds") if at_s else None
