"""Replay of recorded traces with their times, lengths, and shared prefixes."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support_locust import Finished
from support_workloads import TRACES, arrivals, pace, play, refused, scheduled

from bltybench.sandbox.truth import TruthRow

BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,s1,9.7,ChatGPT,472,400,872,Conversation log
5,,1.2,GPT-4,87,23,110,API log
6,s1,0.5,ChatGPT,417,0,417,Conversation log
9,s2,1.3,ChatGPT,1087,9,1096,Conversation log
"""


def recorded(name: str, folder: Path) -> None:
    """Copy a recorded trace next to the scenario."""
    source = TRACES / name
    if not source.is_file():
        pytest.skip(f"no recorded trace at {source}")
    shutil.copy(source, folder / "trace")


def replay(folder: Path, keys: str, duration_s: float) -> tuple[Finished, dict[str, TruthRow]]:
    text = f'kind = "trace", file = "trace", {keys}'
    return play(folder, f"duration_s = {duration_s}\nusers = 200\narrivals = {{ {text} }}\n")


def as_recorded(done: Finished, truth: dict[str, TruthRow]) -> list[dict[str, Any]]:
    """Check times and lengths, as recorded and at the sandbox. Return the attempts."""
    arrivals_due = scheduled(done)
    attempts = sorted(done.attempts, key=lambda row: row["due_ns"])
    assert Counter((row["due_ns"], row["wanted_prompt_tokens"], row["max_tokens"]) for row in attempts) == (
        Counter((round(a.at_s * 1e9), a.prompt_tokens, a.max_tokens) for a in arrivals_due)
    )
    assert truth.keys() == {row["request_id"] for row in attempts}
    for row in attempts:
        true = truth[row["request_id"]]
        assert true.prompt_tokens == row["wanted_prompt_tokens"] == row["prompt_tokens"]
        assert true.completion_tokens == row["max_tokens"] == row["completion_tokens"]
    return attempts


def test_azure_trace_is_replayed_as_recorded(tmp_path: Path) -> None:
    recorded("azure-llm-2023-conv.csv", tmp_path)
    done, truth = replay(tmp_path, "speed = 3, start_s = 720", 4)
    attempts = as_recorded(done, truth)
    # Compared with the file itself, too: everything recorded in these twelve seconds, and nothing else.
    rows = [line.split(",") for line in (tmp_path / "trace").read_text().splitlines()[1:]]
    times = [datetime.fromisoformat(stamp[:26]) for stamp, _, _ in rows]
    part = [
        ((time - times[0]).total_seconds() - 720, int(context), int(generated))
        for time, (_, context, generated) in zip(times, rows, strict=True)
        if 720 <= (time - times[0]).total_seconds() < 732
    ]
    assert len(attempts) == len(part) > 30
    for row, (at_s, context, generated) in zip(attempts, part, strict=True):
        assert row["due_ns"] / 1e9 == pytest.approx(at_s / 3, abs=1e-6)
        assert (row["prompt_tokens"], row["max_tokens"]) == (context, generated)
    start_ns = done.run.manifest().clock.monotonic_ns
    received_ns = {name: row.received_ns - start_ns for name, row in truth.items()}
    assert pace(attempts, received_ns) == pytest.approx(1.0, abs=0.005)


def test_mooncake_trace_is_replayed_with_its_prefixes(tmp_path: Path) -> None:
    recorded("mooncake-conversation.jsonl", tmp_path)
    attempts = as_recorded(*replay(tmp_path, "speed = 4, scale = 0.5, start_s = 60, time_unit = 'ms'", 5))
    assert len(attempts) > 10


def test_burstgpt_trace_is_replayed_as_recorded_and_its_sessions_one_call_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(BURSTGPT)
    attempts = as_recorded(*replay(tmp_path, "speed = 4", 2))
    # Either of the two that are due together can end first.
    replayed = sorted((row["due_ns"], row["wanted_prompt_tokens"], row["max_tokens"]) for row in attempts)
    assert replayed == [
        (0, 87, 23),
        (0, 472, 400),
        (250_000_000, 417, 1),
        (1_000_000_000, 1087, 9),
    ]
    first, second = (
        next(row for row in attempts if row["wanted_prompt_tokens"] == tokens) for tokens in (472, 417)
    )
    assert second["due_ns"] < first["end_ns"] <= second["held_until_ns"] <= second["sent_ns"]
    assert [row["held_until_ns"] for row in attempts].count(None) == 3


def test_malformed_trace_is_refused(tmp_path: Path) -> None:
    # unit/test_scenario_arrivals and unit/test_scenario_traces test the other errors in traces.
    text = '{"at_s": 0, "prompt_tokens": 9, "max_tokens": 2}\n{"at_s": -1}\n'
    (tmp_path / "trace.jsonl").write_text(text)
    assert "trace.jsonl:2" in refused(tmp_path, arrivals('kind = "trace", file = "trace.jsonl"'))
