"""Convert a former run into a trace: its calls, their due times, and their lengths."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from bltybench.errors import UserError
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.ownership import sole_owner
from bltybench.runs.store import read_attempts

COLUMNS = ["call_id", "attempt", "due_ns", "name", "wanted_prompt_tokens", "prompt_tokens", "max_tokens"]


def write_trace(folder: RunFolder, calls: Collection[str]) -> Path:
    """Write ``replay.jsonl``, in bltybench's trace format, into a run's folder and return its path.

    Each row is one call, at the time its first attempt was due. Lengths are the requested ones. If a
    locustfile requested no prompt length, the server's count is used; unknown lengths are omitted. A row
    names its call if it is one of ``calls``, the call names of the run's mix. Raise UserError if the run has
    no calls, is still active, or can't be read.
    """
    with sole_owner(folder.path):
        return _write_trace(folder, calls)


def _write_trace(folder: RunFolder, calls: Collection[str]) -> Path:
    table = read_attempts(folder).select(COLUMNS)
    calls_by_id: dict[str, dict[str, int | float | str]] = {}
    for row in table.to_pylist():
        call = calls_by_id.setdefault(row["call_id"], {})
        if row["attempt"] == 0:
            call["at_s"] = max(0, row["due_ns"]) / 1e9
        prompt = row["wanted_prompt_tokens"] or row["prompt_tokens"]
        if prompt:
            call.setdefault("prompt_tokens", prompt)
        if row["max_tokens"]:
            call["max_tokens"] = row["max_tokens"]
        if row["name"] in calls:
            call["call"] = row["name"]
    rows = sorted((row for row in calls_by_id.values() if "at_s" in row), key=lambda row: row["at_s"])
    if not rows:
        raise UserError(
            "has no calls to replay", where=str(folder.path), remedy="choose another run: bltybench runs"
        )
    path = folder.path / "replay.jsonl"
    write_atomically(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path
