"""Labels of the sides of a comparison, and its sentences."""

from __future__ import annotations

from typing import Any

import pytest
from support_runs import S, attempt, audit_table, generator_seconds, manifest, table

from bltybench.metrics.analysis import analyze
from bltybench.metrics.compare import Tolerance
from bltybench.metrics.outline import Outline, outline
from bltybench.report.comparison.labels import name_sides
from bltybench.report.comparison.model import compare_sides


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
