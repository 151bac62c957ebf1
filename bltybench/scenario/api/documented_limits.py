"""Documented limits of an API: as scenarios.toml writes them, and as every other module uses them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Annotated, Literal, Self, TypeVar

import msgspec
from pydantic import Discriminator, PlainValidator, Tag, model_validator

from bltybench.scenario.base import MAX_DURATION_S, MAX_NUMBER, MIN_POSITIVE, PositiveInt, Table

What = Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency"]

MINUTE_S = 60.0
PERIODS_S = {"second": 1.0, "minute": MINUTE_S, "hour": 3600.0, "day": 86_400.0}
"""Periods with a name, in seconds."""
TOKENS: tuple[What, ...] = ("tokens", "input_tokens", "output_tokens")
ONE_SIDED = TOKENS[1:]
"""Limits on tokens of one direction. A label such as "Tokens" does not say which."""
PER_PERIOD: tuple[What, ...] = ("requests", *TOKENS)
"""What limits with a period count."""
NAMES = {"input_tokens": "input tokens", "output_tokens": "output tokens", "concurrency": "in flight"}
"""What a limit counts, in words, if its name is not a word."""


class Limit(msgspec.Struct, frozen=True):
    """One documented limit."""

    what: What
    limit: Annotated[int, msgspec.Meta(gt=0, le=MAX_NUMBER)]
    period_s: Annotated[float, msgspec.Meta(ge=MIN_POSITIVE, le=MAX_DURATION_S)] | None = None
    """None for concurrency."""

    @property
    def per_min(self) -> float:
        """The limit as a mean rate per minute; the limit itself for concurrency."""
        return self.limit if self.period_s is None else self.limit * MINUTE_S / self.period_s

    @property
    def amount(self) -> str:
        """The limit and its period: ``60 per minute``."""
        if self.period_s is None:
            return f"{self.limit:,}"
        names = {seconds: name for name, seconds in PERIODS_S.items()}
        return f"{self.limit:,} per {names.get(self.period_s, f'{self.period_s:g} s')}"

    @property
    def words(self) -> str:
        """The limit in words: ``60 requests per minute``."""
        number, per, period = self.amount.partition(" per ")
        return f"{number} {NAMES.get(self.what, self.what)}{per}{period}"


AnyLimit = TypeVar("AnyLimit", bound=Limit)


def limits_on(limits: Iterable[AnyLimit], *whats: What) -> list[AnyLimit]:
    """Return the limits on any of ``whats``, the shortest period first."""
    return sorted(
        (limit for limit in limits if limit.what in whats),
        key=lambda limit: (limit.period_s or 0.0, whats.index(limit.what), limit.limit),
    )


def per_minute(limits: Iterable[Limit], what: What) -> int | None:
    """Return the limit per minute, or that on concurrency; None if that is not documented."""
    found = [limit.limit for limit in limits_on(limits, what) if limit.period_s in {None, MINUTE_S}]
    return found[0] if found else None


def one_limit(limits: Iterable[Limit], what: What) -> Limit | None:
    """Return the limit per minute, or else that with the shortest period, where only one can be used."""
    found = limits_on(limits, what)
    return next((limit for limit in found if limit.period_s == MINUTE_S), found[0] if found else None)


def amounts(limits: Iterable[Limit]) -> str:
    """Return limits next to a label as one line: ``60 per minute, 5 per second``."""
    return ", ".join(limit.words if limit.what in ONE_SIDED else limit.amount for limit in limits)


def sum_limits(scopes: Sequence[Sequence[Limit]]) -> list[Limit]:
    """Return the limits of several keys, models, or targets together.

    One that is unknown for any of them is left out.
    """
    if len(scopes) == 1:
        return list(scopes[0])
    totals: dict[tuple[What, float | None], list[int]] = {}
    for limit in chain.from_iterable(scopes):
        totals.setdefault((limit.what, limit.period_s), []).append(limit.limit)
    return [
        Limit(what, sum(limits), period_s)
        for (what, period_s), limits in totals.items()
        if len(limits) == len(scopes)
    ]


def _seconds(value: object) -> float:
    seconds = PERIODS_S.get(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(  # noqa: TRY004 - pydantic reports a ValueError as a mistake of the file
            'must be "second", "minute", "hour", "day", or a number of seconds'
        )
    if not MIN_POSITIVE <= seconds <= MAX_DURATION_S:
        raise ValueError(f"must be more than 0 and at most {MAX_DURATION_S:,.0f} seconds")
    return float(seconds)


class LimitTable(Table):
    """One limit of the list."""

    what: What
    limit: PositiveInt
    per: Annotated[float, PlainValidator(_seconds)] | None = None
    """In seconds, or the name of a period."""

    @model_validator(mode="after")
    def _has_its_period(self) -> Self:
        if (self.per is None) != (self.what == "concurrency"):
            raise ValueError(
                "a limit on concurrency has no period: remove per"
                if self.per is not None
                else f'a limit on {self.what} needs a period, such as per = "minute"'
            )
        return self


class Limits(Table):
    """Short form of the usual limits."""

    requests_per_min: PositiveInt | None = None
    tokens_per_min: PositiveInt | None = None
    concurrency: PositiveInt | None = None


def _form(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "table"


LimitsKey = Annotated[
    Annotated[tuple[LimitTable, ...], Tag("list")] | Annotated[Limits, Tag("table")], Discriminator(_form)
]
"""The key ``limits`` of a target."""


def documented(given: tuple[LimitTable, ...] | Limits) -> list[Limit]:
    """Return the limits in either form."""
    if isinstance(given, Limits):
        return usual_limits(given.requests_per_min, given.tokens_per_min, given.concurrency)
    return [Limit(limit.what, limit.limit, limit.per) for limit in given]


def usual_limits(
    requests_per_min: int | None, tokens_per_min: int | None, concurrency: int | None
) -> list[Limit]:
    """Return the limits of the short form that are set."""
    found: list[Limit] = []
    if requests_per_min:
        found.append(Limit("requests", requests_per_min, MINUTE_S))
    if tokens_per_min:
        found.append(Limit("tokens", tokens_per_min, MINUTE_S))
    if concurrency:
        found.append(Limit("concurrency", concurrency))
    return found
