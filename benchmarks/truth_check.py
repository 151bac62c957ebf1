"""Comparison of a run's records with the sandbox's own log, after something was killed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bltybench.errors import UserError
from bltybench.runs.folder import RunFolder
from bltybench.runs.store import read_attempts, read_generator
from bltybench.sandbox.truth import TruthRow

SAFE_NS = 1_000_000_000
"""Age at which a record must survive a kill, in nanoseconds."""
MAX_SHOWN = 3
"""Request ids that a message names."""


class TruthComparison(NamedTuple):
    """Records compared with the log."""

    recorded: int
    required: int
    """Exchanges of the log that must be in the records."""
    problems: list[str]


class TruthReader:
    """Reads the rows that a running sandbox appends to its log."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0

    def new_rows(self) -> list[TruthRow]:
        """Return the chat requests since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = [msgspec.json.decode(line, type=TruthRow) for line in whole.splitlines()]
        return [row for row in rows if row.path.endswith("/chat/completions")]


def required_ids(truth: Iterable[TruthRow], killed_ns: int | None) -> set[str]:
    """Return the requests that must be in the records.

    After a kill at ``killed_ns``, those that ended more than a second earlier. None: nothing was lost, so all
    whose response was sent to the end.
    """
    before_ns = None if killed_ns is None else killed_ns - SAFE_NS
    return {
        row.request_id
        for row in truth
        if row.end_ns is not None and not row.disconnected and (before_ns is None or row.end_ns < before_ns)
    }


def compare(runs: Sequence[RunFolder], truth: Sequence[TruthRow], killed_ns: int | None) -> TruthComparison:
    """Compare the records of ``runs`` with the log: none missing, none doubled, none invented."""
    problems: list[str] = []
    recorded: Counter[str] = Counter()
    rows = 0
    unnamed = 0
    for run in runs:
        try:
            ids = read_attempts(run, without=["gaps_us"]).column("request_id").to_pylist()
            read_generator(run)
        except UserError as error:
            problems.append(f"unreadable: {error}")
            continue
        rows += len(ids)
        recorded.update(request_id for request_id in ids if request_id is not None)
        unnamed += ids.count(None)
    required, known = required_ids(truth, killed_ns), {row.request_id for row in truth}
    doubled = [request_id for request_id, count in recorded.items() if count > 1]
    missing = required - recorded.keys()
    if killed_ns is None and len(missing) <= unnamed:
        # Attempts that were cancelled at the end, before the client had read the id that the sandbox sent.
        missing = set()
    for what, found in (
        ("missing", missing),
        ("doubled", doubled),
        ("not in the log", recorded.keys() - known),
    ):
        if found:
            problems.append(f"{len(found)} {what}, such as {', '.join(sorted(found)[:MAX_SHOWN])}")
    return TruthComparison(rows, len(required), problems)
