"""Play numbered cases on all cores and append their results to a file of JSON lines.

Each case is appended when it is done, so an interrupted run loses nothing: the same command resumes it.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TypeVar

from benchmarks.limit_cases import Case
from benchmarks.question_cases import JudgedAnswer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "limits-accuracy.md"
PROGRESS_EVERY = 25
"""Cases between two progress lines."""

Record = TypeVar("Record", Case, JudgedAnswer)
CaseKey = tuple[int] | tuple[int, str]
"""Arguments of ``play``: the number of a case, and its plan if there are several."""


def parser(description: str | None, first: int) -> argparse.ArgumentParser:
    """Return a parser of the options that both accuracy benchmarks share."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--results", type=Path, required=True, help="file of results, as JSON lines")
    options.add_argument("--cases", type=int, default=0, help="number of cases that the file should have")
    options.add_argument(
        "--first", type=int, default=first, help="number of the first case, which is its seed"
    )
    options.add_argument("--seconds", type=float, default=float("inf"), help="start no case after this time")
    options.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes. Default: one per core")
    options.add_argument("--show", action="store_true", help="print the results that are wrong")
    options.add_argument("--write", action="store_true", help=f"write the results to {PAGE.name}")
    return options


def results(
    options: argparse.Namespace,
    record: type[Record],
    play: Callable[..., list[Record]],
    keys: Iterable[CaseKey],
    key_of: Callable[[Record], CaseKey],
) -> list[Record]:
    """Return the records of the results file, after playing those of ``keys`` that it lacks."""
    path: Path = options.results
    records = [record(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    played = {key_of(one) for one in records}
    missing = [key for key in keys if key not in played]
    if missing:
        records += _play_all(play, missing, path, options.seconds, options.jobs)
    if options.show:
        for one in records:
            if one.judged == "wrong":
                print(json.dumps(asdict(one)))
    return records


def _play_all(
    play: Callable[..., list[Record]], keys: Sequence[CaseKey], path: Path, seconds: float, jobs: int
) -> list[Record]:
    records: list[Record] = []
    waiting_keys, end_s = iter(keys), time.monotonic() + seconds
    with ProcessPoolExecutor(jobs) as pool, path.open("a", encoding="utf-8") as file:
        # Only a few cases are submitted ahead, so that little work is lost at the end.
        running = {pool.submit(play, *key) for key in islice(waiting_keys, 2 * jobs)}
        done = 0
        while running:
            over, running = wait(running, return_when=FIRST_COMPLETED)
            for future in over:
                records += future.result()
                file.write("".join(json.dumps(asdict(one)) + "\n" for one in future.result()))
                file.flush()
                done += 1
                if done % PROGRESS_EVERY == 0:
                    wrong = sum(one.judged == "wrong" for one in records)
                    print(f"{done} of {len(keys)} cases, {wrong} wrong results", file=sys.stderr)
            if time.monotonic() < end_s:
                running |= {pool.submit(play, *key) for key in islice(waiting_keys, len(over))}
    return records


def summary(records: Sequence[Case] | Sequence[JudgedAnswer]) -> str:
    """Return how many results are right, abstained, and wrong."""
    counts, total = Counter(one.judged for one in records), max(1, len(records))
    return (
        f"right {counts['right']} ({counts['right'] / total:.1%}), "
        f"abstained {counts['abstained']} ({counts['abstained'] / total:.1%}), "
        f"wrong {counts['wrong']} ({counts['wrong'] / total:.2%})"
    )
