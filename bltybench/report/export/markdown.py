"""The summary as Markdown, for a pull request or the summary of a CI job."""

from __future__ import annotations

import re

from bltybench.report import text
from bltybench.report.summary import Summary

MAX_ERRORS = 5

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#!|~&@:$]|(?<=www)\.")


def markdown(summary: Summary) -> str:
    """Return the verdicts, the checks, the main numbers and the most frequent errors."""
    parts = [
        f"### {plain(summary.scenario)} on {plain(summary.target)}: {_verdict(summary)}",
        f"{plain(summary.model or 'model not said')}, {text.duration(summary.duration_s)}, "
        f"{text.count(summary.attempts, 'attempt')} in {text.count(summary.calls, 'call')}. "
        f"Run `{summary.run_id}`.",
        "" if summary.search is None else plain(summary.search.sentence(), 400),
        "\n".join(f"- **INVALID**: {plain(reason)}" for reason in summary.invalid_reasons),
        _table(
            ["check", "must be", "was", ""],
            [
                [
                    f"`{check.metric}`",
                    plain(check.target),
                    text.with_unit(check.actual, check.unit) + _note(check.note),
                    "✅" if check.passed else "❌",
                ]
                for check in summary.checks
            ],
        ),
        _table(["", "", "documented limit"], _numbers(summary)),
        _table(
            ["error", "count", "first at", "sample"],
            [
                [
                    plain(" ".join(str(row[key]) for key in ("outcome", "status", "error_code") if row[key])),
                    f"{row['count']:,}",
                    text.clock(row["first_s"]),
                    plain(row["sample"] or "", 120),
                ]
                for row in summary.errors[:MAX_ERRORS]
            ],
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(value: str, limit: int = 200) -> str:
    """Return text that no Markdown reader takes for markup, a link or a mention, on one line, bounded."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text.bounded(value, limit))


def _note(note: str) -> str:
    return f" ({plain(note)})" if note else ""


def _verdict(summary: Summary) -> str:
    words = "VALID" if summary.valid else "INVALID"
    if not summary.checks:
        return f"{words}, no checks"
    held = sum(check.passed for check in summary.checks)
    return f"{words}, {'PASS' if summary.passed else 'FAIL'} ({held} of {len(summary.checks)} checks)"


def _numbers(summary: Summary) -> list[list[str]]:
    ttft, latency = summary.timings_ms["ttft"], summary.timings_ms["latency"]

    def limit(name: str) -> str:
        value = summary.limits[name]
        return text.NONE if value is None else f"{value:,}"

    def percentiles(row: dict[str, float | None]) -> str:
        return f"{text.milliseconds(row['p50'])}, {text.milliseconds(row['p95'])} (n {row['n']:,.0f})"

    rates = summary.rates
    return [
        ["accepted, best 60 s", text.compact(rates["accepted"].best_per_min), limit("requests_per_min")],
        ["tokens, best 60 s", text.compact(rates["total_tokens"].best_per_min), limit("tokens_per_min")],
        ["in flight, peak", f"{summary.in_flight_max:,}", limit("concurrency")],
        ["refused, of attempts", text.percent(summary.refused_share), ""],
        ["errors, of attempts", text.percent(summary.errors_share), ""],
        ["TTFT p50, p95", percentiles(ttft), ""],
        ["call latency p50, p95", percentiles(latency), ""],
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table, or nothing where it has no rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
