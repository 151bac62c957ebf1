"""Workloads as they were asked for, as the sandbox saw them: arrivals, traces, ceilings, budgets, turns."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support_locust import LOCUSTFILES, REPO, Finished, run_locust, truth_of, write_scenarios
from support_sandbox import running_sandbox

from bltybench.sandbox.truth import Row
from bltybench.scenario.arrivals import schedule
from bltybench.scenario.target import SANDBOX_KEY, Delay
from bltybench.scenario.workload import Scenario

TRACES = REPO.parent / "shared" / "traces"


def play(
    tmp_path: Path,
    scenario: str,
    *args: str,
    target: str = "",
    code: int = 0,
    locustfile: str = "mixed.py",
    **sandbox: Any,
) -> tuple[Finished, dict[str, Row]]:
    """Run a scenario against a sandbox; return what it left and what the sandbox saw."""
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log, **sandbox) as running:
        write_scenarios(tmp_path, running.base_url, scenario, target=target)
        done = run_locust(LOCUSTFILES / locustfile, *args, cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == code, done.output
    assert "Traceback" not in done.output
    return done, truth_of(log)


def summary(done: Finished) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(done.run.summary_json.read_bytes())
    return found


def arrivals(text: str, duration_s: float = 5) -> str:
    return f"duration_s = {duration_s}\nusers = 60\narrivals = {{ {text} }}\n"


def as_scheduled(done: Finished, truth: dict[str, Row]) -> list[dict[str, Any]]:
    """Check that the sandbox saw the schedule, the whole of it and at its rate; return the attempts."""
    scenario = Scenario.model_validate(done.run.manifest().resolved)
    wanted = list(schedule(scenario.arrivals, scenario.duration_s, scenario.seed, done.reports.parent))
    attempts = sorted(done.attempts, key=lambda row: row["due_ns"])
    assert [row["due_ns"] for row in attempts] == [round(arrival.at_s * 1e9) for arrival in wanted]
    assert [row["stage"] for row in attempts] == [arrival.stage for arrival in wanted]
    assert len(truth) == len(wanted) > 30
    start_ns = done.run.manifest().clock.monotonic_ns
    seen_s = sorted((row.received_ns - start_ns) / 1e9 for row in truth.values())
    # The same number in the same time to half a percent: the rate that was asked for. What a busy machine
    # sent late it says itself; that much the sandbox may see it later.
    span_s = wanted[-1].at_s - wanted[0].at_s
    late_s = max(row["sent_ns"] - row["due_ns"] for row in attempts) / 1e9
    assert seen_s[-1] - seen_s[0] == pytest.approx(span_s, abs=0.005 * span_s + late_s)
    assert summary(done)["timings_ms"]["schedule_delay"]["n"] == len(wanted)
    return attempts


@pytest.mark.parametrize(
    "text",
    [
        'kind = "gamma", rate_per_min = 1200, burstiness = 2.0',
        'kind = "ramp", from_per_min = 300, to_per_min = 1800, spacing = "poisson"',
        'kind = "stairs", rates_per_min = [600, 1200], spacing = "poisson"',
        'kind = "stairs", rates_per_min = [90000, 60000], unit = "tokens"',
        'kind = "bursts", size = 10, every_s = 0.75, spread_s = 0.1',
    ],
)
def test_the_sandbox_sees_the_schedule(tmp_path: Path, text: str) -> None:
    as_scheduled(*play(tmp_path, arrivals(text)))


def test_workers_together_make_the_stairs(tmp_path: Path) -> None:
    text = 'kind = "stairs", rates_per_min = [600, 1200, 300], spacing = "poisson"'
    done, truth = play(tmp_path, arrivals(text), "--processes", "2")
    attempts = as_scheduled(done, truth)
    by_worker = Counter(row["worker"] for row in attempts)
    assert abs(by_worker["w0"] - by_worker["w1"]) <= 1


def test_hitting_the_ceiling_of_users_is_reported(tmp_path: Path) -> None:
    scenario = 'duration_s = 4\nusers = 2\narrivals = { kind = "constant", rate_per_min = 1200 }\n'
    slow = Delay(median_ms=400, p95_ms=400)
    done, truth = play(tmp_path, scenario, "--stop-timeout", "2", ttft=slow)
    found = summary(done)
    (finding,) = [one for one in found["audit"] if one["name"] == "free users"]
    assert not finding["holds"]
    assert not found["valid"]
    # All but the first two were due while both users waited for an answer; the second may have waited for
    # its user to be made.
    sent = len(done.attempts)
    assert len(truth) == sent < 80
    assert finding["actual"] in {
        f"{waited} arrivals found none, {80 - sent} were never sent" for waited in (sent - 2, sent - 1)
    }


def test_a_mooncake_trace_is_replayed_with_its_prefixes(tmp_path: Path) -> None:
    source = TRACES / "mooncake-conversation.jsonl"
    if not source.is_file():
        pytest.skip(f"the recorded trace is not here: {source}")
    shutil.copy(source, tmp_path / "trace.jsonl")
    text = 'kind = "trace", file = "trace.jsonl", speed = 4, scale = 0.5, start_s = 60'
    done, truth = play(tmp_path, f"duration_s = 6\nusers = 200\narrivals = {{ {text} }}\n")
    attempts = as_scheduled_trace(done)
    assert len(truth) == len(attempts)
    by_id = {row["request_id"]: row for row in attempts}
    for request_id, true in truth.items():
        row = by_id[request_id]
        assert true.prompt_tokens == row["wanted_prompt_tokens"] == row["prompt_tokens"]


def as_scheduled_trace(done: Finished) -> list[dict[str, Any]]:
    scenario = Scenario.model_validate(done.run.manifest().resolved)
    wanted = list(schedule(scenario.arrivals, scenario.duration_s, scenario.seed, done.reports.parent))
    attempts = sorted(done.attempts, key=lambda row: (row["due_ns"], int(row["call_id"].split("-")[1])))
    assert [row["due_ns"] for row in attempts] == [round(arrival.at_s * 1e9) for arrival in wanted]
    assert Counter((row["due_ns"], row["wanted_prompt_tokens"], row["max_tokens"]) for row in attempts) == (
        Counter((round(a.at_s * 1e9), a.prompt_tokens, a.max_tokens) for a in wanted)
    )
    assert wanted
    return attempts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"at_s": 0, "prompt_tokens": 9, "max_tokens": 2}\n{"at_s": -1}\n', "trace.jsonl:2"),
        ("", "is empty"),
    ],
)
def test_a_malformed_trace_does_not_start(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "trace.jsonl").write_text(text)
    scenario = arrivals('kind = "trace", file = "trace.jsonl"')
    write_scenarios(tmp_path, "http://127.0.0.1:9/v1", scenario)
    done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output
    assert not done.reports.exists()


PRICED = """
[targets.here.prices."deepseek-chat"]
input_per_million = 2.0
output_per_million = 8.0
[targets.here.budget]
money = 0.02
"""

CLOSED_LONG = """
duration_s = 30
users = 6
arrivals = { kind = "closed" }
"""


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_a_cap_on_money_is_never_passed(tmp_path: Path, processes: tuple[str, ...]) -> None:
    done, truth = play(tmp_path, CLOSED_LONG, *processes, target=PRICED)
    assert done.run.manifest().ended == "budget"
    spent = sum(
        (row.prompt_tokens or 0) * 2e-6 + (row.completion_tokens or 0) * 8e-6 for row in truth.values()
    )
    # A request reserves at most 64 prompt and 30 answer tokens: so much may be left over.
    most = (64 * 2e-6 + 30 * 8e-6) * (6 + len(processes))
    assert 0.02 - most <= spent <= 0.02
    assert "and at most" in done.output
    assert "This run may spend up to 0.02 of money" in done.output
    assert len(truth) == len(done.attempts)


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_a_cap_on_tokens_is_never_passed(tmp_path: Path, processes: tuple[str, ...]) -> None:
    done, truth = play(
        tmp_path, CLOSED_LONG, *processes, target="[targets.here.budget]\ntokens = 4000\n", error_rate=0.2
    )
    assert done.run.manifest().ended == "budget"
    spent = sum(
        (row.prompt_tokens or 0) + (row.completion_tokens or 0)
        for row in truth.values()
        if row.decision == "accepted"
    )
    assert 4000 - 94 * (6 + len(processes)) <= spent <= 4000


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("[targets.here.budget]\nmoney = 1.0\n", "model 'deepseek-chat' has no price"),
        ("[targets.here.budget]\ntokens = 20\n", "20 tokens do not suffice for one request"),
        (PRICED.replace("0.02", "0.00002"), "does not suffice for one request, which costs about"),
    ],
)
def test_an_impossible_budget_is_refused(tmp_path: Path, target: str, said: str) -> None:
    write_scenarios(tmp_path, "http://127.0.0.1:9/v1", target=target)
    done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 2, done.output
    assert said in done.output
    assert not done.reports.exists()


def test_a_ladder_has_as_many_users_as_each_step_says(tmp_path: Path) -> None:
    scenario = 'duration_s = 6\nusers = 6\narrivals = { kind = "ladder", users = [1, 5, 2] }\n'
    done, truth = play(tmp_path, scenario, "--processes", "2")
    users: dict[str, set[int]] = {}
    for row in done.attempts:
        users.setdefault(row["stage"], set()).add(row["user"])
    assert {stage: len(found) for stage, found in users.items()} == {"1 user": 1, "5 users": 5, "2 users": 2}
    assert len(truth) == len(done.attempts)


def test_a_former_run_is_replayed_with_its_arrivals_lengths_and_mix(tmp_path: Path) -> None:
    former, _ = play(tmp_path, arrivals('kind = "poisson", rate_per_min = 600'))
    shutil.move(former.run.path, tmp_path / "former")
    (tmp_path / "truth.jsonl").unlink()
    text = 'duration_s = 3\nusers = 50\narrivals = { kind = "run", run = "former", speed = 2 }\n'
    done, truth = play(tmp_path, text)
    expected = sorted(
        (row["due_ns"], row["wanted_prompt_tokens"], row["max_tokens"], row["name"], row["stream"])
        for row in Finished(0, "", tmp_path).attempts
    )
    found = sorted(
        (row["due_ns"] * 2, row["wanted_prompt_tokens"], row["max_tokens"], row["name"], row["stream"])
        for row in done.attempts
    )
    assert len(found) == len(truth) == len(expected) > 30
    for new, old in zip(found, expected, strict=True):
        assert new[0] == pytest.approx(old[0], abs=2)
        assert new[1:] == old[1:]


def test_a_former_run_that_is_not_there(tmp_path: Path) -> None:
    write_scenarios(tmp_path, "http://127.0.0.1:9/v1", arrivals('kind = "run", run = "nowhere"'))
    done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 2, done.output
    assert "there is no run 'nowhere'" in done.output


def test_stages_have_rows_and_the_warm_up_is_in_none_of_them(tmp_path: Path) -> None:
    scenario = arrivals('kind = "stairs", rates_per_min = [300, 900]', 6) + "warm_up_s = 1\n"
    done, _ = play(tmp_path, scenario)
    found = summary(done)
    assert [row["stage"] for row in found["stages"]] == ["300/min", "900/min"]
    assert [row["calls"] for row in found["stages"]] == [10, 30]
    assert [row["offered_per_min"] for row in found["stages"]] == [300, 900]
    assert found["warm_up"] == {"seconds": 1.0, "first_calls": 0, "calls": 20, "attempts": 20}
    assert found["calls"] == 40
    assert found["lengths"][0]["within_2pct"] == 1.0
    assert "The warm-up, 20 calls" in done.run.report_html.read_text()


CONVERSATION = """
duration_s = 5
users = 3
arrivals = { kind = "closed", think_s = 0.1 }
retry = { policy = "backoff", max_attempts = 2, base_s = 0.02 }
[[scenarios.{name}.mix]]
name = "talk"
stream = true
max_tokens = { kind = "uniform", min = 5, max = 20 }
turns = { min = 2, max = 4, tokens = { kind = "fixed", tokens = 30 }, think_s = 0.05 }
"""


def talk(tmp_path: Path, **sandbox: Any) -> tuple[Finished, dict[str, Row]]:
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log, **sandbox) as running:
        (tmp_path / "scenarios.toml").write_text(
            'default_scenario = "talk"\n[targets.here]\n'
            f'base_url = "{running.base_url}"\napi_key_env = "BLTYBENCH_TEST_KEY"\n'
            '[scenarios.talk]\ntitle = "t"\nmodel = "deepseek-chat"\ntarget = "here"\n'
            + CONVERSATION.replace("{name}", "talk")
        )
        args = ("--scenario", "talk")
        done = run_locust(LOCUSTFILES / "mixed.py", *args, cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    return done, truth_of(log)


def conversations(done: Finished) -> list[list[dict[str, Any]]]:
    """The calls' last attempts, by user and conversation, in order."""
    last: dict[str, dict[str, Any]] = {}
    for row in sorted(done.attempts, key=lambda row: (row["call_id"], row["attempt"])):
        last[row["call_id"]] = row
    found: list[list[dict[str, Any]]] = []
    open_by_user: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(last.values(), key=lambda row: row["due_ns"]):
        if row["turn"] == 1:
            open_by_user[row["user"]] = []
            found.append(open_by_user[row["user"]])
        open_by_user[row["user"]].append(row)
    return found


def test_a_conversation_grows_by_the_real_answers(tmp_path: Path) -> None:
    done, truth = talk(tmp_path)
    talks = conversations(done)
    assert len(talks) > 5
    for turns in talks:
        assert [row["turn"] for row in turns] == list(range(1, len(turns) + 1))
        assert len(turns) <= 4
        for before, after in pairwise(turns):
            # What was said before, the answer with its framing of 3, a marker, and the next question.
            grown = truth[after["request_id"]].prompt_tokens
            assert grown == after["wanted_prompt_tokens"]
            asked = before["prompt_tokens"] + before["completion_tokens"] + 3 + 1 + 30
            assert grown == pytest.approx(asked, abs=3)
            assert after["due_ns"] - before["end_ns"] >= 50e6
    assert {len(turns) for turns in talks} >= {2, 3}
    by_turn = [row for row in summary(done)["timings_by"] if row["by"] == "turn" and row["metric"] == "ttft"]
    assert [row["value"] for row in by_turn] == ["1", "2", "3", "4"]


def test_a_turn_that_fails_ends_its_conversation_and_not_its_user(tmp_path: Path) -> None:
    done, _ = talk(tmp_path, error_rate=0.5)
    talks = conversations(done)
    failed = [turns for turns in talks if turns[-1]["outcome"] == "server_error"]
    assert failed
    # A failed turn was tried twice, and is the last of its conversation.
    for turns in talks:
        assert all(row["outcome"] == "ok" for row in turns[:-1])
    # But for those that the end of the run left no time for a second try.
    late_ns = (done.run.manifest().resolved["duration_s"] - 1) * 1e9
    assert all(turns[-1]["attempt"] == 1 or turns[-1]["end_ns"] > late_ns for turns in failed)
    assert any(row["attempt"] == 1 and row["outcome"] == "ok" for turns in talks for row in turns)
    users = {turns[0]["user"] for turns in failed}
    went_on = 0
    for user in users:
        own = [turns for turns in talks if turns[0]["user"] == user]
        # A failed conversation can also be the last that the run had time for.
        went_on += own.index(next(turns for turns in own if turns in failed)) < len(own) - 1
    assert went_on > 0
