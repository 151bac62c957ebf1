from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bltybench.runs.folder import RunFolder
from bltybench.runs.trials.search import SearchResult, read_search

FOUND = SearchResult(
    load="rate",
    objectives={"refused.share": "<= 1%"},
    precision=0.05,
    confirm=2,
    holds=57.0,
    fails=59.78,
    ended="found",
    requests=400,
    trials=[],
)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {},
            "The objectives held at 57.0 requests per minute but not at 59.8: the capacity lies between. "
            "Each end was confirmed by 2 trials.",
        ),
        (
            {"confirm": 1},
            "The objectives held at 57.0 requests per minute but not at 59.8: the capacity lies between. "
            "Each end was confirmed by one trial.",
        ),
        (
            {"load": "users", "fails": None, "ended": "requests"},
            "The objectives held up to 57.0 users, and no higher load failed. The search was not finished: "
            "its request budget did not allow another trial. An end may rest on a single trial.",
        ),
        (
            {"holds": None, "ended": None},
            "No load kept the objectives, down to 59.8 requests per minute. The search was not finished: "
            "the run was stopped. An end may rest on a single trial.",
        ),
    ],
)
def test_sentence_states_the_interval_and_why_the_search_ended(
    change: dict[str, object], sentence: str
) -> None:
    assert msgspec.structs.replace(FOUND, **change).sentence() == sentence


def test_search_is_read_back_and_none_without_a_search(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_search(folder) is None
    folder.search_json.write_bytes(msgspec.json.encode(FOUND))
    assert read_search(folder) == FOUND
