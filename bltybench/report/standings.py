"""The standings of a tournament as rows of text, for the terminal and Markdown."""

from bltybench.metrics.policy_choice import IntervalEstimate, TournamentResult

STANDING_COLUMNS = [
    "policy", "rank", "goodput/min", "succeeded", "refusals per success", "p50 s", "p95 s", "gave up",
    "below optimum %",
]  # fmt: skip


def standing_rows(result: TournamentResult | None) -> list[list[str]]:
    """Return a row for each policy, the best first; none without a tournament."""
    return [
        [
            one.policy,
            str(one.rank),
            _range(one.goodput_per_min, 1),
            f"{one.ok:,} of {one.calls:,}",
            _range(one.refusals_per_success, 2),
            _range(one.success_p50_s, 2),
            _range(one.success_p95_s, 2),
            f"{one.gave_up:,}",
            "-" if one.below_optimum_percent is None else f"{one.below_optimum_percent:,.1f}",
        ]
        for one in (result.standings if result is not None else ())
    ]


def _range(estimate: IntervalEstimate | None, digits: int) -> str:
    """Return a value with its interval; a dash if there are too few calls."""
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:,.{digits}f}"
    return f"{estimate.value:,.{digits}f} ({estimate.low:,.{digits}f} to {estimate.high:,.{digits}f})"
