"""Labels with units, and the text of cells, for the tables of the notebooks."""

import math
from collections.abc import Container, Mapping
from typing import Any

import pandas as pd

from bltybench.metrics.latency import AT_MOST, PERCENTILES
from bltybench.report import text
from bltybench.report.comparison.model import NAMES

LABELS = {
    "name": "Metric",
    "by": "By",
    "n": "Values",
    "per_min": "In the best 60 s",
    "until_s": "Best 60 s end at, m:ss",
    "count": "In the whole run",
    "minute": "Minute, UTC",
    "retry_after": "Retry-After",
    "share": "Fraction",
    "quota": "Header",
    "source": "Counted by",
    "at_s": "Sent at, m:ss",
    "first_s": "First at, m:ss",
    "last_s": "Last at, m:ss",
    "start_s": "From, m:ss",
    "end_s": "To, m:ss",
    "waited_real_s": "Waited, s",
    "obeyed": "Waited for Retry-After",
    "seen": "Responses",
    "waited_enough": "Waited for it",
    "then_ok": "Then succeeded",
    "then_refused": "Then refused",
    "then_other": "Then another outcome",
    "within_share": "Within the bound",
    "in_flight": "In flight, at least",
    "time_share": "Fraction of the time",
    "refused_share": "Refusal rate",
    "ok_share": "Success rate of calls",
    "accepted_per_min": "Accepted requests, best 60 s",
    "tokens_per_min": "Tokens, best 60 s",
    "interval": "95% interval",
    "why": "Reason",
}
"""Labels that don't follow from a column's name."""
WORDS = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT"}
UNITS = {"_per_min": "per min", "_ms": "ms", "_us": "µs", "_ns": "ns", "_s": "s"}
"""Units by the end of a column's name."""
LIMITED = frozenset({*PERCENTILES, "max"})
"""Statistics that are upper bounds if AT_MOST is set."""
STATISTICS = frozenset({*PERCENTILES, "min", "median", "max", "mean", "std", "25%", "50%", "75%"})
"""Columns whose unit is the table's."""
CLOCKS = frozenset({"until_s", "at_s", "start_s", "end_s", "first_s", "last_s"})
"""Times of the run, shown as m:ss."""
KEYS = frozenset({"name", "metric", "rate", "source", "quota"})
"""Columns with names that VALUES has labels for."""
VALUES = NAMES | {
    "first_output": "First output",
    "schedule_delay": "Schedule delay",
    "offered": "Offered requests",
    "accepted": "Accepted requests",
    "refused": "Refused requests",
    "other": "Neither accepted nor refused",
    "prompt_tokens": "Prompt tokens",
    "completion_tokens": "Completion tokens",
    "total_tokens": "All tokens",
    "usage": "the server (usage)",
    "tokenizer": "the local tokenizer (estimate)",
    "events": "the number of events (estimate)",
    "limit_requests": "Limit of requests",
    "remaining_requests": "Remaining requests",
    "reset_requests_s": "Reset of requests, s",
    "limit_tokens": "Limit of tokens",
    "remaining_tokens": "Remaining tokens",
    "reset_tokens_s": "Reset of tokens, s",
    "retry_after_s": "Retry-After, s",
}


def label(column: str, unit: str = "") -> str:
    """Return a column's heading with its unit. ``unit`` is that of statistics."""
    if column in LABELS:
        return LABELS[column]
    name, end = next(
        ((column[: -len(end)], f", {word}") for end, word in UNITS.items() if column.endswith(end)),
        (column, ""),
    )
    if column in STATISTICS and unit:
        end = f", {unit}"
    if name.endswith("_share"):
        name = name.removesuffix("_share") + " fraction"
    words = [WORDS.get(word, word) for word in name.split("_")]
    first = words[0] if words[0] in PERCENTILES else text.sentence(words[0])
    return " ".join([first, *words[1:]]) + end


def is_part_of_a_cell(column: str, columns: Container[object]) -> bool:
    """Return whether ``cell`` shows a column with another one: an end of its interval, or AT_MOST."""
    name = column.removesuffix("_low").removesuffix("_high")
    return column == AT_MOST or (name != column and name in columns)


def cell(column: str, row: Mapping[str, Any]) -> str:
    """Return the text of a cell: a number, with its 95% interval if the row has one, or bounded text."""
    shown = _value(column, row[column])
    if column in LIMITED and row.get(AT_MOST) and shown != text.NONE:
        shown = f"at most {shown}"
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return shown
    return f"{shown} ({number(float(low))}–{number(float(high))})"


def number(value: float) -> str:
    """Return a number with at most three significant decimals: ``1,234``, ``12.3``, ``0.123``."""
    if not math.isfinite(value):
        return text.NONE
    if value == round(value) or abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _value(column: str, value: Any) -> str:  # noqa: PLR0911 - one return per kind of value
    if value is None or pd.isna(value):
        return text.NONE
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if column in CLOCKS:
        return text.clock(float(value))
    if column == "share" or column.endswith("_share"):
        return text.percent(float(value))
    if isinstance(value, int | float):
        return number(float(value))
    if column in KEYS:
        return VALUES.get(str(value), text.bounded(value))
    return text.bounded(value)
