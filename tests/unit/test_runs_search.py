from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bltybench.runs.folder import RunFolder
from bltybench.runs.search import SearchResult, read_search

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
    ("change", "said"),
    [
        (
            {},
            "The objectives held at 57.0 requests a minute and not at 59.8: the capacity lies between. "
            "Each end was confirmed by 2 trials.",
        ),
        (
            {"load": "users", "fails": None, "ended": "requests"},
            "The objectives held up to 57.0 users, and no higher load was seen to fail. The search was not "
            "finished: its budget of requests did not allow another trial. An end may rest on a single "
            "trial.",
        ),
        (
            {"holds": None, "ended": None},
            "No load that was tried kept the objectives, down to 59.8 requests a minute. The search was not "
            "finished: the run was stopped. An end may rest on a single trial.",
        ),
    ],
)
def test_what_was_found_is_said_in_words(change: dict[str, object], said: str) -> None:
    assert msgspec.structs.replace(FOUND, **change).sentence() == said


def test_a_search_is_read_back_and_absent_where_none_was_made(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_search(folder) is None
    folder.search_json.write_bytes(msgspec.json.encode(FOUND))
    assert read_search(folder) == FOUND
