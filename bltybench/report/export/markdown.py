"""The summary as Markdown, for a pull request or the summary of a CI job."""

import re

from bltybench.metrics import grading
from bltybench.metrics.documented import distinct
from bltybench.metrics.latency import AT_MOST
from bltybench.metrics.verdict import RunVerdict
from bltybench.report import text
from bltybench.report.standings import STANDING_COLUMNS, standing_rows
from bltybench.report.summary import Summary
from bltybench.scenario.api.documented_limits import TOKENS, What, amounts, limits_on

MAX_ERRORS = 5
"""Maximum rows in the table of errors."""

MARKS = {RunVerdict.PASS: "✅", RunVerdict.FAIL: "❌", RunVerdict.NOT_DECIDED: "❔", RunVerdict.INVALID: "❔"}

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#!|~&@:$]|(?<=www)\.")


def markdown(summary: Summary) -> str:
    """Return the verdicts, the checks, the main numbers, and the most frequent errors."""
    checks = [
        [
            f"`{check.metric}`",
            plain(check.bound),
            text.with_unit(check.actual, check.unit) + (f" ({plain(check.note)})" if check.note else ""),
            MARKS[check.verdict],
        ]
        for check in summary.checks
    ]
    errors = [
        [
            plain(" ".join(str(row[key]) for key in ("outcome", "status", "error_code") if row[key])),
            f"{row['count']:,}",
            text.clock(row["first_s"]),
            plain(row["sample"] or "", 120),
        ]
        for row in summary.errors[:MAX_ERRORS]
    ]
    parts = [
        f"### {plain(summary.scenario)} on {plain(summary.target)}: {_verdict(summary)}",
        f"{plain(summary.model)}, {text.duration(summary.duration_s)}, "
        f"{text.count(summary.attempts, 'attempt')} in {text.count(summary.calls, 'call')}. "
        f"Run `{summary.run_id}`.",
        "" if summary.search is None else plain(summary.search.sentence(), 400),
        "" if summary.tournament is None else plain(summary.tournament.recommendation, 600),
        _table(STANDING_COLUMNS, standing_rows(summary.tournament)),
        "" if summary.failure is None else f"- **NOTHING SUCCEEDED**: {plain(summary.failure, 400)}",
        "\n".join(f"- **INVALID**: {plain(reason)}" for reason in summary.invalid_reasons),
        "" if summary.valid else grading.sentence(grading.affected(summary.audit)),
        _table(["check", "must be", "was", ""], checks),
        _table(["", "", "documented limit"], _numbers(summary)),
        _table(["error", "count", "first at", "sample"], errors),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(value: str, limit: int = 200) -> str:
    """Return bounded text on one line, without markup, links, or mentions."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text.bounded(value, limit))


def _verdict(summary: Summary) -> str:
    sound = "VALID" if summary.imported is None else "IMPORTED"
    validity = sound if summary.valid else grading.stamp(grading.affected(summary.audit))
    if summary.result is None:
        return f"{validity}, no checks"
    passed = sum(check.passed for check in summary.checks)
    checks = f" ({passed} of {len(summary.checks)} checks)" if summary.checks else ""
    return f"{validity}, {summary.result.upper()}{checks}"


def _numbers(summary: Summary) -> list[list[str]]:
    def limit(*whats: What) -> str:
        limits = limits_on(distinct(summary.documented_limits), *whats)
        return ", ".join(amounts([limit]) + limit.each for limit in limits) or text.number(None)

    def percentiles(name: str) -> str:
        row = summary.timings_ms[name]
        at_most = "at most " if row.get(AT_MOST) and row["p50"] is not None else ""
        p50, p95 = text.milliseconds(row["p50"]), text.milliseconds(row["p95"])
        return f"{at_most}{p50}, {p95} (n {row['n']:,.0f})"

    rates = summary.rates
    return [
        ["accepted, best 60 s", text.compact(rates["accepted"].best_per_min), limit("requests")],
        [
            "tokens, best 60 s",
            text.compact(rates["total_tokens"].best_per_min if "total_tokens" in rates else None),
            limit(*TOKENS),
        ],
        ["in flight, peak", text.number(summary.in_flight_max), limit("concurrency")],
        ["refusal rate", text.percent(summary.refused_share), ""],
        ["error rate", text.percent(summary.errors_share), ""],
        ["TTFT p50, p95", percentiles("ttft"), ""],
        ["call latency p50, p95", percentiles("latency"), ""],
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table, or nothing if it has no rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) if rows else ""
