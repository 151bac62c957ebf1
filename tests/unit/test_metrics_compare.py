"""Comparison of runs: verdicts, intervals, and incomparable runs."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support_runs import S, attempt, audit_table, generator_seconds, manifest, realistic, table

from bltybench.errors import UserError
from bltybench.metrics.analysis import analyze
from bltybench.metrics.bootstrap import Interval
from bltybench.metrics.compare import Difference, Judgment, Tolerance, compare, judge
from bltybench.metrics.likeness import check_repeats, read_vary, unlike
from bltybench.metrics.outline import Outline, outline
from bltybench.metrics.undecided import data_factor
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


def verdicts(found: list[Difference]) -> dict[str, Judgment]:
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


def test_fewer_answers_in_valid_json_are_worse() -> None:
    plain = [
        attempt(call_id=f"c{i}", sent_ns=i * S, end_ns=i * S + S // 2, json_valid=True, schema_valid=True)
        for i in range(LOAD_S)
    ]
    broken = [
        msgspec.structs.replace(row, json_valid=i % 4 > 0, schema_valid=None) for i, row in enumerate(plain)
    ]
    found = by_metric(compare([run("a", attempts=plain)], [run("b", attempts=broken)], Tolerance()))
    assert (found["json_valid.share"].verdict, found["json_valid.share"].change) == ("worse", -0.25)
    assert (found["schema_valid.share"].verdict, found["schema_valid.share"].candidate) == (
        "not decided",
        None,
    )
    without = [msgspec.structs.replace(row, json_valid=None, schema_valid=None) for row in plain]
    found = by_metric(compare([run("a", attempts=without)], [run("b", attempts=without)], Tolerance()))
    assert not {"json_valid.share", "schema_valid.share"} & found.keys()
    assert "itl.p50" in found


def test_differences_between_repeats_widen_the_interval() -> None:
    steady = [run("a1", 1), run("a2", 2), run("a3", 3)]
    uneven = [run("b1", 1, factor=0.7), run("b2", 2, factor=1.0), run("b3", 3, factor=1.3)]
    same = by_metric(compare(steady, [run("c", 4)], Tolerance()))["tpot.p50"]
    spread = by_metric(compare(steady, uneven, Tolerance()))["tpot.p50"]
    assert width(spread) > 3 * width(same)
    assert spread.verdict == "not decided"


def test_undecided_metric_gives_the_reason() -> None:
    few = [attempt(call_id=f"c{i}", sent_ns=i * 10 * S) for i in range(10)]
    found = by_metric(compare([run("a", attempts=few)], [run("b", attempts=few)], Tolerance()))
    assert found["latency.p50"].why == "the base has 10 of the 20 values that p50 needs"
    assert found["latency.p50"].remedy == "run 2 times as long, for 10 more values"
    assert found["latency.p50"].base == found["latency.p50"].candidate == 1000.0
    assert found["tokens.per_min"].why == "the base is 0, so there is no relative change"
    assert (found["ttft.p50"].why, found["ttft.p50"].measured) == ("the base has no value", False)
    short = run("s", attempts=few, ended_ns=30 * S)
    why = {difference.metric: difference.why for difference in compare([short], [short], Tolerance())}
    assert why["accepted.per_min"] == "the base lasted 30 s after the warm-up, too short for an interval"


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
        ((0.04, 0.2), "not decided", "not decided"),
        ((-0.2, 0.2), "not decided", "not decided"),
    ],
)
def test_verdict_depends_on_the_whole_interval(
    bounds: tuple[float, float], lower: Judgment, higher: Judgment
) -> None:
    assert judge(Interval(*bounds), 0.05, lower_is_better=True) == lower
    assert judge(Interval(*bounds), 0.05, lower_is_better=False) == higher


def changed(name: str, **keys: Any) -> Outline:
    return run(name, resolved=manifest().resolved | keys)


def test_incomparable_runs_give_the_reason() -> None:
    base, resolved = run("base"), manifest().resolved
    rate = changed("rate", arrivals={"kind": "poisson", "rate_per_min": 90.0})
    assert unlike([base], [rate]) == "the runs differ in arrivals.rate_per_min (110 → 90)"
    # Tables of another kind have other keys, which say nothing more.
    closed = changed("closed", arrivals={"kind": "closed", "think_s": 3.0})
    assert unlike([base], [closed]) == "the runs differ in arrivals.kind (poisson → closed)"
    mix = changed("mix", mix=resolved["mix"][:1])
    assert unlike([base], [mix]) == "the runs differ in mix (2 entries → 1 entry)"
    many = changed("many", users=3, warm_up_s=5.0, spawn_rate=2.0, retry={"policy": "none"})
    assert unlike([base], [many]) == (
        "the runs differ in retry.max_attempts (2 → 3), retry.policy (retry_after → none), "
        "spawn_rate (unset → 2), and 2 more keys"
    )


def test_target_model_seed_and_duration_may_differ_unless_something_is_varied() -> None:
    base = run("base")
    other = changed("other", model="m", seed=4, duration_s=80.0, checks={}, title="Other")
    assert unlike([base], [other]) == ""
    assert unlike([base], [other], ["model"]) == (
        "the runs differ in duration_s (90 → 80) and seed (1 → 4), not only in model"
    )
    assert unlike([base], [other], ["model", "seed", "duration_s"]) == ""
    assert unlike([base], [changed("m", model="m", title="Other")], ["model"]) == ""
    assert unlike([base], [run("again", 2)], ["model"]) == "the runs do not differ in model"


def test_vary_covers_the_keys_of_a_table() -> None:
    base = run("base")
    retried = changed("retried", retry={"policy": "backoff", "max_attempts": 4})
    assert unlike([base], [retried], ["retry"]) == ""
    assert unlike([base], [retried], ["retry.policy"]) == (
        "the runs differ in retry.max_attempts (2 → 4), not only in retry.policy"
    )
    elsewhere = run(
        "far", target=msgspec.structs.replace(manifest().target, base_url="http://127.0.0.1:1/v1")
    )
    assert unlike([base], [elsewhere]) == ""
    assert unlike([base], [elsewhere], ["target"]) == ""
    assert "target.base_url" in unlike([base], [elsewhere], ["retry"])


def test_keys_that_divide_the_load_must_be_the_same_unless_they_are_varied() -> None:
    base = usual("base", 1, 1.0)
    target = msgspec.structs.replace(base.manifest.target, keys={"A_KEY": 1.0, "B_KEY": 1.0})
    pool = replace(base, manifest=msgspec.structs.replace(base.manifest, target=target, run_id="pool"))
    assert unlike([base], [pool]).startswith("the runs differ in keys.sandbox (unset → ")
    assert unlike([base], [pool], read_vary("keys")) == ""
    models = changed("models", models={"deepseek-chat": 1, "gpt-4o-mini": 1})
    assert unlike([base], [models]).startswith("the runs differ in models (unset → ")


def test_repeats_with_the_same_seeds_on_both_sides_differ_in_nothing() -> None:
    backoff = {"retry": {"policy": "backoff", "max_attempts": 2}}
    bases = [changed(f"a{seed}", seed=seed) for seed in (1, 2)]
    others = [changed(f"b{seed}", seed=seed, **backoff) for seed in (1, 2)]
    check_repeats([bases, others])
    assert unlike(bases, others, ["retry"]) == ""
    third = changed("b3", seed=3, **backoff)
    assert unlike(bases, [third], ["retry"]) == "the runs differ in seed (1 → 3), not only in retry"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"run_id": "base"}, "base is named twice"),
        ({"resolved": manifest().resolved | {"model": "m"}}, r"model \(deepseek-chat → m\)"),
        ({"target": msgspec.structs.replace(manifest().target, body={"top_p": 0.5})}, "target.body.top_p"),
    ],
)
def test_repeats_of_one_side_have_one_load(other: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_repeats([[run("base"), run(other.pop("run_id", "repeat"), **other)]])


CROSSING = st.tuples(
    st.floats(-0.5, 0.5), st.floats(0.001, 1), st.floats(0.001, 1), st.sampled_from([0.01, 0.05])
)


@given(CROSSING)
def test_recommended_data_decides_an_interval_that_shrinks_with_its_root(
    drawn: tuple[float, float, float, float],
) -> None:
    change, below, above, tolerance = drawn
    bounds = Interval(change - below, change + above)
    factor = data_factor(change, bounds, tolerance)
    assume(judge(bounds, tolerance, lower_is_better=True) == "not decided" and factor < 1e6)

    def after(times: float) -> Judgment:
        shrunk = Interval(change - below / times**0.5, change + above / times**0.5)
        return judge(shrunk, tolerance, lower_is_better=True)

    assert factor >= 1
    assert after(factor * 1.001) != "not decided"
    assert after(factor * 0.99) == "not decided"


def test_longer_run_decides_what_a_short_one_left_open() -> None:
    def refusing(name: str, minutes: int, fraction: float) -> Outline:
        rng = np.random.default_rng(len(name))
        rows = [
            attempt(call_id=f"c{i}", sent_ns=i * S, end_ns=i * S + S // 2)
            if rng.random() > fraction
            else attempt(call_id=f"c{i}", sent_ns=i * S, outcome=Outcome.RATE_LIMITED, status=429)
            for i in range(60 * minutes)
        ]
        return run(name, attempts=rows, ended_ns=60 * minutes * S)

    def refused(minutes: int) -> Difference:
        base, candidate = refusing("base", minutes, 0.1), refusing("candidate", minutes, 0.2)
        return by_metric(compare([base], [candidate], Tolerance()))["refused.share"]

    short = refused(2)
    assert short.verdict == "not decided"
    found = re.search(
        r"measure about ([\d.]+) times as much: [\d,]+ more calls or \d+ more runs?", short.remedy
    )
    assert found is not None
    assert refused(2 * 2 * math.ceil(float(found[1]))).verdict == "worse"
