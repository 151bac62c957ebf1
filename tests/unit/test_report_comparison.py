"""Labels of the sides of a comparison, and its sentences."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import msgspec
import pytest
from support_runs import S, attempt, audit_table, generator_seconds, manifest, table

from bltybench.metrics.analysis import analyze
from bltybench.metrics.compare import Difference, Tolerance
from bltybench.metrics.outline import Outline, outline
from bltybench.report import text
from bltybench.report.comparison.changes import draw_changes
from bltybench.report.comparison.labels import name_sides
from bltybench.report.comparison.model import Comparison, compare_sides


def made(keys: dict[str, Any] | None = None, **about: Any) -> Outline:
    rows = [attempt(call_id=f"c{i}", sent_ns=i * S // 4, end_ns=i * S // 4 + S // 2) for i in range(480)]
    closed = manifest().resolved | {"arrivals": {"kind": "closed"}}
    fields = {"run_id": "first", "ended_ns": 120 * S, "resolved": closed | (keys or {}), **about}
    return outline(analyze(table(*rows), audit_table(generator_seconds(120)), manifest(**fields)))


BACKOFF = {"retry": {"policy": "backoff", "max_attempts": 4}}
LATER = "2026-11-22T15:20:30Z"


@pytest.mark.parametrize(
    ("other", "given", "title"),
    [
        ({"created": LATER}, None, "made: 2026-11-22 15:20:30 against 2026-11-22 14:15:10"),
        ({}, None, "made: 2026-11-22 14:15:10, second against 2026-11-22 14:15:10, first"),
        ({}, ["before", "after"], "made: after against before"),
        (
            {"created": LATER},
            ["same", "same"],
            "made: same, 2026-11-22 15:20:30 against same, 2026-11-22 14:15:10",
        ),
        (
            {"keys": {"model": "reasoner", "seed": 2}},
            None,
            "made: reasoner, seed 2 against deepseek-chat, seed 1",
        ),
        ({"label": "nightly"}, None, "made: nightly against 2026-11-22 14:15:10"),
        ({"keys": BACKOFF}, None, "made: retry backoff against retry retry_after"),
        ({"scenario": "other", "keys": BACKOFF}, None, "other against made"),
        ({"scenario": "other"}, ["a", "b"], "other, b against made, a"),
    ],
)
def test_title_names_scenario_and_labels_or_what_differs(
    other: dict[str, Any], given: list[str] | None, title: str
) -> None:
    base, candidate = name_sides([[made()], [made(**other, run_id="second")]], given)
    assert compare_sides(base, [candidate], Tolerance()).title() == title


def test_label_counts_the_repeats_of_a_side() -> None:
    sides = [[made()], [made(run_id="a", created=LATER), made(run_id="b")]]
    assert [side.label for side in name_sides(sides, ["old", "new"])] == ["old", "new (2 runs)"]


def test_answer_without_a_decision_gives_the_main_reason() -> None:
    base, candidate = name_sides(
        [[made(ended_ns=30 * S)], [made(run_id="b", ended_ns=30 * S)]], ["old", "new"]
    )
    answer = compare_sides(base, [candidate], Tolerance()).candidates[0].answer("old")
    assert answer == (
        "Compared with old, new is neither better, worse, nor the same: the base lasted 30 s after the "
        "warm-up, too short for an interval; run for at least 60 s after the warm-up."
    )


@cache
def usual() -> Comparison:
    """Return a comparison of two runs, shared by tests because it is immutable."""
    base, candidate = name_sides([[made()], [made(run_id="b")]], ["old", "new"])
    return compare_sides(base, [candidate], Tolerance())


def compared(*changes: Difference) -> Comparison:
    """Return a comparison with these changes."""
    comparison = usual()
    one = msgspec.structs.replace(comparison.candidates[0], changes=list(changes))
    return msgspec.structs.replace(comparison, candidates=[one])


def test_pass_with_most_metrics_not_decided_is_shown_as_open() -> None:
    same = Difference("ttft.p50", "ms", True, 100.0, 100.0, 0.0, -0.01, 0.01, "same")
    undecided = msgspec.structs.replace(same, verdict="not decided")
    assert not compared(same, undecided).candidates[0].mostly_open
    assert compared(same, undecided, undecided).candidates[0].mostly_open


def written(svg: str) -> list[str]:
    """Return the texts of a figure."""
    return re.findall(r"<text[^>]*>([^<]+)", svg)


@pytest.mark.parametrize(
    ("change", "low", "high", "marks"),
    [
        (0.3, 0.1, 1.33, ["to +133%"]),
        (-0.3, -1.2, 0.1, ["from \N{MINUS SIGN}120%"]),
        (7.0, 6.0, 8.0, ["+600% to +800%"]),
        (0.5, -1.5, 2.5, ["from \N{MINUS SIGN}150%", "to +250%"]),
        (6.85, None, None, ["+685%"]),
        (0.3, 0.1, 0.5, []),
    ],
)
def test_figure_marks_what_continues_beyond_its_axis(
    change: float, low: float | None, high: float | None, marks: list[str]
) -> None:
    row = Difference("ttft.p50", "ms", True, 100.0, 100.0 * (1 + change), change, low, high, "worse")
    (drawn,) = draw_changes(compared(row), 0)
    for svg in (drawn.wide, drawn.narrow):
        found = [says for says in written(svg) if re.match(r"from|to |[+\N{MINUS SIGN}][\d,]{3,}%", says)]
        assert [says for says in found if says not in {"+100%", "\N{MINUS SIGN}100%"}] == marks
        assert f"100 ms → {text.milliseconds(row.candidate)}" in written(svg)
    assert ("Arrowheads" in drawn.says) == bool(marks)


def test_fractions_have_their_own_axis_in_points() -> None:
    times = Difference("ttft.p50", "ms", True, 100.0, 190.0, 0.9, 0.8, 0.95, "worse")
    refused = Difference("refused.share", "share", True, 0.0, 0.277, 0.277, 0.004, 0.55, "not decided")
    changes, fractions = draw_changes(compared(times, refused), 0)
    assert changes.data["changes-0"]["metric"].tolist() == ["ttft.p50"]
    assert fractions.data["fractions-0"]["metric"].tolist() == ["refused.share"]
    assert {"0 pt", "0% → 27.7%", "tolerance ±1 pt"} <= {*written(fractions.wide)}
    assert not [says for says in written(changes.wide) if says.endswith("pt")]


def test_figure_of_runs_that_are_unlike_is_left_out() -> None:
    base, candidate = name_sides([[made()], [made({"users": 3}, run_id="b")]])
    comparison = compare_sides(base, [candidate], Tolerance())
    assert comparison.candidates[0].measured
    assert draw_changes(comparison, 0) == []
