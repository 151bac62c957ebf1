"""The limits that a client has to keep: measured ones, and documented ones where nothing was measured."""

from collections.abc import Iterable, Sequence
from math import floor
from typing import Literal

import msgspec

from bltybench.limits.findings.model import FindingsRecord, FitRecord
from bltybench.limits.models.families import FAMILIES
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import (
    MINUTE_S,
    ONE_SIDED,
    PER_PERIOD,
    Limit,
    What,
    limits_on,
    one_limit,
    per_minute,
)
from bltybench.scenario.target import OPTIONS, RateLimit, SandboxLimits, Target, alone, chained

SHARED = ("ticks", "count_refused")
"""Options of a limit that findings and tables of limits.toml have in common."""

SCALED = ("limit", "burst", "queue")
"""Numbers of a limit that are in the unit that it counts."""

Source = Literal["measured", "documented", "measured and documented", "unknown"]
LONG_PERIOD_S = 3600.0
"""Shortest period of a documented limit, in seconds, that a run with a measured limit does not refute."""


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where each limit is from."""

    requests: Source
    tokens: Source
    input_tokens: Source
    output_tokens: Source
    concurrency: Source


def documented_limits(documented: Iterable[Limit]) -> SandboxLimits:
    """Return documented limits as fixed windows, and concurrency.

    Of several limits on the same, the one per minute is first, and the others are its ``also``.
    """
    known = list(documented)

    def window(what: What) -> RateLimit | None:
        first = one_limit(known, what)
        by_period: dict[float, RateLimit] = {}
        for limit in (
            *([first] if first else ()),
            *limits_on(known, what),
        ):  # of one period, the lowest is first
            period_s = limit.period_s or MINUTE_S
            by_period.setdefault(period_s, RateLimit(limit=limit.limit, period_s=period_s))
        return chained([*by_period.values()])

    return SandboxLimits(
        requests=window("requests"),
        tokens=window("tokens"),
        input_tokens=window("input_tokens"),
        output_tokens=window("output_tokens"),
        concurrency=per_minute(known, "concurrency"),
    )


def limits_of(target: Target) -> SandboxLimits:
    """Return the limits of a target: the sandbox's, or the documented ones."""
    if target.sandbox is not None:
        return target.sandbox.limits
    return documented_limits(target.documented).model_copy(update={"per": target.limits_per})


def measured_limits(record: FindingsRecord) -> SandboxLimits:
    """Return the limits that a run shows: of the candidates that remain, the one that accepts least."""
    answers = {answer.question: answer.value for answer in record.answers}
    slowest, slots = record.slowest, record.in_flight
    requests = None
    if record.ban is not None:
        # One less than the limit, because any refusal starts a ban.
        limit = max(1, record.ban.limit_range[0] - 1)
        period_s = limit * 60 / record.ban.safe_rate_per_min
        requests = RateLimit(limit=limit, period_s=period_s, algorithm="sliding_log")
    elif slowest is not None and slowest.family in FAMILIES:
        requests = _request_limit(slowest)
    concurrency = answers.get("concurrency_limit")
    if concurrency is None and requests is None and slots is not None:
        concurrency = slots.limit
    tokens, token_period_s = answers.get("token_limit"), answers.get("token_period_s")
    return SandboxLimits.model_validate(
        {
            "requests": requests or False,
            "tokens": {"limit": tokens, "period_s": token_period_s} if tokens and token_period_s else False,
            "concurrency": concurrency or False,
            "per": () if answers.get("limit_per_key") is False else ("key",),
        }
    )


def _request_limit(fit: FitRecord) -> RateLimit:
    period_s = fit.limit * 60 / fit.rate_to_send_per_min
    fields = {"limit": fit.limit, "period_s": period_s, "algorithm": fit.family}
    fields |= {name: getattr(fit, name) for name in SHARED if fit.family in OPTIONS[name]}
    if fit.spread:
        fields["spread"] = True
    if fit.seats is not None:
        fields["waiting"] = fit.seats
    if fit.also is not None:
        fields["also"] = _request_limit(fit.also)
    return RateLimit.model_validate(fields)


def completed(measured: SandboxLimits, documented: SandboxLimits) -> tuple[SandboxLimits, Sources]:
    """Return the measured limits, and the documented ones that were not measured.

    Next to a measured limit, those are the ones of much longer periods, such as a day.
    """
    names: tuple[str, ...] = (*PER_PERIOD, "concurrency")
    added = {name: getattr(documented, name) for name in names if getattr(measured, name) is None}
    sources: dict[str, Source] = dict.fromkeys(names, "measured")
    sources |= {name: "unknown" if limit is None else "documented" for name, limit in added.items()}
    for name in PER_PERIOD:
        own, other = getattr(measured, name), getattr(documented, name)
        if own is not None and other is not None:
            longer = [limit for limit in other.chain() if _is_longer(limit, own)]
            if longer:
                added[name] = chained([*alone(own), *longer])
                sources[name] = "measured and documented"
    return measured.model_copy(update=added), Sources(**sources)


def _is_longer(documented: RateLimit, measured: RateLimit) -> bool:
    longest_s = max(limit.period_s for limit in measured.chain())
    return documented.period_s >= max(LONG_PERIOD_S, 2 * longest_s)


def by_total_tokens(limits: SandboxLimits, sizes: Sequence[CallSize]) -> SandboxLimits:
    """Return limits that keep those on input and output tokens as limits on all tokens.

    A call's fraction of such tokens is at most that of the calls to expect, so these can't exceed them. If no
    call is known, it can be all of its tokens.
    """
    found = alone(limits.tokens)
    for what in ONE_SIDED:
        fraction = max((size.cost(what) / max(1, size.tokens) for size in sizes), default=1.0)
        for limit in alone(limits.per_period.get(what)) if fraction else ():
            own = {name: value for name in SCALED if (value := getattr(limit, name)) is not None}
            scaled = {name: max(1, floor(value / fraction)) for name, value in own.items()}
            found.append(limit.model_copy(update=scaled))
    return limits.model_copy(update={"tokens": chained(found), "input_tokens": None, "output_tokens": None})
