"""A run converted to a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_runs import S, attempt, manifest

from bltybench.errors import UserError
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.folder import RunFolder, create_run
from bltybench.runs.replay import write_trace
from bltybench.runs.spool import Spool


def run_of(tmp_path: Path, *attempts: Attempt) -> RunFolder:
    folder = create_run(tmp_path, "made")
    folder.write_manifest(manifest())
    spool = Spool(folder.attempts_spool / "w0.jsonl")
    for one in attempts:
        spool.append(one)
    spool.close()
    return folder


def test_replay_has_one_row_per_call_in_time_order_with_requested_lengths(tmp_path: Path) -> None:
    refused = {"outcome": Outcome.RATE_LIMITED, "status": 429}
    folder = run_of(
        tmp_path,
        attempt(
            call_id="b",
            due_ns=2 * S,
            sent_ns=2 * S,
            name="chat",
            wanted_prompt_tokens=50,
            max_tokens=9,
            **refused,
        ),
        attempt(
            call_id="b",
            attempt=1,
            due_ns=5 * S,
            sent_ns=5 * S,
            name="chat",
            wanted_prompt_tokens=50,
            max_tokens=9,
        ),
        attempt(call_id="a", due_ns=S, sent_ns=S, name="own", prompt_tokens=33),
        attempt(call_id="c", due_ns=3 * S, sent_ns=3 * S, name="own", **refused),
    )
    path = write_trace(folder, ["chat"])
    assert path.parent == folder.path
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"at_s": 1.0, "prompt_tokens": 33},
        {"at_s": 2.0, "prompt_tokens": 50, "max_tokens": 9, "call": "chat"},
        {"at_s": 3.0},
    ]


def test_run_without_calls_is_not_replayable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no calls to replay"):
        write_trace(run_of(tmp_path), [])
