"""Metrics compared with SQL queries (DuckDB) on the run's Parquet file, which share no code with them."""

# ruff: noqa: S608  # the queries consist of strings in this file only
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support_runs import WALL_NS, realistic, write_run

from bltybench.metrics import analysis
from bltybench.metrics.analysis import Analysis
from bltybench.runs.sealing.seal import seal

FATE = """case when outcome = 'rate_limited' then 'refused'
  when status between 200 and 299 then 'accepted' else 'other' end"""

SAMPLES = {
    "ttft": "select (first_token_ns - sent_ns) / 1e6 as v from a where outcome = 'ok'",
    "first_output": "select (first_output_ns - sent_ns) / 1e6 as v from a where outcome = 'ok'",
    "itl": "select unnest(gaps_us) / 1e3 as v from a where outcome = 'ok'",
    "tpot": """select (last_token_ns - first_token_ns) / (completion_tokens - 1) / 1e6 as v
        from a where outcome = 'ok' and completion_tokens > 1""",
    "attempt_latency": "select (end_ns - sent_ns) / 1e6 as v from a where outcome = 'ok'",
    "schedule_delay": "select (sent_ns - due_ns) / 1e6 as v from a",
    "latency": """select (arg_max(end_ns, attempt) - arg_min(due_ns, attempt)) / 1e6 as v
        from a group by call_id having arg_max(outcome, attempt) = 'ok'""",
}

TOKENS = """select coalesce(sent_ns, due_ns) as t_ns, prompt_tokens as n from a where fate = 'accepted'
    union all select end_ns, completion_tokens from a where fate = 'accepted'"""


WITHIN = "u.t_ns <= t.t_ns and u.t_ns > t.t_ns - 60000000000"


class Run:
    """One synthetic run, as an analysis and as the table ``a`` of its Parquet file."""

    def __init__(self, path: Path, seed: int) -> None:
        folder = write_run(path / "run", realistic(240.0, 130.0, seed=seed))
        seal(folder)
        self.metrics: Analysis = analysis.load(folder)
        self.db = duckdb.connect()
        parquet = str(folder.attempts_parquet)
        self.db.execute(f"create table a as select *, {FATE} as fate from read_parquet(?)", [parquet])

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return self.db.execute(query).fetchall()


@pytest.fixture(scope="module", params=[1, 2, 3])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    made = Run(tmp_path_factory.mktemp("sql"), request.param)
    yield made
    made.db.close()


@pytest.mark.parametrize("name", SAMPLES)
def test_percentiles_equal_sql(run: Run, name: str) -> None:
    shares = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
    # The rank in integer arithmetic, which needs no rounding.
    picked = ", ".join(
        f"max(v) filter (rank = (n * {share} + 99) // 100) as {label}" for label, share in shares.items()
    )
    ordered = (
        "select v, row_number() over (order by v) as rank, count(*) over () as n from s where v is not null"
    )
    ((n, *values, greatest),) = run.sql(
        f"with s as ({SAMPLES[name]}), o as ({ordered}) select max(n), {picked}, max(v) from o"
    )
    found = run.metrics.timing(name)
    assert found["n"] == n
    assert n > 100
    assert found["max"] == pytest.approx(greatest, rel=1e-12)
    for (label, share), value in zip(shares.items(), values, strict=True):
        enough = n * (100 - share) >= 1000
        assert found[label] == (pytest.approx(value, rel=1e-12) if enough else None), label


@pytest.mark.parametrize("fate", ["accepted", "refused", "other"])
def test_best_minute_of_requests_equals_sql(run: Run, fate: str) -> None:
    times = f"select coalesce(sent_ns, due_ns) as t_ns from a where fate = '{fate}'"
    ((best, count),) = run.sql(
        f"with t as ({times}) select max(n), (select count(*) from t) from "
        f"(select (select count(*) from t as u where {WITHIN}) as n from t)"
    )
    assert (run.metrics.best_of(fate), run.metrics.count_of(fate)) == (best, count)


def test_best_minute_of_tokens_equals_sql(run: Run) -> None:
    ((best, total),) = run.sql(
        f"with t as ({TOKENS}) select max(n), (select sum(n) from t) from "
        f"(select (select sum(u.n) from t as u where {WITHIN}) as n from t)"
    )
    assert (run.metrics.best_of("total_tokens"), run.metrics.count_of("total_tokens")) == (best, total)


def test_calendar_minutes_equal_sql(run: Run) -> None:
    minute = f"({WALL_NS} + coalesce(sent_ns, due_ns)) // 60000000000"
    rows = run.sql(
        f"select {minute} * 60 as m, count(*), count(*) filter (fate = 'accepted'), "
        "count(*) filter (fate = 'refused'), count(*) filter (fate = 'other') from a group by m order by m"
    )
    found = run.metrics.minutes[run.metrics.minutes["offered"] > 0]
    columns = found[["offered", "accepted", "refused", "other"]].itertuples(index=False, name=None)
    stamps = [int(at.timestamp()) for at in found["minute"]]
    assert [(at, *counts) for at, counts in zip(stamps, columns, strict=True)] == rows
    tokens = run.sql(
        f"with t as ({TOKENS}) select ({WALL_NS} + t_ns) // 60000000000 * 60 as m, sum(n)::bigint "
        "from t group by m having sum(n) > 0 order by m"
    )
    some = run.metrics.minutes[run.metrics.minutes["total_tokens"] > 0]
    stamps = [int(at.timestamp()) for at in some["minute"]]
    assert list(zip(stamps, some["total_tokens"], strict=True)) == tokens


def test_in_flight_equals_sql(run: Run) -> None:
    ((peak,),) = run.sql(
        "select max((select count(*) from a as o where o.sent_ns <= a.sent_ns and a.sent_ns < o.end_ns)) "
        "from a"
    )
    ((area,),) = run.sql("select sum(end_ns - sent_ns) from a where sent_ns is not null")
    assert run.metrics.in_flight.max == peak
    assert run.metrics.in_flight.mean == pytest.approx(area / run.metrics.end_ns)


def test_outcomes_and_errors_equal_sql(run: Run) -> None:
    rows = run.sql("select outcome, status, count(*) from a group by all order by all")
    found = run.metrics.outcomes[["outcome", "status", "count"]].itertuples(index=False, name=None)
    assert sorted(found) == rows
    errors = run.sql(
        "select outcome, status, error_type, count(*), min(sent_ns) / 1e9, max(sent_ns) / 1e9 from a "
        "where outcome not in ('ok', 'rate_limited', 'cancelled') group by 1, 2, 3"
    )
    kinds = run.metrics.errors[["outcome", "status", "error_type", "count", "first_s", "last_s"]]
    assert sorted(kinds.itertuples(index=False, name=None)) == sorted(errors)


def test_attempts_after_refusals_equal_sql(run: Run) -> None:
    ((refused, retried, enough, then_ok),) = run.sql(
        """with pairs as (
            select r.retry_after_s as asked, (n.sent_ns - r.end_ns) / 1e9 as waited, n.outcome as became
            from a as r left join a as n on n.call_id = r.call_id and n.attempt = r.attempt + 1
            where r.fate = 'refused')
        select count(*), count(became), count(*) filter (waited >= asked),
            count(*) filter (waited >= asked and became = 'ok') from pairs"""
    )
    table = run.metrics.retry_after
    assert table["refusals"].sum() == refused
    assert table["retried"].sum() == retried
    assert table["waited_enough"].sum() == enough
    assert table["then_ok"].sum() == then_ok
