"""Recorded arrivals and lengths, streamed from disk because a trace can be larger than memory.

The first line determines the format. ``trace_formats`` has one reader per format.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from random import Random

from bltybench.errors import UserError
from bltybench.scenario.arrivals.trace_formats import FORMATS
from bltybench.scenario.arrivals.trace_line import ChatId, Format, TimeUnit, TraceLine, TraceRow
from bltybench.scenario.files import open_text, version_of

LFS = "version https://git-lfs"

HEADERS = " or ".join(dict.fromkeys(known.header for known in FORMATS))


def check(
    path: Path,
    start_s: float,
    until_s: float,
    calls: Collection[str] | None = None,
    time_unit: TimeUnit | None = None,
) -> None:
    """Validate the part from ``start_s`` to ``until_s`` once. Later calls skip it until the file changes.

    Raise UserError with file and line for an error, a row whose call is not in ``calls``, or an empty part.
    """
    _check(path, version_of(path), start_s, until_s, None if calls is None else tuple(calls), time_unit)


@lru_cache(maxsize=4)
def _check(
    path: Path,
    _version: tuple[int, int],
    start_s: float,
    until_s: float,
    calls: tuple[str, ...] | None,
    time_unit: TimeUnit | None,
) -> None:
    if sum(1 for _row in rows(path, start_s, until_s, calls, time_unit)) == 0:
        raise UserError(
            f"has no rows between {start_s:g} s and {until_s:g} s",
            where=str(path),
            remedy="choose another start_s, length_s, or duration_s",
        )


def rows(
    path: Path,
    start_s: float,
    until_s: float,
    calls: Collection[str] | None = None,
    time_unit: TimeUnit | None = None,
) -> Iterator[TraceRow]:
    """Yield the rows from ``start_s`` to before ``until_s``, in the trace's own seconds.

    ``time_unit`` is the unit of its times, if the format leaves it open.
    """
    lines = open_text(path, what="trace file")
    number, first = next(lines, (1, ""))
    form = _format(path, first)
    source = chain([(number, first)], lines) if form.keeps_first_line else lines
    if time_unit is not None and not form.has_units:
        what = f"time_unit is set, but {form.time} of this format has a unit of its own"
        raise UserError(what, where=str(path), remedy="remove time_unit")
    parse = form.reader(first.strip(), time_unit)
    begin_s: float | None = None
    last_s = 0.0
    for number, line in source:
        if not line.strip():
            continue
        where = f"{path}:{number}"
        row = parse(TraceLine(line, where, form.example))
        if begin_s is None:
            begin_s = row.at_s if form.from_first_row else 0.0
            last_s = row.at_s
        if row.at_s < last_s:
            remedy = f"sort the rows by {form.time}"
            raise UserError("is earlier than the row before it", where=where, remedy=remedy)
        if calls is not None and row.call is not None and row.call not in calls:
            what = f"call {row.call[:40]!r} is not in the scenario's mix"
            raise UserError(what, where=where, remedy=f"known: {', '.join(calls)}")
        last_s = row.at_s
        at_s = round(row.at_s - begin_s, 9)
        if at_s >= until_s:
            return
        if at_s >= start_s:
            yield replace(row, at_s=at_s)
    if begin_s is None:
        what = "has no rows" if form.keeps_first_line else "has a header and no rows"
        raise UserError(what, where=str(path), remedy=form.example)


def scaled(source: Iterator[TraceRow], scale: float, rng: Random) -> Iterator[TraceRow]:
    """Yield each row ``scale`` times: whole copies, plus one more with the probability of the fraction.

    The first copy keeps its time. The others get random times before the next row, so that scaling creates no
    simultaneous requests. The rows of a session have as many copies as its first one.
    """
    if scale == 1:
        yield from source
        return
    copies_of: dict[ChatId, int] = {}
    row = next(source, None)
    while row is not None:
        following = next(source, None)
        copies = int(scale) + (rng.random() < scale - int(scale))
        if row.parent is not None:
            copies = copies_of.get(row.parent, copies)
        if row.chat is not None:
            copies_of[row.chat] = copies
        gap_s = following.at_s - row.at_s if following is not None else 0.0
        late_s = sorted(rng.random() * gap_s for _ in range(copies - 1))
        for copy, late in enumerate([0.0, *late_s][:copies]):
            yield replace(row, at_s=row.at_s + late, copy=copy)
        row = following


def _format(path: Path, first: str) -> Format:
    for form in FORMATS:
        if form.fits(first.strip()):
            return form
    if first.startswith(LFS):
        raise UserError("is a Git LFS pointer, not the trace", where=str(path), remedy="git lfs pull")
    start = f"starts with {first.strip()[:60]!r}" if first.strip() else "is empty"
    raise UserError(f"{start}, not with the header of a supported trace", where=str(path), remedy=HEADERS)
