"""The audit and the checks: each rule holds in one run and fails in another."""

from __future__ import annotations

from typing import Any

import msgspec
import pandas as pd
import pytest
from support_runs import (
    S,
    attempt,
    audit_frame,
    audit_table,
    frame,
    generator_seconds,
    manifest,
    realistic,
    scenario,
    table,
)

from bltybench.metrics import run_findings, validity
from bltybench.metrics.analysis import Analysis, analyze
from bltybench.metrics.checks import evaluate, metric
from bltybench.metrics.failure import LOCAL
from bltybench.metrics.grading import Figure, Finding, affected, sentence, stamp
from bltybench.metrics.verdict import RunVerdict
from bltybench.runs.attempt import Attempt, Outcome, Stamp
from bltybench.runs.manifest import Manifest, UnfinishedWorker
from bltybench.scenario.checks import METRICS

CLOSED = manifest().resolved | {"arrivals": {"kind": "closed"}}


def findings(
    attempts: pd.DataFrame,
    generator: pd.DataFrame | None = None,
    about: Manifest | None = None,
    arrivals: dict[str, Any] = CLOSED["arrivals"],
) -> dict[str, Finding]:
    """Return the findings that do not hold, by name."""
    audit = audit_frame(generator_seconds(90)) if generator is None else generator
    found = validity.audit(attempts, audit, about or manifest(resolved=CLOSED), scenario(arrivals=arrivals))
    assert all(finding.remedy for finding in found if not finding.holds)
    return {finding.name: finding for finding in found if not finding.holds}


def broken(
    attempts: pd.DataFrame, generator: pd.DataFrame | None = None, about: Manifest | None = None
) -> list[str]:
    return list(findings(attempts, generator, about))


def test_idle_generator_is_valid() -> None:
    assert broken(frame(*realistic()), about=manifest()) == []


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"stall_us": 251_000}, "event loop, longest stall"),
        ({"cpu_share": 0.97}, "CPU of the generator"),
        ({"cpu_share": 0.5, "cpu_wait_share": 0.46}, "CPU of the generator"),
    ],
)
def test_overloaded_generator_is_invalid(fields: dict[str, Any], name: str) -> None:
    assert broken(frame(attempt()), audit_frame(generator_seconds(60, **fields))) == [name]


def test_stall_after_the_last_send_is_ignored() -> None:
    calm, last = generator_seconds(9), generator_seconds(10, stall_us=400_000)[-1:]
    until_8_s = [attempt(call_id=str(n), due_ns=n * S, sent_ns=n * S, end_ns=20 * S) for n in range(9)]
    assert broken(frame(*until_8_s), audit_frame([*calm, *last])) == []
    until_9_s = attempt(call_id="9", due_ns=9 * S, sent_ns=9 * S, end_ns=20 * S)
    assert broken(frame(*until_8_s, until_9_s), audit_frame([*calm, *last])) == ["event loop, longest stall"]


def test_run_that_lost_a_worker_is_invalid() -> None:
    lost = [UnfinishedWorker(name="w1", reason="stopped responding")]
    about = manifest(resolved=CLOSED, workers=2, unfinished_workers=lost)
    assert broken(frame(attempt()), about=about) == [run_findings.ALL_WORKERS]
    assert broken(frame(attempt()), about=manifest(resolved=CLOSED, workers=2)) == []
    findings = validity.audit(
        frame(attempt()), audit_frame(generator_seconds(9)), about, scenario(arrivals=CLOSED["arrivals"])
    )
    assert not run_findings.all_workers_finished(findings)
    (finding,) = [finding for finding in findings if finding.name == run_findings.ALL_WORKERS]
    assert (finding.actual, finding.bound) == ("1 of 2", "2 of 2")
    assert finding.reason is not None
    assert finding.reason.startswith("worker w1 stopped responding")


@pytest.mark.parametrize(
    ("merged", "lost", "reason"),
    [
        ([], True, "worker w1 stopped responding, so a part of the load and its last records are missing"),
        (["w1"], True, "so a part of the load is missing; the records of 1 of 2 workers were merged: w1"),
        ([], False, "the run was killed, so its last attempts are missing"),
        (["w0", "w1"], False, "the run was killed; the records of 2 of 2 workers were merged: w0, w1"),
    ],
)
def test_finding_names_the_workers_whose_records_were_merged(
    merged: list[str], lost: bool, reason: str
) -> None:
    gone = [UnfinishedWorker(name="w1", reason="stopped responding")] if lost else []
    ended = {} if lost else {"ended_ns": None, "ended": None}
    about = manifest(resolved=CLOSED, workers=2, unfinished_workers=gone, merged_workers=merged, **ended)
    findings = [run_findings.end_of_the_run(about), *run_findings.workers(about)]
    (broken_one,) = [finding for finding in findings if not finding.holds]
    assert (broken_one.reason or "").endswith(reason)


@pytest.mark.parametrize(
    ("late", "stall_us", "holds", "actual"),
    [
        (1, 30_000, False, "1.0% shared a read with a later event, 1.0% in a stall"),
        (1, 20_000, True, "1.0% shared a read with a later event, 0.0% in a stall"),
        (0, 30_000, True, "0.0% shared a read with a later event, 0.0% in a stall"),
    ],
)
def test_first_tokens_that_waited_in_a_stall_affect_ttft_from_one_percent(
    late: int, stall_us: int, holds: bool, actual: str
) -> None:
    calm, busy = generator_seconds(2), generator_seconds(3, stall_us=stall_us)[-1:]
    times = {"sent_ns": S, "first_token_ns": 2 * S + 5, "end_ns": 3 * S, "gaps_us": []}
    streams = [attempt(stream=True, first_token_coalesced=number < late, **times) for number in range(100)]
    tokens = frame(*streams, attempt(stream=True, **times))
    found = validity.audit(
        tokens, audit_frame([*calm, *busy]), manifest(), scenario(arrivals=CLOSED["arrivals"])
    )
    (finding,) = [finding for finding in found if finding.name == "first tokens"]
    assert (finding.holds, finding.actual) == (holds, actual)
    assert finding.affects == ([] if holds else [Figure.TTFT])
    assert (finding.remedy is None) is holds


def test_run_without_known_first_tokens_has_no_finding_about_them() -> None:
    found = validity.audit(
        frame(attempt()), audit_frame(generator_seconds(9)), manifest(), scenario(arrivals=CLOSED["arrivals"])
    )
    assert "first tokens" not in [finding.name for finding in found]


def test_steal_fails_only_with_another_finding() -> None:
    assert broken(frame(attempt()), audit_frame(generator_seconds(60, steal_share=0.2))) == []
    stalled = audit_frame(generator_seconds(60, steal_share=0.2, stall_us=300_000))
    assert broken(frame(attempt()), stalled) == ["event loop, longest stall", "CPU time stolen"]


def test_late_sends_fail_the_schedule_delay() -> None:
    late = [attempt(call_id=f"c{i}", due_ns=0, sent_ns=S // 10) for i in range(2)]
    prompt = [attempt(call_id=f"p{i}") for i in range(98)]
    assert broken(frame(*prompt, *late)) == ["schedule delay, p99"]
    assert broken(frame(*prompt, late[0], attempt(call_id="q"))) == []


def test_connection_time_is_no_schedule_delay() -> None:
    ms = S // 1000
    slow = [
        attempt(call_id=str(n), due_ns=n * S, sent_ns=n * S + 180 * ms, end_ns=20 * S, **took)
        for n, took in enumerate([{"connect_ns": 60 * ms, "tls_ns": 110 * ms}, {"connect_ns": 170 * ms}] * 5)
    ]
    assert broken(frame(*slow)) == []


def test_requests_that_were_sent_again_are_not_late() -> None:
    again = [
        attempt(call_id=str(n), due_ns=n * S, sent_ns=n * S + S // 2, end_ns=20 * S, notes=notes)
        for n, notes in enumerate(["sent_again", "sent_again,missing_done"] * 5)
    ]
    assert broken(frame(*again)) == []
    late = attempt(call_id="late", due_ns=0, sent_ns=S // 2, notes="missing_done")
    assert broken(frame(*again, late)) == ["schedule delay, p99"]


def test_waiting_for_the_answer_before_it_in_a_session_is_no_schedule_delay() -> None:
    held = {"due_ns": 0, "held_until_ns": S, "end_ns": 20 * S}
    waited = [attempt(call_id=str(n), sent_ns=S + S // 100, **held) for n in range(10)]
    assert broken(frame(*waited)) == []
    assert frame(*waited)["schedule_delay_ms"].tolist() == [1010.0] * 10
    assert broken(frame(*waited, attempt(call_id="late", sent_ns=2 * S, **held))) == ["schedule delay, p99"]


def test_unread_responses_fail_the_observer_lag() -> None:
    assert broken(frame(attempt(observer_lag_us=300_000))) == ["observer lag, p99"]


def test_user_timestamps_need_short_stalls() -> None:
    ours = frame(attempt(stamp=Stamp.USER))
    assert broken(ours) == []
    assert broken(ours, audit_frame(generator_seconds(60, stall_us=30_000))) == ["arrival stamps"]
    kernels = frame(attempt(stamp=Stamp.KERNEL))
    assert broken(kernels, audit_frame(generator_seconds(60, stall_us=30_000))) == []


@pytest.mark.parametrize("kind", ["constant", "poisson", "trace"])
def test_open_loop_must_send_95_percent_of_the_calls_due(kind: str) -> None:
    open_loop = manifest(resolved=CLOSED | {"arrivals": {"kind": kind}}, planned_calls=100)
    sent = [attempt(call_id=f"c{i}") for i in range(95)]
    assert broken(frame(*sent), about=open_loop) == []
    assert broken(frame(*sent[1:]), about=open_loop) == ["achieved rate"]
    # Retries and calls that were cancelled before they were sent don't count.
    again = attempt(call_id="c0", attempt=1)
    cancelled = unconnected("u", outcome=Outcome.CANCELLED)
    assert broken(frame(*sent[1:], again, cancelled), about=open_loop) == ["achieved rate"]
    held = msgspec.structs.replace(cancelled, held_until_ns=S)  # it waited for the answer before it
    assert broken(frame(*sent[1:], held), about=open_loop) == []
    # Nor do calls count that were due while pacing held others, and then had no user.
    seconds = audit_frame([*generator_seconds(59), *generator_seconds(1, paced=2)])
    assert broken(frame(*sent[1:]), seconds, about=open_loop) == []


def unconnected(call_id: str, error_type: str = "connection_refused", **fields: Any) -> Attempt:
    about: dict[str, Any] = {"outcome": Outcome.TRANSPORT_ERROR, "error_type": error_type}
    return attempt(call_id=call_id, sent_ns=None, headers_ns=None, status=None, **(about | fields))


def test_refused_connections_are_not_held_against_the_generator() -> None:
    about = manifest(resolved=CLOSED, planned_calls=100)
    sent = [attempt(call_id=f"c{i}") for i in range(40)]
    refused = [unconnected(f"u{i}") for i in range(55)]
    assert broken(frame(*sent, *refused), about=about) == []
    assert broken(frame(*sent, *refused[1:]), about=about) == ["achieved rate"]


def test_connections_that_this_machine_cannot_open_are_its_own_fault() -> None:
    about = manifest(resolved=CLOSED, planned_calls=100)
    sent = [attempt(call_id=f"c{i}") for i in range(99)]
    for attempts in ([*sent, unconnected("u", LOCAL)], [unconnected(f"u{i}", LOCAL) for i in range(100)]):
        finding = findings(frame(*attempts), about=about)["own connections"]
        assert finding.remedy == validity.FEWER_CONNECTIONS


@pytest.mark.parametrize(
    ("stuck", "remedy"),
    [
        ({"outcome": Outcome.TIMEOUT, "status": None, "headers_ns": None}, validity.CHECK_SERVER),
        ({}, validity.MORE_USERS),
    ],
)
def test_remedy_for_busy_users_depends_on_whether_the_server_responds(
    stuck: dict[str, Any], remedy: str
) -> None:
    about = manifest(planned_calls=100)
    attempts = [attempt(call_id=f"c{i}", end_ns=i * S + 30 * S, **stuck) for i in range(10)]
    generator = audit_frame(generator_seconds(90, never_sent=1))
    found = findings(frame(*attempts), generator, about, about.resolved["arrivals"])
    assert {found[name].remedy for name in ("achieved rate", "free users")} == {remedy}


def test_short_schedule_can_lack_one_call() -> None:
    few = manifest(resolved=CLOSED, planned_calls=3)
    sent = [attempt(call_id=f"c{i}") for i in range(2)]
    assert broken(frame(*sent), about=few) == []
    assert broken(frame(*sent[1:]), about=few) == ["achieved rate"]
    nothing_due = manifest(resolved=CLOSED, planned_calls=0)
    assert broken(frame(*sent), about=nothing_due) == []


def test_killed_run_and_empty_run_are_invalid() -> None:
    assert broken(frame(attempt()), about=manifest(resolved=CLOSED, ended_ns=None, ended=None)) == [
        "end of the run"
    ]
    assert broken(frame(), audit_frame([])) == ["attempts", "self-audit"]


def analysis(*attempts: Attempt, checks: dict[str, Any] | None = None) -> Analysis:
    about = manifest(resolved=CLOSED | {"checks": checks or {}})
    return analyze(table(*attempts), audit_table(generator_seconds(10)), about)


def test_every_metric_of_a_check_has_a_value() -> None:
    run = analysis(
        *(
            attempt(
                call_id=f"c{i}",
                stream=True,
                first_token_ns=S // 4,
                last_token_ns=S // 2,
                gaps_us=[250_000],
                completion_tokens=2,
                tool_calls=1,
                json_valid=True,
                schema_valid=False,
            )
            for i in range(1000)
        )
    )
    assert {name: metric(run, name)[0] for name in METRICS if metric(run, name)[0] is None} == {}


def test_metrics_of_a_small_run() -> None:
    run = analysis(
        *(attempt(call_id=f"c{i}", sent_ns=i * S, prompt_tokens=10, completion_tokens=5) for i in range(3)),
        attempt(call_id="r", outcome=Outcome.RATE_LIMITED, status=429),
        attempt(call_id="e", outcome=Outcome.SERVER_ERROR, status=500),
    )
    values = {
        "attempts.count": 5,
        "accepted.rpm": 3,
        "refused.share": 0.2,
        "errors.count": 1,
        "calls.ok_share": 0.6,
        "tpm.total": 45,
        "in_flight.max": 3,
        "latency.max": 1000,
        "audit.valid": 1,
    }
    assert {name: metric(run, name)[0] for name in values} == values


def test_checks_have_result_and_margin() -> None:
    run = analysis(
        *(attempt(call_id=f"c{i}") for i in range(20)),
        checks={
            "latency.p50": "< 800 ms",
            "accepted.count": ">= 15",
            "audit.valid": True,
            "errors.count": "== 0",
        },
    )
    slow, enough, valid, none = evaluate(run)
    assert (slow.bound, valid.bound) == (slow.target, "true")
    assert (slow.passed, slow.actual, slow.margin) == (False, 1000.0, -200.0)
    assert (enough.passed, enough.margin) == (True, 5.0)
    assert (valid.passed, valid.margin) == (True, None)
    assert none.passed


def test_check_without_a_value_is_not_decided_and_has_a_note() -> None:
    few = evaluate(analysis(attempt(), checks={"latency.p99": "< 9 s"}))[0]
    assert (few.passed, few.verdict, few.actual) == (False, RunVerdict.NOT_DECIDED, None)
    assert few.note == "n too small: 1 of the 1,000 that p99 needs"
    nothing = evaluate(analysis(checks={"refused.share": "<= 5%", "ttft.max": "< 1 s"}))
    assert [result.verdict for result in nothing] == [RunVerdict.NOT_DECIDED] * 2
    assert all(result.note for result in nothing)


def test_short_stall_affects_call_latency_only() -> None:
    # A stall of 280 ms at two requests per second condemned the limits and the refusals.
    calls = [attempt(call_id=f"c{n}", due_ns=n * S // 2, sent_ns=n * S // 2) for n in range(120)]
    seconds = generator_seconds(60)
    seconds[30] = generator_seconds(31, stall_us=280_000)[30]
    stalled = audit_frame(seconds)
    (finding,) = findings(frame(*calls), stalled).values()
    assert affected([finding]) == [Figure.CALL_LATENCY]
    assert stamp(affected([finding])) == "INVALID: TIMING"
    assert sentence(affected([finding])) == (
        "Affected: call latency. Not affected: TTFT, ITL and TPOT, attempt latency, rates, limits."
    )
    ours = [attempt(due_ns=59 * S, sent_ns=59 * S, end_ns=60 * S, stamp=Stamp.USER)]
    assert Figure.TTFT in findings(frame(*ours), stalled)["event loop, longest stall"].affects


@pytest.mark.parametrize(("stall_us", "shapes"), [(300_000, True), (240_000, False)])
def test_stalls_of_more_than_5_percent_of_the_run_affect_rates(stall_us: int, shapes: bool) -> None:
    found = findings(
        frame(attempt(sent_ns=59 * S, end_ns=60 * S)), audit_frame(generator_seconds(60, stall_us=stall_us))
    )
    assert (Figure.RATES in affected(found.values())) == shapes


def test_every_finding_that_fails_affects_a_figure() -> None:
    busy = audit_frame(generator_seconds(60, stall_us=300_000, cpu_share=1.0, steal_share=0.5, never_sent=1))
    late = attempt(due_ns=0, sent_ns=S, observer_lag_us=300_000, stamp=Stamp.USER)
    lost = [UnfinishedWorker(name="w1", reason="was killed")]
    about = manifest(planned_calls=9, ended_ns=None, ended=None, workers=2, unfinished_workers=lost)
    found = findings(frame(late, unconnected("u", LOCAL)), busy, about, about.resolved["arrivals"])
    assert len(found) == 11
    assert all(finding.affects for finding in found.values())
    assert stamp(affected(found.values())) == "INVALID"


def test_check_on_an_affected_figure_is_invalid_if_it_passes_and_fails_if_not() -> None:
    checks = {
        "latency.max": "< 9 s",
        "latency.p50": "< 1 ms",
        "attempts.count": ">= 1",
        "schedule_delay.max": "< 9 s",
        "goodput.share": ">= 1%",
    }
    about = manifest(resolved=CLOSED | {"checks": checks, "objectives": {"latency_ms": 9000}})
    calls = [attempt(call_id=f"c{n}", sent_ns=n * S, due_ns=n * S, end_ns=n * S + S) for n in range(20)]
    seconds = generator_seconds(60)
    seconds[3] = generator_seconds(4, stall_us=280_000)[3]
    found = evaluate(analyze(table(*calls), audit_table(seconds), about))
    assert [result.verdict.value for result in found] == ["invalid", "fail", "pass", "pass", "invalid"]
    assert found[0].note == "this figure is INVALID"


def test_calls_that_the_end_of_the_run_cut_off_are_no_failures() -> None:
    done = attempt(call_id="done")
    in_flight = attempt(call_id="cut", outcome=Outcome.CANCELLED, status=None, headers_ns=None)
    waiting = attempt(call_id="waits", outcome=Outcome.RATE_LIMITED, status=429, waited_s=5.0)
    run = analysis(done, in_flight, waiting, checks={"calls.ok_share": ">= 100%", "goodput.share": ">= 100%"})
    assert [result.verdict for result in evaluate(run)] == [RunVerdict.PASS, RunVerdict.PASS]
    assert (run.retries.gave_up, run.retries.waited_s) == (0, 0.0)
    assert analysis(in_flight).failure is None
    gave_up = attempt(call_id="gave up", outcome=Outcome.RATE_LIMITED, status=429)
    assert metric(analysis(done, in_flight, gave_up), "calls.ok_share")[0] == 0.5
