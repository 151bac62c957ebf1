"""Percentiles, latency by kind, and the timeline, compared with results computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from support_runs import S, attempt, audit_table, frame, manifest, table

from bltybench.metrics import latency, timeline
from bltybench.metrics.analysis import analyze
from bltybench.metrics.concurrency import steps
from bltybench.metrics.rates import token_events
from bltybench.metrics.sample import Sample
from bltybench.runs.attempt import Attempt


@pytest.mark.parametrize(("name", "least"), [("p50", 20), ("p90", 100), ("p95", 200), ("p99", 1000)])
def test_percentile_needs_ten_values_above_it(name: str, least: int) -> None:
    assert latency.min_sample(name) == least
    assert latency.describe(Sample.of(np.arange(least - 1, dtype=np.float64)))[name] is None
    # In 1 … n, the value at a rank is the rank, which leaves ten values above.
    assert latency.describe(Sample.of(np.arange(1, least + 1, dtype=np.float64)))[name] == least - 10


def test_percentile_is_a_measured_value() -> None:
    assert Sample.of(np.array([3.0, 2.0, 1.0, 10.0])).quantile(0.5) == 2.0
    assert Sample.of(np.array([1.0, 2.0, 3.0, 10.0])).quantile(0.51) == 3.0
    assert Sample.of(np.array([7.0])).quantile(0.99) == 7.0


def test_missing_values_are_ignored() -> None:
    row = latency.describe(Sample.of(np.array([np.nan, 5.0, np.nan])))
    assert {name: value for name, value in row.items() if value is not None} == {"n": 1, "max": 5.0}
    assert latency.describe(Sample.of(np.zeros(0)))["max"] is None


def test_kinds_with_one_value_are_omitted() -> None:
    plain = [attempt(call_id=f"p{i}", sent_ns=i * S, end_ns=(i + 1) * S) for i in range(20)]
    streams = [
        attempt(
            call_id=f"s{i}",
            stream=True,
            sent_ns=i * S,
            first_token_ns=i * S + S // 2,
            gaps_us=[],
            end_ns=(i + 2) * S,
        )
        for i in range(20)
    ]
    found = analyze(table(*plain, *streams), audit_table([]), manifest()).percentiles_by
    assert set(found["by"]) == {"stream"}
    attempts = found[found["metric"] == "attempt_latency"].set_index("value")
    assert attempts["p50"].to_dict() == {"plain": 1000.0, "streaming": 2000.0}
    assert analyze(table(*plain), audit_table([]), manifest()).percentiles_by.empty


def test_itl_by_kind_has_intervals_over_spans() -> None:
    made = [
        attempt(
            call_id=f"{model}{i}",
            model=model,
            stream=True,
            sent_ns=i * S,
            first_token_ns=i * S + S // 2,
            gaps_us=[gap + i % 7] * 20,
            end_ns=(i + 2) * S,
        )
        for model, gap in (("a", 10_000), ("b", 30_000))
        for i in range(60)
    ]
    found = analyze(table(*made), audit_table([]), manifest(ended_ns=60 * S))
    itl = found.percentiles_by.query("metric == 'itl' and by == 'model'").set_index("value")
    assert itl["n"].to_dict() == {"a": 1200, "b": 1200}
    assert itl.loc["a", "p50"] == pytest.approx(10.0, rel=0.004)
    assert itl.loc["b", "p50"] == pytest.approx(30.0, rel=0.004)
    assert found.spans.count == 6
    assert itl["p50_low"].notna().all()
    short = analyze(table(*made[:20]), audit_table([]), manifest(ended_ns=4 * S))
    assert short.timing("ttft")["p50"] is not None
    assert short.timing("ttft")["p50_low"] is None


def test_ttft_is_at_most_if_first_tokens_shared_a_read() -> None:
    def made(model: str, coalesced: int, streams: int = 2000) -> list[Attempt]:
        return [
            attempt(
                call_id=f"{model}{number}",
                model=model,
                stream=True,
                sent_ns=number,
                first_token_ns=number + S,
                first_output_ns=number + 2 * S,
                gaps_us=[],
                first_token_coalesced=number < coalesced,
                end_ns=number + 3 * S,
            )
            for number in range(streams)
        ]

    found = analyze(table(*made("a", 3), *made("b", 2)), audit_table([]), manifest())
    assert found.percentiles.set_index("name")["at_most"].to_dict() == {
        "ttft": True,
        "first_output": False,
        **dict.fromkeys(("itl", "tpot", "latency", "attempt_latency", "schedule_delay"), False),
    }
    by_model = found.percentiles_by.query("by == 'model' and metric == 'ttft'").set_index("value")
    assert by_model["at_most"].to_dict() == {"a": True, "b": False}
    unaffected = analyze(table(*made("b", 2)), audit_table([]), manifest())
    assert not unaffected.percentiles["at_most"].any()


def test_thinned_ecdf_keeps_the_extremes() -> None:
    curve = latency.ecdf(Sample.of(np.arange(1, 10_001, dtype=np.float64)), points=50)
    assert len(curve) <= 50
    assert curve.iloc[[0, -1]].to_numpy().tolist() == [[1.0, 0.0001], [10_000.0, 1.0]]
    assert latency.ecdf(Sample.of(np.zeros(0))).empty


def test_timeline_counts_every_attempt_once() -> None:
    run = frame(*(attempt(call_id=f"c{i}", sent_ns=i * S, end_ns=i * S + 1) for i in (0, 4, 5, 90)))
    bins = timeline.timeline(run, token_events(run), steps(run), 90 * S)
    assert bins["offered"].sum() == 4
    assert bins["accepted"].iloc[[0, 1, -1]].tolist() == [2, 1, 1]
    assert bins["end_s"].iloc[0] == 5.0
    rolled = timeline.rolling(run, token_events(run), steps(run), 90 * S).set_index("at_s")
    assert rolled.loc[[0.0, 5.0, 60.0, 90.0], "accepted"].tolist() == [1, 3, 2, 1]


def test_empty_run_has_a_timeline_of_zeros() -> None:
    run = frame()
    bins = timeline.timeline(run, token_events(run), steps(run), 0)
    assert bins["offered"].tolist() == [0]
    assert timeline.rolling(run, token_events(run), steps(run), 0)["ttft_p50_ms"].isna().all()
