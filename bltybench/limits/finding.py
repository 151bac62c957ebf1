"""What was found of an API's limit of requests: for programs (docs/limits.md has the form) and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from bltybench.limits.evidence import (
    Honesty,
    Row,
    Share,
    busiest,
    honesty,
    refusal_status,
    sights_of,
    stretch,
)
from bltybench.limits.fit import Fit, Verdict, fit

FINDINGS_VERSION = 1

NAMES = {
    "fixed_window": "fixed window",
    "first_hit_window": "fixed window that begins with its first request",
    "sliding_log": "sliding window (log)",
    "sliding_counter": "weighted sliding counter",
    "first_hit_counter": "weighted sliding counter that begins with its first request",
    "token_bucket": "token bucket",
    "interval_refill": "bucket refilled in lumps",
}

ADVICE = {
    "fixed_window": "After a refusal wait for the window to turn: nothing is let in before, then all.",
    "first_hit_window": "After a refusal wait one period from your first request; then all is free.",
    "sliding_log": "Spread requests evenly: a burst comes back as a burst, one period later.",
    "sliding_counter": "Spread requests evenly: after a full window only a trickle is let in.",
    "first_hit_counter": "Spread requests evenly: after a full window only a trickle is let in.",
    "token_bucket": "Send at the rate, and burst no more than the bucket holds.",
    "interval_refill": "Send in step with the refill: between two ticks nothing comes back.",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """Documented, announced and observed, side by side."""

    documented_per_min: int | None
    verdict: Verdict
    honesty: Honesty
    refusal_status: int | None
    busiest_count: int
    busiest_at_s: float

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
            "busiest_minute": {"accepted": self.busiest_count, "at": _utc(self.busiest_at_s)},
            "headers": {name: _share(value) for name, value in asdict_shares(self.honesty).items()},
            "says": self.sentences(),
        }

    def sentences(self) -> list[str]:
        """Say what was found, and what to do about it."""
        verdict, best = self.verdict, self.verdict.best
        lines: list[str] = []
        if verdict.status == "never_refused":
            lines.append(
                f"At least {self.busiest_count} requests within 60 s are let in: {verdict.reason}, so "
                "the limit, if there is one, is higher."
            )
        elif best is None:
            lines.append(f"Cannot tell: {verdict.reason}.")
        elif verdict.status == "ambiguous":
            names = " or ".join(NAMES[family] for family in verdict.families)
            lines.append(f"Cannot tell whether it is a {names}. {_described(best)} if it is the first.")
        else:
            lines.append(f"A {NAMES[best.family]}: {_described(best)}")
        lines += self._against_documented()
        lines += self._headers()
        if best is not None and verdict.status == "found":
            lines.append(ADVICE[best.family])
        return lines

    def _against_documented(self) -> list[str]:
        documented = self.documented_per_min
        if documented is None or self.busiest_count <= documented:
            return []
        when = datetime.fromtimestamp(self.busiest_at_s, UTC)
        line = (
            f"Documented {documented} a minute; {self.busiest_count} accepted within 60 s at {when:%H:%M:%S}"
        )
        kept = [NAMES[family] for family in self.verdict.families]
        broken = [
            NAMES[each.family]
            for each in self.verdict.fits
            if each.family not in self.verdict.families
            and each.family == "sliding_log"
            and not each.count_refused
        ]
        if kept:
            line += f"; consistent with a {' or a '.join(kept)}"
            line += f", not with a {broken[0]}" if broken else ""
        return [line + "."]

    def _headers(self) -> list[str]:
        told, best = self.honesty, self.verdict.best
        lines: list[str] = []
        if told.announced_limit is not None and best is not None and told.announced_limit != best.limit:
            lines.append(
                f"The headers announce a limit of {told.announced_limit}; {best.limit} was observed."
            )
        if told.remaining_steps.of and told.remaining_steps.count < told.remaining_steps.of:
            lines.append(f"Remaining fell by one in {_words(told.remaining_steps)} successive answers.")
        if told.without_retry_after.count:
            lines.append(f"{_words(told.without_retry_after)} refusals had no Retry-After that can be read.")
        if told.retry_enough.of:
            lines.append(
                f"Waiting as long as Retry-After said was enough in {_words(told.retry_enough)} cases."
            )
        if told.retry_early.count:
            lines.append(
                f"Retry-After was more than needed: {_words(told.retry_early)} requests sent over a second "
                "before its end were accepted."
            )
        return lines


def find(
    rows: Sequence[Row], start_s: float, documented_per_min: int | None, verdict: Verdict | None = None
) -> Findings:
    """Find out what attempts imply.

    ``start_s`` is the run's start in Unix time, ``verdict`` one that was already made.
    """
    sights = sights_of(rows, start_s)
    hints = (60.0,) if documented_per_min is not None else ()
    count, at_s = busiest(sights)
    return Findings(
        documented_per_min,
        verdict or fit(stretch(sights), hints_s=hints),
        honesty(rows),
        refusal_status(rows),
        count,
        at_s,
    )


def asdict_shares(told: Honesty) -> dict[str, Share]:
    """Return the counted claims by name."""
    return {name: getattr(told, name) for name in asdict(told) if isinstance(getattr(told, name), Share)}


def _described(best: Fit) -> str:
    if best.family == "token_bucket":
        return f"{best.rate_per_min:.4g} a minute, bursts of up to {best.limit}."
    aligned = {"clock": ", aligned to the clock", "other": ", not aligned to the clock"}.get(
        best.phase or "", ""
    )
    refused = ", refused requests count too" if best.count_refused else ""
    width = best.precision
    around = f" (within {100 * width:.1g}%)" if width >= 0.0005 else ""
    lumps = f", in {best.ticks} lumps" if best.ticks else ""
    return f"{best.limit} in {best.period_s:.4g} s{around}{lumps}{aligned}{refused}."


def _fit(best: Fit) -> dict[str, Any]:
    return {
        "family": best.family,
        "limit": best.limit,
        "limit_range": list(best.limit_range),
        "period_s": round(best.period_s, 4),
        "period_range_s": [round(each, 4) for each in best.period_range_s],
        "rate_per_min": round(best.rate_per_min, 4),
        "phase": best.phase,
        "phase_s": None if (phase := best.phase_s()) is None else round(phase, 4),
        "ticks": best.ticks,
        "count_refused": best.count_refused,
        "contradictions": best.contradictions,
    }


def _share(value: Share) -> dict[str, Any]:
    interval = value.interval()
    return {
        "count": value.count,
        "of": value.of,
        "interval": None if interval is None else [math.floor(1000 * each) / 1000 for each in interval],
    }


def _words(value: Share) -> str:
    return f"{value.count} of {value.of}"


def _utc(at_s: float) -> str | None:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds") if at_s else None
