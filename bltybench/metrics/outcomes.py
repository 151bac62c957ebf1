"""Outcomes of attempts: counts by outcome and status, and each kind of error with a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import NS_PER_S, OUTCOMES, REFUSED, floats, has_fate, ints

ERRORS = tuple(name for name in OUTCOMES if name not in {"ok", "rate_limited", "cancelled"})
"""Outcomes that count as errors. Refusals have their own table, and the client itself cancels attempts."""

ANSWER_CHECKS = ("tool_calls", "json_valid", "schema_valid")
"""Columns of the record about the use of tools and of the response format."""

KIND = ["outcome", "status", "error_type", "error_code"]
"""Columns that distinguish kinds of errors."""

MAX_ERROR_KINDS = 50
"""Maximum rows of errors: a server can invent any number of error types."""


def by_outcome(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per outcome and status that occurred: ``outcome``, ``status``, ``count``, ``share``."""
    if attempts.empty:
        return pd.DataFrame({"outcome": [], "status": [], "count": [], "share": []})
    grouped = attempts.groupby(["outcome", "status"], dropna=False, observed=True)
    counted = grouped.size().rename("count").reset_index().astype({"outcome": "str"})
    counted["share"] = counted["count"] / len(attempts)
    order = counted["outcome"].map({name: index for index, name in enumerate(OUTCOMES)})
    return counted.iloc[np.lexsort((-ints(counted, "count"), order.to_numpy()))].reset_index(drop=True)


def count_of(attempts: pd.DataFrame, *outcomes: str) -> int:
    """Return the number of attempts with one of the outcomes."""
    return int(attempts["outcome"].isin(outcomes).sum())


def errors(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per kind of error (outcome, status, error_type, error_code), most frequent first.

    Further columns: ``count``, ``first_s``, ``last_s`` (seconds from the run's start), ``sample`` (the first
    message, as redacted and shortened by the recorder).
    """
    failed = attempts["outcome"].isin(ERRORS).to_numpy(dtype=np.bool_) & ~has_fate(attempts, REFUSED)
    return _kinds(attempts.loc[failed, [*KIND, "at_ns", "error_message"]], KIND)


def refusal_messages(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return the same for refusals, with a row per message; messages that differ in numbers only are one."""
    refused = attempts.loc[has_fate(attempts, REFUSED), [*KIND, "at_ns", "error_message"]]
    codes, messages = pd.factorize(refused["error_message"])
    words = pd.Series([*messages, None], dtype="object").str.replace(r"\d+(?:\.\d+)?", "#", regex=True)
    refused["words"] = words.to_numpy()[codes]
    return _kinds(refused, [*KIND, "words"]).drop(columns="words")


def _kinds(failed: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    if failed.empty:
        return pd.DataFrame({name: [] for name in [*keys, "count", "first_s", "last_s", "sample"]})
    ordered = failed.sort_values("at_ns", kind="stable")
    for name in keys:
        if name != "status":
            ordered[name] = _in_alphabetical_order(ordered[name])
    frame = (
        ordered.groupby(keys, dropna=False, observed=True, sort=True)
        .agg(
            count=("at_ns", "size"),
            first_s=("at_ns", "first"),
            last_s=("at_ns", "last"),
            sample=("error_message", "first"),
        )
        .reset_index()
        .astype({"outcome": "str", "error_type": "str", "error_code": "str"})
    )
    for name in ("first_s", "last_s"):
        frame[name] = floats(frame, name) / NS_PER_S
    most_frequent = frame.sort_values("count", ascending=False, kind="stable", ignore_index=True)
    return most_frequent.head(MAX_ERROR_KINDS)


def _in_alphabetical_order(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Return texts as categories, which are grouped much faster."""
    categories = texts.astype("category").cat
    return categories.reorder_categories(sorted(categories.categories))


def finish_reasons(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finish reason and outcome of the attempts that the server reported one for.

    Columns: ``finish_reason``, ``outcome``, ``count``, ``share``. Most frequent first.
    """
    keys = ["finish_reason", "outcome"]
    known = attempts.loc[attempts["finish_reason"].notna(), keys]
    return _counted(known.assign(**{name: _in_alphabetical_order(known[name]) for name in keys}), keys)


def notes(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per deviation that damaged nothing: ``note``, ``count``, ``share`` of all attempts."""
    named = attempts["notes"].dropna().astype("str").str.split(",").explode()
    return _counted(pd.DataFrame({"note": named}), ["note"], len(attempts))


def answer_checks(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each of ANSWER_CHECKS that occurred, followed by one per call if there are several.

    Columns: ``check``, ``name`` (of the call, null for all), ``n`` (answers that could be checked),
    ``count`` (that pass; for tool_calls: that call a tool), ``share``.
    """
    rows: list[tuple[str, str | None, int, int]] = []
    for check in ANSWER_CHECKS:
        known = attempts.loc[attempts[check].notna(), ["name", check]]
        if known.empty:
            continue
        passed = known[check].astype("Int64") > 0
        rows.append((check, None, len(known), int(passed.sum())))
        by_name = passed.groupby(known["name"].astype("str"), sort=True).agg(["size", "sum"])
        if len(by_name) > 1:
            rows += [(check, str(name), int(n), int(count)) for name, n, count in by_name.itertuples()]
    frame = pd.DataFrame(rows, columns=["check", "name", "n", "count"])
    frame["share"] = frame["count"] / frame["n"]
    return frame


def _counted(rows: pd.DataFrame, keys: list[str], total: int | None = None) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame({name: [] for name in [*keys, "count", "share"]})
    counted = rows.groupby(keys, observed=True, sort=True).size().rename("count").reset_index()
    counted = counted.astype(dict.fromkeys(keys, "str"))
    counted["share"] = counted["count"] / (total or len(rows))
    most_frequent = counted.sort_values("count", ascending=False, kind="stable", ignore_index=True)
    return most_frequent.head(MAX_ERROR_KINDS)
