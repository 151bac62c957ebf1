from __future__ import annotations

import pytest

from bltybench.errors import UserError
from bltybench.scenario.checks import METRICS, parse_check


@pytest.mark.parametrize(
    ("name", "value", "op", "threshold", "text"),
    [
        ("ttft.p95", "< 800 ms", "<", 800.0, "< 800 ms"),
        ("ttft.p95", "<0.8s", "<", 800.0, "< 800 ms"),
        ("errors.share", "<= 5%", "<=", 0.05, "<= 5%"),
        ("errors.share", "<= 0.05", "<=", 0.05, "<= 5%"),
        ("accepted.rpm", ">= 55", ">=", 55.0, ">= 55"),
        ("errors.count", "== 0", "==", 0.0, "== 0"),
        ("refused.count", "!= .5", "!=", 0.5, "!= 0.5"),
        ("audit.valid", True, "==", 1.0, "is true"),
        ("audit.valid", False, "==", 0.0, "is false"),
    ],
)
def test_check_is_parsed(name: str, value: object, op: str, threshold: float, text: str) -> None:
    check = parse_check(name, value)
    assert (check.metric, check.op, check.threshold, check.unit) == (name, op, threshold, METRICS[name])
    assert str(check) == text


@pytest.mark.parametrize(
    ("value", "below", "at", "above"),
    [
        ("< 10", True, False, False),
        ("<= 10", True, True, False),
        ("> 10", False, False, True),
        (">= 10", False, True, True),
        ("== 10", False, True, False),
        ("!= 10", True, False, True),
    ],
)
def test_check_compares_with_its_threshold(value: str, below: bool, at: bool, above: bool) -> None:
    check = parse_check("in_flight.max", value)
    assert [check.holds(number) for number in (9.9, 10, 10.1)] == [below, at, above]


def test_boolean_check_requires_the_exact_value() -> None:
    assert parse_check("audit.valid", True).holds(True)
    assert not parse_check("audit.valid", True).holds(False)
    assert parse_check("audit.valid", False).holds(False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ttft.p95", 800, 'ttft.p95: must be a comparison, such as "< 800 ms"'),
        ("ttft.p95", "< 800", 'ttft.p95: has the wrong unit: must be like "< 800 ms"'),
        ("ttft.p95", "< -1 ms", 'ttft.p95: must be a comparison, such as "< 800 ms"'),
        ("ttft.p95", "< ٨ ms", 'ttft.p95: must be a comparison, such as "< 800 ms"'),
        ("errors.share", "< 5 ms", 'errors.share: has the wrong unit: must be like "<= 5%"'),
        ("errors.share", "<= 5", 'errors.share: a share cannot exceed 100%: must be like "<= 5%"'),
        ("accepted.rpm", True, 'accepted.rpm: must be a comparison, such as ">= 55"'),
        ("accepted.rpm", "55", 'accepted.rpm: must be a comparison, such as ">= 55"'),
        ("audit.valid", "yes", "audit.valid: must be true or false"),
        ("tftt.p95", "< 1 s", "tftt.p95: no such metric\n  → did you mean 'ttft.p95'?"),
    ],
)
def test_invalid_check_gives_the_expected_form(name: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_check(name, value)
    assert str(caught.value) == message


def test_unknown_metric_lists_all_metrics() -> None:
    with pytest.raises(UserError) as caught:
        parse_check("zzz", True)
    remedy = str(caught.value.remedy)
    assert remedy.startswith("known: attempts.count, accepted.rpm, ")
    assert "ttft.p50|p90|p95|p99|max" in remedy
    assert all(name.split(".")[0] in remedy for name in METRICS)
