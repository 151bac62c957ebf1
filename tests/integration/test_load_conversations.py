"""Conversations of several turns: their history, their latencies, and what a turn that fails does to them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support_locust import Finished
from support_workloads import play, summary

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
    done, truth = play(tmp_path, CLOSED, mix=TALK)
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
    done, _ = play(tmp_path, CLOSED, mix=TALK, error_rate=0.5)
    talks = conversations(done)
    failed = [turns for turns in talks if turns[-1]["outcome"] == "server_error"]
    assert failed
    assert all(row["outcome"] == "ok" for turns in talks for row in turns[:-1])
    assert any(row["attempt"] == 1 and row["outcome"] == "ok" for turns in talks for row in turns)
    for turns in failed:
        last = turns[-1]
        left_s = DURATION_S - last["end_ns"] / 1e9
        # It was tried twice, but where the second try would have come after the run's time.
        assert last["attempt"] == 1 or left_s < (last["waited_s"] or 0.0) + 0.25
        # The user goes on with another conversation, but where the run's time is over.
        later = [one for one in talks if one[0]["user"] == last["user"] and one[0]["due_ns"] > last["due_ns"]]
        assert later or left_s < 0.1 + 0.25
