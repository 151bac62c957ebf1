from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from locust.stats import RequestStats
from support_runs import attempt

from bltybench.errors import UserError
from bltybench.load.distributed.scenario_files import FileDigest, ScenarioFiles
from bltybench.load.run import audit as audit_module
from bltybench.load.run.audit import Audit
from bltybench.load.run.budget import BudgetAccount, Spend, share
from bltybench.load.run.clock import RunClock
from bltybench.load.run.live import Live, Tick
from bltybench.load.run.record_sink import RecordSink
from bltybench.load.run.run_spec import RunSpec
from bltybench.load.run.stats_rows import BATCH, TokenRows, add_refusal
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.folder import create_run
from bltybench.runs.manifest import Clock
from bltybench.scenario.patterns import Constant
from bltybench.scenario.target import Budget, Price, Target
from bltybench.scenario.workload import Call, Scenario
from bltybench.wire.scheduling.reader import Reader


class TestBudget:
    @pytest.mark.parametrize(("cap", "workers"), [(10, 3), (2, 5), (0, 2), (7, 1)])
    def test_shares_add_up_to_the_cap(self, cap: int, workers: int) -> None:
        shares = [share(cap, index, workers) for index in range(workers)]
        assert sum(shares) == cap

    def test_requests_run_out(self) -> None:
        account = BudgetAccount(Budget(requests=2))
        taken = [account.take(Spend(10)), account.take(Spend(10)), account.take(Spend(10))]
        assert taken == [True, True, False]
        assert account.exhausted

    def test_refunded_tokens_can_be_spent(self) -> None:
        account = BudgetAccount(Budget(tokens=100))
        assert account.take(Spend(90))
        account.give_back(Spend(60))
        assert account.take(Spend(70))
        assert not account.take(Spend(1))

    def test_exhausted_account_stays_exhausted(self) -> None:
        account = BudgetAccount(Budget(tokens=100))
        assert account.take(Spend(60))
        assert not account.take(Spend(60))
        assert not account.take(Spend(1))

    def test_unused_money_is_refunded(self) -> None:
        prices = {"m": Price(input_per_million=1_000_000, output_per_million=2_000_000)}
        account = BudgetAccount(Budget(money=10), prices)
        maximum = account.cost("m", 2, 3)
        assert (maximum.tokens, maximum.money) == (5, 8)
        assert account.take(maximum)
        account.give_back(maximum - account.cost("m", 2, 1))
        assert account.take(account.cost("m", 0, 3))
        assert not account.take(account.cost("m", 1, 0))

    def test_workers_share_the_money(self) -> None:
        prices = {"m": Price(input_per_million=1e6, output_per_million=1e6)}
        for index in range(3):
            account = BudgetAccount(Budget(money=10), prices, index, 3)
            taken = [account.take(account.cost("m", 1, 0)) for _ in range(4)]
            assert taken == [True, True, True, False]

    def test_cap_that_cannot_be_kept_is_a_user_error(self) -> None:
        with pytest.raises(UserError, match="a call has no max_tokens or max_completion_tokens"):
            BudgetAccount(Budget(tokens=10)).cost("m", 5, None)
        with pytest.raises(UserError, match="model 'm' has no price"):
            BudgetAccount(Budget(money=10)).cost("m", 5, 5)
        assert BudgetAccount(Budget(requests=10)).cost("m", 5, None) == Spend(5)

    def test_account_without_caps_is_never_exhausted(self) -> None:
        account = BudgetAccount(Budget())
        assert all(account.take(Spend(10**9)) for _ in range(100))


class TestLive:
    def test_line_sums_the_last_minute_of_all_workers(self) -> None:
        live = Live()
        live.add("w0", Tick(at_s=1, accepted=50))
        live.add("w0", Tick(at_s=62, accepted=3, refused=1, input_tokens=900, in_flight=4))
        live.add("w1", Tick(at_s=62, accepted=2, output_tokens=100, in_flight=1, ttft_ms=[100.0, 300.0]))
        line = live.line(62, 90)
        assert line.split("  ") == [
            " 62/90 s",
            "last 60 s: 5 ok, 1 refused, 1000 tokens",
            "5 in flight",
            "TTFT p50 100 p95 300 ms",
        ]

    def test_line_names_the_step_instead_of_the_duration(self) -> None:
        live = Live()
        live.show("charges: drain")
        assert live.line(62, 90).startswith(" 62 s  charges: drain  last 60 s: 0 ok")

    def test_line_shows_failures_if_there_are_any(self) -> None:
        live = Live()
        live.add("local", Tick(at_s=1, failed=2))
        assert "0 refused, 2 failed, 0 tokens" in live.line(1, 10)

    def test_line_before_the_first_tick(self) -> None:
        assert Live().line(-0.2, 10).startswith("  0/10 s  last 0 s: 0 ok")

    def test_line_of_a_shorter_run_counts_no_minute(self) -> None:
        live = Live()
        live.add("local", Tick(at_s=15, accepted=26, input_tokens=12_345))
        assert live.line(15, 75).startswith(" 15/75 s  last 15 s: 26 ok, 0 refused, 12.3K tokens")

    def test_last_reported_values_survive_ticks_without_any(self) -> None:
        live, tick = Live(), Tick(at_s=1.0, in_flight=2)
        tick.add(attempt(remaining_requests=3, remaining_tokens=900), False, None)
        refusal = attempt(outcome=Outcome.RATE_LIMITED, status=429, retry_after_s=12.5, remaining_requests=0)
        tick.add(refusal, True, None)
        live.add("w0", msgspec.convert(msgspec.to_builtins(tick), Tick))
        live.add("w0", Tick(at_s=2.0, in_flight=1))
        counts = live.snapshot(2.0)
        assert (counts.retry_after_s, counts.remaining_requests, counts.remaining_tokens) == (12.5, 0, 900)
        assert counts.in_flight == 1
        # A minute later, they are outdated.
        assert live.snapshot(62.5).retry_after_s is None

    def test_snapshot_covers_all_processes(self) -> None:
        live = Live()
        for worker, ttft_ms in (("w0", 100.0), ("w1", 300.0)):
            tick = Tick(
                at_s=1.0,
                accepted=5,
                refused=2,
                input_tokens=50,
                output_tokens=20,
                in_flight=4,
                ttft_ms=[ttft_ms],
            )
            live.add(worker, tick)
        counts = live.snapshot(1.0)
        assert (counts.accepted, counts.refused, counts.tokens, counts.in_flight) == (10, 4, 140, 8)
        assert counts.ttft_ms == [100.0, 300.0]
        assert Live().snapshot(0.0).ttft_ms == []

    def test_point_of_the_charts_counts_the_minute_before_it(self) -> None:
        live = Live()
        live.add("w0", Tick(at_s=1.0, accepted=5))
        live.add("w0", Tick(at_s=30.0, refused=2, failed=1, in_flight=3, ttft_ms=[300.0, 100.0]))
        point = live.point(60.5)
        assert (point.accepted, point.refused, point.failed, point.in_flight) == (5, 2, 1, 3)
        assert (point.ttft_p50_ms, point.ttft_p95_ms) == (100.0, 300.0)
        point = live.point(95.0)
        assert (point.accepted, point.refused, point.ttft_p50_ms) == (0, 0, None)

    def test_sink_starts_a_new_tick_when_one_is_taken(self, tmp_path: Path) -> None:
        folder = create_run(tmp_path, "s")
        reader = Reader()
        sink = RecordSink(folder, "w0", RunClock(Clock.now(), 5), reader, RequestStats(), end_run=print)
        sink.tick.add(attempt(prompt_tokens=30, completion_tokens=4), False, 12.5)
        sink.tick.add(attempt(outcome=Outcome.SERVER_ERROR, status=500), False, None)
        sink.open_attempts = 2
        tick = sink.take_tick()
        assert (tick.accepted, tick.refused, tick.failed, tick.tokens) == (1, 0, 1, 34)
        assert (tick.in_flight, tick.ttft_ms) == (2, [12.5])
        assert tick.at_s > 0
        empty = sink.take_tick()
        assert (empty.accepted, empty.ttft_ms) == (0, [])
        sink.close()


def test_run_spec_survives_the_way_to_a_worker() -> None:
    scenario = Scenario(
        title="t",
        model="m",
        duration_s=5,
        users=2,
        mix=(Call(name="chat"),),
        arrivals=Constant(kind="constant", rate_per_min=60),
        checks={"errors.count": "== 0"},
    )
    target = Target(base_url="http://127.0.0.1:1/v1", budget=Budget(requests=5))
    spec = RunSpec(
        run_path="/tmp/r",  # noqa: S108 - a name, never opened
        clock=Clock.now(),
        files=ScenarioFiles(
            base_dir="/tmp",  # noqa: S108
            scenarios=FileDigest(name="scenarios.toml", sha256="1"),
            named=[FileDigest(name="trace.jsonl", sha256="2")],
        ),
        scenario_name="s",
        scenario=scenario.model_dump(mode="json"),
        targets={"t": target.model_dump(mode="json")},
        workers=["a", "b"],
    )
    received = msgspec.convert(msgspec.to_builtins(spec), RunSpec)
    assert received == spec
    assert Scenario.model_validate(received.scenario) == scenario
    assert Target.model_validate(received.targets["t"]) == target


class TestStatsRows:
    def test_own_rows_do_not_change_the_aggregated_row(self) -> None:
        stats = RequestStats()
        stats.log_request("POST", "chat", 250, 10)
        add_refusal(stats, "chat", 3.2, 99)
        rows = TokenRows(stats)
        rows.add("chat", 140.4, [20_000, 20_900, 31_000])
        rows.flush()
        rows.flush()
        assert stats.total.num_requests == 1
        assert stats.total.max_response_time == 250
        assert stats.get("chat", "429").num_requests == 1
        assert stats.get("chat", "TTFT").response_times == {140: 1}
        assert stats.get("chat", "ITL").response_times == {20: 2, 31: 1}

    def test_batched_gaps_equal_gaps_logged_by_locust(self) -> None:
        gaps_us = [0, 999, 1_000, 147_000, 3_432_000, 147_999]
        ours, theirs = RequestStats(), RequestStats()
        rows = TokenRows(ours)
        rows.add("x", 1.0, gaps_us[:2])
        rows.add("x", 1.0, gaps_us[2:])
        rows.flush()
        for gap in gaps_us:
            theirs.get("x", "ITL").log(gap // 1000, 0)
        mine, reference = ours.get("x", "ITL"), theirs.get("x", "ITL")
        for name in ("num_requests", "total_response_time", "min_response_time", "max_response_time"):
            assert getattr(mine, name) == getattr(reference, name), name
        assert mine.response_times == reference.response_times

    def test_stream_with_one_event_has_no_itl_row(self) -> None:
        stats = RequestStats()
        rows = TokenRows(stats)
        rows.add("x", 1.0, [])
        rows.flush()
        assert list(stats.entries) == [("x", "TTFT")]

    def test_full_batch_is_flushed_immediately(self) -> None:
        stats = RequestStats()
        TokenRows(stats).add("x", 1.0, [5_000] * BATCH)
        assert stats.get("x", "ITL").response_times == {5: BATCH}


class TestAudit:
    def test_each_second_starts_again(self) -> None:
        audit = Audit("w0")
        for delay_us in range(1, 101):
            audit.sent(delay_us)
        audit.ended(
            Attempt(
                worker="w0",
                user=0,
                scenario="s",
                call_id="c",
                attempt=0,
                due_ns=0,
                sent_ns=1,
                end_ns=9,
                outcome=Outcome.OK,
                status=200,
                endpoint="e",
                stream=True,
                bytes_sent=1,
                bytes_received=70,
                coalesced_events=2,
                observer_lag_us=40,
                in_flight=1,
            ),
            events=5,
        )
        row = audit.second(10**9, users=3, in_flight=1, backlog=0)
        assert (row.sent, row.events, row.coalesced_events, row.bytes_received) == (100, 5, 2, 70)
        delays_us = (row.schedule_delay_p50_us, row.schedule_delay_p99_us, row.schedule_delay_max_us)
        assert delays_us == (50, 99, 100)
        assert (row.observer_lag_p50_us, row.observer_lag_max_us) == (40, 40)
        empty = audit.second(2 * 10**9, users=3, in_flight=0, backlog=0)
        assert (empty.sent, empty.schedule_delay_p99_us, empty.observer_lag_p50_us) == (0, None, None)

    def test_wait_for_a_core_is_recorded_if_the_system_reports_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        schedstat = tmp_path / "schedstat"
        schedstat.write_text("5000000000 1000000000 7\n")
        monkeypatch.setattr(audit_module, "PROC_SCHEDSTAT", schedstat)
        audit = Audit("w0")
        schedstat.write_text("5000000000 61000000000 8\n")
        fraction = audit.second(10**9, users=1, in_flight=0, backlog=0).cpu_wait_share
        assert fraction is not None
        assert fraction > 1  # a minute of waiting within the moments of this test
        schedstat.unlink()
        assert audit.second(2 * 10**9, users=1, in_flight=0, backlog=0).cpu_wait_share is None
