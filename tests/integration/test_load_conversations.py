"""Conversations of several turns: their history, their timing, and failed turns."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support_locust import LOCUSTFILES, Finished, run_locust, write_scenarios
from support_sandbox import running_sandbox
from support_workloads import play, summary

from bltybench.scenario.prompts.conversations import MAX_CHECKED_BYTES
from bltybench.scenario.target import SANDBOX_KEY

DURATION_S = 4.0

CLOSED = f"""
duration_s = {DURATION_S}
users = 3
arrivals = {{ kind = "closed", think_s = 0.1 }}
retry = {{ policy = "backoff", max_attempts = 2, base_s = 0.02 }}
"""

TALK = """
name = "talk"
stream = true
max_tokens = { kind = "uniform", min = 5, max = 20 }
turns = { min = 2, max = 4, tokens = { kind = "fixed", tokens = 30 }, think_s = 0.05 }
"""


def conversations(done: Finished) -> list[list[dict[str, Any]]]:
    """Return the last attempts of the calls of each conversation, in order."""
    last: dict[str, dict[str, Any]] = {}
    for row in sorted(done.attempts, key=lambda row: (row["call_id"], row["attempt"])):
        last[row["call_id"]] = row
    talks: list[list[dict[str, Any]]] = []
    open_by_user: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(last.values(), key=lambda row: row["due_ns"]):
        if row["turn"] == 1:
            open_by_user[row["user"]] = []
            talks.append(open_by_user[row["user"]])
        open_by_user[row["user"]].append(row)
    return talks


def test_conversation_contains_the_actual_completions(tmp_path: Path) -> None:
    done, truth = play(tmp_path, CLOSED, mix=TALK)
    talks = conversations(done)
    assert len(talks) > 5
    for turns in talks:
        assert [row["turn"] for row in turns] == list(range(1, len(turns) + 1))
        assert len(turns) <= 4
        for before, after in pairwise(turns):
            # The previous turn, its completion with framing of 3, a marker, and the next question.
            length = truth[after["request_id"]].prompt_tokens
            assert length == after["wanted_prompt_tokens"]
            expected = before["prompt_tokens"] + before["completion_tokens"] + 3 + 1 + 30
            assert length == pytest.approx(expected, abs=3)
            assert after["due_ns"] - before["end_ns"] >= 50e6
    assert {len(turns) for turns in talks} >= {2, 3}
    by_turn = [row for row in summary(done)["timings_by"] if row["by"] == "turn" and row["metric"] == "ttft"]
    assert [row["value"] for row in by_turn] == ["1", "2", "3", "4"]


def test_failed_turn_ends_its_conversation_but_not_its_user(tmp_path: Path) -> None:
    done, _ = play(tmp_path, CLOSED, mix=TALK, error_rate=0.5)
    talks = conversations(done)
    failed = [turns for turns in talks if turns[-1]["outcome"] == "server_error"]
    assert failed
    assert all(row["outcome"] == "ok" for turns in talks for row in turns[:-1])
    assert any(row["attempt"] == 1 and row["outcome"] == "ok" for turns in talks for row in turns)
    for turns in failed:
        last = turns[-1]
        left_s = DURATION_S - last["end_ns"] / 1e9
        # It was retried, unless the retry would have come after the run's time.
        assert last["attempt"] == 1 or left_s < (last["waited_s"] or 0.0) + 0.25
        # The user continues with another conversation, unless the run's time is over.
        first_turns = [turns[0] for turns in talks if turns[0]["user"] == last["user"]]
        assert any(turn["due_ns"] > last["due_ns"] for turn in first_turns) or left_s < 0.1 + 0.25


def test_run_ends_at_an_invalid_line_that_is_too_far_behind_in_its_file_to_be_validated_in_advance(
    tmp_path: Path,
) -> None:
    lines = ['{"messages": [{"role": "user", "content": "Hello"}]}'] * 3000
    lines[5] = '{"messages": [{"role": "user", "content": "This line has no end.'
    (tmp_path / "bodies.jsonl").write_text("\n".join([lines[0], " " * MAX_CHECKED_BYTES, *lines]))
    with running_sandbox() as sandbox:
        path = write_scenarios(tmp_path, sandbox.base_url, CLOSED)
        mix = '[[scenarios.quickstart.mix]]\nname = "recorded"\nrequests = { file = "bodies.jsonl" }\n'
        text = path.read_text()
        path.write_text(text[: text.index("[[scenarios.quickstart.mix]]")] + mix)
        done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 2, done.output
    assert f"{tmp_path / 'bodies.jsonl'}:8: not valid JSON" in done.output
    assert "Traceback" not in done.output
    assert {row["outcome"] for row in done.attempts} <= {"ok", "cancelled"}
