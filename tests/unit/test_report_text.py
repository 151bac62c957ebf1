"""Formatting of numbers and of text from outside."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.report import text
from bltybench.report.summary import Summary


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.471, "0.47 ms"),
        (18.3, "18.3 ms"),
        (182.6, "183 ms"),
        (1500, "1,500 ms"),
        (12_400, "12.4 s"),
    ],
)
def test_milliseconds_have_three_significant_digits(value: float | None, shown: str) -> None:
    assert text.milliseconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0%"),
        (1, "100%"),
        (0.5, "50%"),
        (0.3258, "32.6%"),
        (0.0001, "<0.1%"),
        (0.9999, ">99.9%"),
    ],
)
def test_percent_rounds_only_0_to_0_and_1_to_100(value: float | None, shown: str) -> None:
    assert text.percent(value) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.0, "bool", "true"),
        (0.3258, "share", "32.58%"),
        (106.0, "per_min", "106"),
        (812.345, "ms", "812.3 ms"),
        (None, "ms", "–"),
    ],
)
def test_values_of_checks_have_units(value: float | None, unit: str, shown: str) -> None:
    assert text.with_unit(value, unit) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (90, "90 s"), (150, "2 min 30 s"), (120, "2 min"), (7500, "2 h 5 min")]
)
def test_duration_has_two_units_at_most(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_bounded_text_is_one_short_printable_line(value: str, limit: int) -> None:
    shown = text.bounded(value, limit)
    assert len(shown) <= limit
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", shown)


def test_bounded_removes_terminal_codes_only() -> None:
    assert text.bounded("\x1b[31mred\x1b[0m <b>bold</b>\n日本") == "red <b>bold</b> 日本"


def test_every_summary_key_is_documented() -> None:
    documented = set(
        re.findall(
            r"`(\w+)`", (Path(__file__).parents[2] / "docs" / "summary.md").read_text(encoding="utf-8")
        )
    )
    assert {field.name for field in msgspec.structs.fields(Summary)} <= documented


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(170.2, 201.0, "170 – 201 ms"), (950.0, 12_000.0, "950 ms – 12.0 s"), (None, None, "–")],
)
def test_range_has_its_unit_once(low: float | None, high: float | None, shown: str) -> None:
    assert text.range_ms(low, high) == shown
