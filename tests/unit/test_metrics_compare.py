"""Comparison of runs: verdicts, intervals, and incomparable runs."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import pytest
from support_runs import S, attempt, audit_table, generator_seconds, manifest, realistic, table

from bltybench.metrics.analysis import analyze
from bltybench.metrics.bootstrap import Interval
from bltybench.metrics.compare import Difference, Tolerance, Verdict, compare, judge, obstacles
from bltybench.metrics.outline import Outline, outline
from bltybench.runs.attempt import Attempt, Outcome

LOAD_S = 180


def slowed(attempts: list[Attempt], factor: float) -> list[Attempt]:
    """Multiply all server times by ``factor``."""
    made: list[Attempt] = []
    for original in attempts:
        times: dict[str, Any] = {}
        for name in ("headers_ns", "first_token_ns", "first_output_ns", "last_token_ns", "end_ns"):
            at, sent = getattr(original, name), original.sent_ns
            if at is not None and sent is not None:
                times[name] = sent + int((at - sent) * factor)
        if original.gaps_us is not None:
            times["gaps_us"] = [int(gap * factor) for gap in original.gaps_us]
        made.append(msgspec.structs.replace(original, **times))
    return made


def run(
    name: str, seed: int = 1, *, factor: float = 1.0, attempts: list[Attempt] | None = None, **about: Any
) -> Outline:
    if attempts is None and not about:
        return usual(name, seed, factor)
    rows = realistic(LOAD_S, 100, limit=1000, seed=seed) if attempts is None else attempts
    fields = {"run_id": name, "ended_ns": LOAD_S * S, **about}
    return outline(
        analyze(table(*slowed(rows, factor)), audit_table(generator_seconds(LOAD_S)), manifest(**fields))
    )


@cache
def usual(name: str, seed: int, factor: float) -> Outline:
    """Return a realistic run, shared by tests because it is immutable."""
    return run(name, attempts=slowed(realistic(LOAD_S, 100, limit=1000, seed=seed), factor))


def width(difference: Difference) -> float:
    assert difference.low is not None
    assert difference.high is not None
    return difference.high - difference.low


def by_metric(differences: list[Difference]) -> dict[str, Difference]:
    return {difference.metric: difference for difference in differences}


def verdicts(found: list[Difference]) -> dict[str, Verdict]:
    return {difference.metric: difference.verdict for difference in found}


def test_slower_server_is_worse_and_faster_server_better() -> None:
    base, slow = run("base"), run("slow", 2, factor=1.5)
    found = by_metric(compare([base], [slow], Tolerance()))
    for name in ("ttft.p50", "tpot.p50", "itl.p50", "latency.p50", "attempt_latency.p95"):
        assert found[name].verdict == "worse", name
        low, high = found[name].low, found[name].high
        assert low is not None
        assert high is not None
        assert low < 0.5 < high, name
    back = {difference.metric: difference.verdict for difference in compare([slow], [base], Tolerance())}
    assert back["ttft.p50"] == back["latency.p50"] == "better"


def test_another_sample_of_the_same_server_is_never_worse() -> None:
    base = run("base", 1)
    wrong = [
        (seed, metric)
        for seed in range(2, 6)
        for metric, verdict in verdicts(compare([base], [run("again", seed)], Tolerance())).items()
        if verdict == "worse"
    ]
    assert wrong == []


def test_equal_records_are_the_same_with_a_wide_tolerance() -> None:
    found = compare([run("a")], [run("b")], Tolerance(relative=0.9, share=0.5))
    measured = {difference.metric: difference.verdict for difference in found if difference.low is not None}
    assert len(measured) > 12
    assert set(measured.values()) == {"same"}


def test_higher_error_rate_is_worse() -> None:
    plain = [attempt(call_id=f"c{i}", sent_ns=i * S, end_ns=i * S + S // 2) for i in range(LOAD_S)]
    failed = [
        msgspec.structs.replace(row, outcome=Outcome.SERVER_ERROR, status=500) if i % 4 == 0 else row
        for i, row in enumerate(plain)
    ]
    found = by_metric(compare([run("a", attempts=plain)], [run("b", attempts=failed)], Tolerance()))
    assert found["errors.share"].verdict == "worse"
    assert found["errors.share"].change == pytest.approx(0.25)
    assert found["calls.ok_share"].verdict == "worse"
    assert found["ok.per_min"].change == pytest.approx(-0.25)
    assert found["refused.share"].verdict == "same" or found["refused.share"].change == 0


def test_differences_between_repeats_widen_the_interval() -> None:
    steady = [run("a1", 1), run("a2", 2), run("a3", 3)]
    uneven = [run("b1", 1, factor=0.7), run("b2", 2, factor=1.0), run("b3", 3, factor=1.3)]
    same = by_metric(compare(steady, [run("c", 4)], Tolerance()))["tpot.p50"]
    spread = by_metric(compare(steady, uneven, Tolerance()))["tpot.p50"]
    assert width(spread) > 3 * width(same)
    assert spread.verdict == "cannot tell"


def test_undecided_metric_gives_the_reason() -> None:
    few = [attempt(call_id=f"c{i}", sent_ns=i * 10 * S) for i in range(10)]
    found = by_metric(compare([run("a", attempts=few)], [run("b", attempts=few)], Tolerance()))
    assert found["latency.p50"].why == "n too small: 10 of the 20 needed"
    assert found["tokens.per_min"].why == "the base is 0, so there is no relative change"
    short = run("s", attempts=few, ended_ns=30 * S)
    why = {difference.metric: difference.why for difference in compare([short], [short], Tolerance())}
    assert why["accepted.per_min"] == "the run is too short: its load must last 60 s after the warm-up"


def test_rates_exclude_attempts_and_time_of_the_warm_up() -> None:
    steady = [
        attempt(call_id=f"c{i}", sent_ns=(20 + i) * S, end_ns=(20 + i) * S + S // 2) for i in range(100)
    ]
    rush = [attempt(call_id=f"w{i}", sent_ns=i * S // 20, end_ns=30 * S) for i in range(300)]
    resolved = manifest().resolved
    without = run("a", attempts=steady, ended_ns=120 * S)
    base = run("b", attempts=[*rush, *steady], ended_ns=120 * S, resolved=resolved | {"warm_up_s": 20.0})
    assert base.span_s == 10.0
    rates = by_metric(compare([base], [base], Tolerance()))
    assert rates["accepted.per_min"].base == 60.0
    assert rates["ok.per_min"].base == 60.0
    # Without a warm-up, the 20 s without traffic count.
    assert {difference.metric: difference.base for difference in compare([without], [without], Tolerance())}[
        "accepted.per_min"
    ] == 50.0


def test_short_spans_are_merged() -> None:
    resolved = manifest().resolved | {
        "duration_s": 90.0,
        "arrivals": {"kind": "stairs", "rates_per_min": [60, 60, 60]},
    }
    steady = [attempt(call_id=f"c{i}", sent_ns=i * S, end_ns=i * S + S // 2) for i in range(90)]
    found = run("a", attempts=steady, ended_ns=90 * S, resolved=resolved)
    assert found.span_s == 10.0
    assert found.counts["accepted"].tolist() == [10] * 9


def test_same_runs_give_the_same_differences() -> None:
    first, second = (compare([run("a")], [run("b", 2)], Tolerance()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("bounds", "lower", "higher"),
    [
        ((0.06, 0.2), "worse", "better"),
        ((-0.2, -0.06), "better", "worse"),
        ((-0.04, 0.05), "same", "same"),
        ((0.04, 0.2), "cannot tell", "cannot tell"),
        ((-0.2, 0.2), "cannot tell", "cannot tell"),
    ],
)
def test_verdict_depends_on_the_whole_interval(
    bounds: tuple[float, float], lower: Verdict, higher: Verdict
) -> None:
    assert judge(Interval(*bounds), 0.05, lower_is_better=True) == lower
    assert judge(Interval(*bounds), 0.05, lower_is_better=False) == higher


def test_incomparable_runs_give_the_reason() -> None:
    base = run("base")
    resolved = manifest().resolved
    other_rate = run("rate", resolved=resolved | {"arrivals": {"kind": "poisson", "rate_per_min": 90.0}})
    assert obstacles([base], [other_rate]) == [
        "rate had another load than base: arrivals.rate_per_min 90.0 instead of 110.0"
    ]
    killed = run("killed", ended_ns=None, ended=None)
    assert obstacles([base], [killed])[0].startswith("killed is INVALID: the run was killed")
    assert obstacles([base], [killed], allow_invalid=True) == []
    assert obstacles([base], [base]) == ["base is named twice"]
    elsewhere = run("other", resolved=resolved | {"model": "deepseek-reasoner", "seed": 4, "checks": {}})
    assert obstacles([base], [elsewhere]) == []
    assert obstacles([base, elsewhere], [run("c")]) == [
        "repeats of one side differ in their model: deepseek-chat, deepseek-reasoner"
    ]
    sampled = run("sampled", target=msgspec.structs.replace(manifest().target, body={"top_p": 0.5}))
    assert obstacles([base], [sampled]) == []
    assert obstacles([base, sampled], [run("c")]) == [
        'repeats of one side differ in their target\'s body: {"top_p": 0.5}, {}'
    ]
