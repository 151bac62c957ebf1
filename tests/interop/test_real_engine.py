"""A real inference engine: llama.cpp's server, with random weights."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path

import httpx
import pytest
from support_cli import bltybench
from support_limiters import ENGINE_KEY, engine
from support_locust import LOCUSTFILES, run_locust, write_scenarios

KEY = {"BLTYBENCH_TEST_KEY": ENGINE_KEY}

# Without pauses, because the server closes its connection after each stream, while the next request is sent.
SCENARIO = """
duration_s = 4
users = 3
arrivals = { kind = "closed" }
"""
TALK = """
[[scenarios.quickstart.mix]]
name = "talk"
stream = true
temperature = 1
max_tokens = { kind = "uniform", min = 1, max = 12 }
turns = { min = 2, max = 4, tokens = { kind = "fixed", tokens = 10 }, think_s = 0 }
"""
RATE_LIMIT_HEADERS = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "on streams too"}
DEVIATIONS = RATE_LIMIT_HEADERS | {
    "wrong key",  # code 401 instead of invalid_api_key
    "unknown model",  # answers with the only model
    "error bodies",  # no param, and the code is a number
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engine(tmp_path_factory.mktemp("engine")) as url:
        yield url


def served_tokens(address: str) -> Counter[str]:
    """Return the engine's own counters of tokens."""
    text = httpx.get(f"{address}/metrics", headers={"Authorization": f"Bearer {ENGINE_KEY}"}).text
    found = re.findall(
        r"^llamacpp:(prompt_tokens|prompt_tokens_cached|tokens_predicted)_total (\d+)$", text, re.M
    )
    return Counter({name: int(count) for name, count in found})


def test_chat_streams_and_conversations_are_ok_with_the_tokens_of_the_engine(
    address: str, tmp_path: Path
) -> None:
    path = write_scenarios(tmp_path, f"{address}/v1", SCENARIO, checks='"errors.share" = "<= 0%"')
    path.write_text(path.read_text() + TALK)
    before = served_tokens(address)
    # A preflight would request an answer outside the run, because the engine lists another model.
    done = run_locust(LOCUSTFILES / "mixed.py", "--no-preflight", cwd=tmp_path, **KEY)
    served = served_tokens(address) - before
    assert done.code == 0, done.output
    attempts = done.attempts
    assert Counter(row["outcome"] for row in attempts) == {"ok": len(attempts)}
    assert {row["tokens_source"] for row in attempts} == {"usage"}
    totals = {
        column: sum(row[column] for row in attempts)
        for column in ("prompt_tokens", "cached_tokens", "completion_tokens")
    }
    # No token is missing, and no request was served twice.
    assert totals["completion_tokens"] == served["tokens_predicted"]
    assert totals["cached_tokens"] == served["prompt_tokens_cached"]
    assert totals["prompt_tokens"] - totals["cached_tokens"] == served["prompt_tokens"]
    for row in attempts:
        whole = row["completion_tokens"] == row["max_tokens"]
        assert row["finish_reason"] == "length" if whole else row["finish_reason"] == "stop", row
        assert set((row["notes"] or "").split(",")) <= {"", "sent_again", "no_text"}
        assert row["model"] == "random"
        if row["stream"]:
            assert (row["first_token_ns"] is None) == ("no_text" in (row["notes"] or ""))
            assert len(row["gaps_us"] or ()) < row["completion_tokens"]
    by_name = Counter(row["name"] for row in attempts)
    assert by_name.keys() == {"plain", "streamed", "talk"}
    talks = [row for row in attempts if row["name"] == "talk"]
    talks.sort(key=lambda row: (row["user"], row["due_ns"]))
    for _, rows in groupby(talks, key=lambda row: row["user"]):
        turns = list(rows)
        for turn, following in pairwise(turns):
            if following["turn"] > 1:
                grown = following["prompt_tokens"] - turn["prompt_tokens"]
                assert following["turn"] == turn["turn"] + 1
                assert grown > turn["completion_tokens"]
    assert max(row["turn"] for row in talks) >= 3


def test_check_reports_only_true_deviations(address: str, tmp_path: Path) -> None:
    write_scenarios(tmp_path, f"{address}/v1")
    done = bltybench("check", "--target", "here", "--model", "random", "--json", cwd=tmp_path, env=KEY)
    assert done.returncode == 1, done.stderr
    findings = json.loads(done.stdout)["findings"]
    broken = {finding["name"]: finding["observed"] for finding in findings if finding["status"] == "broken"}
    assert broken.keys() == DEVIATIONS, broken
    unclear = {finding["name"] for finding in findings if finding["status"] == "unclear"}
    assert unclear <= {"counts down by one"}
    assert sum(finding["status"] == "holds" for finding in findings) >= 25
