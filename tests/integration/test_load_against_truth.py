"""A run's records compared with the sandbox's own log, row by row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support_locust import LOCUSTFILES, OPEN, Finished, event_times_ns, run_locust, truth_of, write_scenarios
from support_sandbox import running_sandbox

from bltybench.runs.store import read_generator
from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.api.routes import Choices, Router
from bltybench.scenario.target import SANDBOX_KEY, SANDBOX_SECOND_KEY, RateLimit, SandboxLimits

ROUNDING_NS = 1_000
"""Maximum rounding error of a time that is summed from gaps, in ns."""

LIMITS = SandboxLimits(requests=RateLimit(limit=12, period_s=1.5), tokens=None, concurrency=50)


def check_against_truth(done: Finished, log: Path) -> Counter[str]:
    """Compare all rows. Return the number of rows by outcome."""
    start_ns = done.run.manifest().clock.monotonic_ns
    truth = truth_of(log)
    attempts = done.attempts
    sent = [row for row in attempts if row["sent_ns"] is not None]
    assert len(sent) == len(attempts) == len(truth)
    answered = [row for row in attempts if row["outcome"] != "cancelled"]
    assert {row["request_id"] for row in answered} <= truth.keys()
    lateness_us = [late for row in answered for late in check_row(row, truth[row["request_id"]], start_ns)]
    if lateness_us:
        lateness_us.sort()
        print(
            f"{len(lateness_us)} events, timestamped after they were written by "
            f"p50 {lateness_us[len(lateness_us) // 2]:.0f} max {lateness_us[-1]:.0f} us"
        )
    return Counter(row["outcome"] for row in attempts)


def check_row(row: dict[str, Any], true: TruthRow, start_ns: int) -> list[float]:
    """Compare one row. Return the microseconds from writing each event to its timestamp."""
    assert row["status"] == true.status
    assert row["stream"] == true.stream
    assert row["model"] == true.model
    assert start_ns + row["sent_ns"] <= true.received_ns
    expected = {200: "ok", 429: "rate_limited"}
    assert row["outcome"] == expected[row["status"]], row
    assert (true.decision == "accepted") == (row["outcome"] == "ok")
    if row["outcome"] != "ok":
        assert row["retry_after_s"] > 0
        assert row["completion_tokens"] is None
        return []
    assert row["tokens_source"] == "usage"
    assert (row["prompt_tokens"], row["completion_tokens"]) == (true.prompt_tokens, true.completion_tokens)
    if not row["stream"]:
        assert row["first_token_ns"] is None
        return []
    arrived = event_times_ns(row, start_ns)
    assert len(arrived) == len(true.event_ns) == true.completion_tokens
    late_ns = [ours - theirs for ours, theirs in zip(arrived, true.event_ns, strict=True)]
    assert min(late_ns) >= -ROUNDING_NS
    return [late / 1000 for late in late_ns]


def check_seconds(done: Finished) -> None:
    """Check that every second of the generator was recorded, and that its counts match the attempts."""
    seconds = read_generator(done.run).to_pylist()
    assert len(seconds) >= 4
    assert sum(row["sent"] for row in seconds) == len(done.attempts) == 60
    assert sum(row["bytes_received"] for row in seconds) == sum(
        row["bytes_received"] for row in done.attempts
    )
    assert all(row["users"] <= 40 for row in seconds)


@pytest.mark.parametrize(
    ("locustfile", "scenario", "args"),
    [
        ("chat.py", "", ()),
        ("stream.py", "", ()),
        ("mixed.py", OPEN, ()),
        ("own.py", "", ("-u", "4", "-r", "4", "-t", "4s")),
    ],
)
def test_every_row_matches_the_sandbox_log(
    tmp_path: Path, locustfile: str, scenario: str, args: tuple[str, ...]
) -> None:
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log, limits=LIMITS) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, scenario)
        done = run_locust(LOCUSTFILES / locustfile, *args, cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 0, done.output
    outcomes = check_against_truth(done, log)
    assert outcomes["ok"] > 0
    assert set(outcomes) <= {"ok", "rate_limited"}
    if scenario == OPEN:
        assert outcomes["rate_limited"] > 0
        assert outcomes.total() == 60
        check_seconds(done)
    streams = {row["stream"] for row in done.attempts}
    assert streams == {"chat.py": {False}, "stream.py": {True}}.get(locustfile, {False, True})


ONE = 'model = "deepseek-chat"\ntarget = "here"'
SEVERAL = 'models = { "deepseek-chat" = 3, gpt-4o-mini = 1 }\ntargets = ["here", "there"]'


def test_two_workers_share_one_schedule_with_keys_models_and_targets(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    keys = {"FIRST_KEY": SANDBOX_KEY, "SECOND_KEY": SANDBOX_SECOND_KEY}
    with running_sandbox(log, limits=LIMITS) as sandbox:
        there = f'[targets.there]\nbase_url = "{sandbox.base_url}"\napi_key_env = "SECOND_KEY"\n'
        path = write_scenarios(
            tmp_path, sandbox.base_url, f"{OPEN}retry = {{ fallback = true }}", target=there
        )
        text = path.read_text().replace(ONE, SEVERAL)
        path.write_text(
            text.replace('api_key_env = "BLTYBENCH_TEST_KEY"', 'keys = ["FIRST_KEY", "SECOND_KEY"]')
        )
        done = run_locust(LOCUSTFILES / "mixed.py", "--processes", "2", cwd=tmp_path, **keys)
    assert done.code == 0, done.output
    assert "Target 'here': Sends about 30 requests" in done.output
    assert "Preflight of target 'there': the API accepts the key and lists the models" in done.output
    assert check_against_truth(done, log)["rate_limited"] > 0
    calls: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(done.attempts, key=lambda row: row["attempt"]):
        calls.setdefault(row["call_id"], []).append(row)
    assert Counter(rows[0]["worker"] for rows in calls.values()) == {"w0": 30, "w1": 30}
    due_ns = {round(index * 60 / 900 * 1e9): index for index in range(60)}
    assert {rows[0]["due_ns"] for rows in calls.values()} == due_ns.keys()
    # The routes depend on the seed only, so anyone can name them.
    router = Router(1, {"here": {"FIRST_KEY": 1, "SECOND_KEY": 1}, "there": {"SECOND_KEY": 1}}, fallback=True)
    choices = Choices({"here": 1, "there": 1}, {"deepseek-chat": 3, "gpt-4o-mini": 1})
    truth, names = truth_of(log), {"FIRST_KEY": "public", "SECOND_KEY": "second"}
    for rows in calls.values():
        routes = router.routes(choices, str(due_ns[rows[0]["due_ns"]]))
        sent = [(row["target"], row["key"], row["requested_model"]) for row in rows]
        assert sent == routes[: len(rows)]
        assert len(rows) == len(routes) or rows[-1]["outcome"] == "ok"
        assert [row["waited_s"] for row in rows] == [0.0] * (len(rows) - 1) + [None]
        assert [truth[row["request_id"]].key for row in rows] == [names[row["key"]] for row in rows]
    files = [path for path in done.run.path.rglob("*") if path.is_file()]
    texts = [done.output.encode(), *(path.read_bytes() for path in files)]
    assert not [text for text in texts for key in keys.values() if key.encode() in text]
