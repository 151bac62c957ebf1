from __future__ import annotations

import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from locust.stats import RequestStats
from locust.user.task import LOCUST_STATE_STOPPING

from bltybench.errors import UserError
from bltybench.load.locust_plugin.options import formats_of
from bltybench.load.locust_plugin.stats import BATCH, TokenRows, add_refusal
from bltybench.load.retry import wait_before_retry_s
from bltybench.load.run import audit as audit_module
from bltybench.load.run import run_spec as jobs
from bltybench.load.run.audit import Audit
from bltybench.load.run.budget import BudgetAccount, Spend, share
from bltybench.load.run.live import Counter, Live, Tick, decode_ticks, encode_ticks
from bltybench.load.users import ChatUser
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.manifest import Clock
from bltybench.scenario.target import Budget, Price, Target
from bltybench.scenario.workload import Call, Constant, Retry, Scenario

RNG = random.Random(1)


def wait_s(
    outcome: Outcome, *, attempt: int = 0, retry_after_s: float | None = None, **retry: Any
) -> float | None:
    return wait_before_retry_s(Retry(**retry), attempt, outcome, retry_after_s, RNG)


def test_a_report_of_a_kind_that_there_is_not_is_the_user_s_to_mend() -> None:
    assert formats_of(Namespace(report_format="json, md")) == {"json", "md"}
    assert "html" in formats_of(Namespace(report_format=""))
    with pytest.raises(UserError, match="no such format: pdf") as caught:
        formats_of(Namespace(report_format="json,pdf"))
    assert caught.value.where == "--report-format"


def test_a_user_that_ends_by_itself_may_be_told_to_stop_at_that_moment() -> None:
    user = object.__new__(ChatUser)
    user._state = LOCUST_STATE_STOPPING
    assert user.stop() is False


class TestRetry:
    def test_without_a_policy_nothing_is_tried_again(self) -> None:
        assert wait_s(Outcome.RATE_LIMITED, policy="none", retry_after_s=1) is None

    def test_retry_after_waits_as_long_as_the_server_says(self) -> None:
        assert wait_s(Outcome.RATE_LIMITED, policy="retry_after", retry_after_s=7.5) == 7.5

    def test_a_server_that_asks_for_too_much_is_not_waited_for(self) -> None:
        assert wait_s(Outcome.RATE_LIMITED, policy="retry_after", retry_after_s=9, max_wait_s=8) is None

    @pytest.mark.parametrize("said", [None, 0, -3])
    def test_without_a_usable_word_of_the_server_the_client_backs_off(self, said: float | None) -> None:
        waited = wait_s(Outcome.RATE_LIMITED, policy="retry_after", retry_after_s=said)
        assert waited is not None
        assert 0.375 < waited <= 0.5

    def test_backoff_doubles_up_to_its_cap_whatever_the_server_says(self) -> None:
        waits = [
            wait_s(Outcome.SERVER_ERROR, attempt=n, policy="backoff", max_attempts=9, retry_after_s=60)
            for n in range(6)
        ]
        for waited, full in zip(waits, [0.5, 1, 2, 4, 8, 8], strict=True):
            assert waited is not None
            assert 0.75 * full < waited <= full

    def test_the_last_attempt_is_the_last(self) -> None:
        assert wait_s(Outcome.TIMEOUT, attempt=1, policy="backoff", max_attempts=3) is not None
        assert wait_s(Outcome.TIMEOUT, attempt=2, policy="backoff", max_attempts=3) is None

    @pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.CLIENT_ERROR, Outcome.CANCELLED])
    def test_what_another_try_cannot_mend_is_not_tried_again(self, outcome: Outcome) -> None:
        assert wait_s(outcome, policy="backoff") is None


class TestBudget:
    @pytest.mark.parametrize(("cap", "workers"), [(10, 3), (2, 5), (0, 2), (7, 1)])
    def test_shares_add_up_to_the_cap(self, cap: int, workers: int) -> None:
        shares = [share(cap, index, workers) for index in range(workers)]
        assert sum(part for part in shares if part is not None) == cap

    def test_requests_run_out(self) -> None:
        purse = BudgetAccount(Budget(requests=2))
        assert [purse.take(Spend(10)), purse.take(Spend(10)), purse.take(Spend(10))] == [True, True, False]
        assert purse.exhausted

    def test_tokens_set_aside_and_not_used_can_be_spent_again(self) -> None:
        purse = BudgetAccount(Budget(tokens=100))
        assert purse.take(Spend(90))
        purse.give_back(Spend(60))
        assert purse.take(Spend(70))
        assert not purse.take(Spend(1))

    def test_once_spent_it_stays_spent(self) -> None:
        purse = BudgetAccount(Budget(tokens=100))
        assert purse.take(Spend(60))
        assert not purse.take(Spend(60))
        assert not purse.take(Spend(1))

    def test_money_runs_out_and_comes_back_where_less_was_used(self) -> None:
        prices = {"m": Price(input_per_million=1_000_000, output_per_million=2_000_000)}
        purse = BudgetAccount(Budget(money=10), prices)
        dear = purse.cost("m", 2, 3)
        assert (dear.tokens, dear.money) == (5, 8)
        assert purse.take(dear)
        purse.give_back(dear - purse.cost("m", 2, 1))
        assert purse.take(purse.cost("m", 0, 3))
        assert not purse.take(purse.cost("m", 1, 0))

    def test_workers_share_the_money(self) -> None:
        prices = {"m": Price(input_per_million=1e6, output_per_million=1e6)}
        for index in range(3):
            purse = BudgetAccount(Budget(money=10), prices, index, 3)
            assert [purse.take(purse.cost("m", 1, 0)) for _ in range(4)] == [True, True, True, False]

    def test_what_cannot_be_kept_is_refused(self) -> None:
        with pytest.raises(UserError, match="max_tokens is not given"):
            BudgetAccount(Budget(tokens=10)).cost("m", 5, None)
        with pytest.raises(UserError, match="model 'm' has no price"):
            BudgetAccount(Budget(money=10)).cost("m", 5, 5)
        assert BudgetAccount(Budget(requests=10)).cost("m", 5, None) == Spend(5)

    def test_without_caps_nothing_runs_out(self) -> None:
        purse = BudgetAccount(Budget())
        assert all(purse.take(Spend(10**9)) for _ in range(100))


class TestLive:
    def test_the_line_sums_the_last_minute_of_all_workers(self) -> None:
        live = Live()
        live.add(
            "w0", [Tick(at_s=1, accepted=50), Tick(at_s=62, accepted=3, refused=1, tokens=900, in_flight=4)]
        )
        live.add("w1", [Tick(at_s=62, accepted=2, tokens=100, in_flight=1, ttft_ms=(100.0, 300.0))])
        assert live.line(62, 90, "charges: drain").startswith(" 62 s  charges: drain  5")
        line = live.line(62, 90)
        assert line.split("  ") == [
            " 62/90 s",
            "5 ok/min",
            "1 429/min",
            "1000 tok/min",
            "5 in flight",
            "TTFT p50 100 p95 300 ms",
        ]

    def test_failures_are_shown_where_there_are_any(self) -> None:
        live = Live()
        live.add("local", [Tick(at_s=1, failed=2)])
        assert "2 failed/min" in live.line(1, 10)

    def test_before_the_first_answer_there_is_a_line_too(self) -> None:
        assert Live().line(-0.2, 10).startswith("  0/10 s  0 ok/min")

    def test_a_counter_hands_over_and_begins_anew(self) -> None:
        counter = Counter()
        counter.accepted += 1
        counter.add_ttft(12.5)
        tick = counter.take(3.0, 2)
        assert tick == Tick(at_s=3.0, accepted=1, in_flight=2, ttft_ms=(12.5,))
        assert counter.take(4.0, 0) == Tick(at_s=4.0)
        assert decode_ticks(encode_ticks([tick])) == [tick]


def test_the_order_for_a_run_survives_the_way_to_a_worker() -> None:
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
    order = jobs.RunSpec(
        run_path="/tmp/r",  # noqa: S108 - a name, never opened
        clock=Clock.now(),
        base_dir="/tmp",  # noqa: S108
        scenario_name="s",
        scenario=scenario.model_dump(mode="json"),
        target_name="t",
        target=target.model_dump(mode="json"),
        workers=["a", "b"],
    )
    received = jobs.decode(jobs.encode(order))
    assert received == order
    assert received.read_scenario() == scenario
    assert received.read_target() == target


class TestLocustTable:
    def test_rows_of_our_own_leave_the_aggregated_row_alone(self) -> None:
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

    def test_gaps_are_counted_as_locust_would_count_them_one_by_one(self) -> None:
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

    def test_a_stream_with_one_event_has_no_gap_to_show(self) -> None:
        stats = RequestStats()
        rows = TokenRows(stats)
        rows.add("x", 1.0, [])
        rows.flush()
        assert list(stats.entries) == [("x", "TTFT")]

    def test_very_many_gaps_do_not_wait(self) -> None:
        stats = RequestStats()
        TokenRows(stats).add("x", 1.0, [5_000] * BATCH)
        assert stats.get("x", "ITL").response_times == {5: BATCH}


def test_the_audit_counts_a_second_and_begins_anew() -> None:
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
    assert (row.schedule_delay_p50_us, row.schedule_delay_p99_us, row.schedule_delay_max_us) == (50, 99, 100)
    assert (row.observer_lag_p50_us, row.observer_lag_max_us) == (40, 40)
    empty = audit.second(2 * 10**9, users=3, in_flight=0, backlog=0)
    assert (empty.sent, empty.schedule_delay_p99_us, empty.observer_lag_p50_us) == (0, None, None)


def test_waiting_for_a_core_is_told_where_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "schedstat"
    told.write_text("5000000000 1000000000 7\n")
    monkeypatch.setattr(audit_module, "PROC_SCHEDSTAT", told)
    audit = Audit("w0")
    told.write_text("5000000000 61000000000 8\n")
    share = audit.second(10**9, users=1, in_flight=0, backlog=0).cpu_wait_share
    assert share is not None
    assert share > 1  # a minute of waiting within the moments of this test
    told.unlink()
    assert audit.second(2 * 10**9, users=1, in_flight=0, backlog=0).cpu_wait_share is None
