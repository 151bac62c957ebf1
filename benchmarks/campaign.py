"""Numbered cases, played in batches by several processes, with exact counts.

The number of a case is its seed, so the same number always gives the same case: ``--first`` and ``--cases``
repeat any part of a campaign.
"""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

MAX_SHOWN_FAILURES = 20
"""Failures that a campaign prints and keeps. It ends after more."""
PROGRESS_S = 15.0
"""Seconds between two progress lines."""


class Batch(NamedTuple):
    """The result of consecutive cases."""

    cases: int
    counts: Counter[str]
    """What the JSON file shows, by name."""
    failures: list[str]
    """One line for each failed case, which begins with its number."""
    peak_mb: float = 0.0
    """Largest memory of the process that played them."""


class Totals(NamedTuple):
    """The result of a campaign, or of a part of one."""

    first: int
    """Number of the first case."""
    cases: int
    seconds: float
    counts: Counter[str]
    failures: list[str]
    peak_mb: float

    @property
    def code(self) -> int:
        """Exit code: 1 if a case failed."""
        return 1 if self.failures else 0


def parser(description: str | None, cases: int, batch: int) -> argparse.ArgumentParser:
    """Return a parser of the options that all campaigns share."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cases", type=int, default=cases, help=f"number of cases (default: {cases:,})")
    options.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    options.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    options.add_argument("--batch", type=int, default=batch, help=f"cases per batch (default: {batch:,})")
    options.add_argument("--json", type=Path, help="file for the counts")
    return options


def run(play: Callable[[int, int], Batch], options: argparse.Namespace) -> Totals:
    """Play all cases with ``play(first, count)``, print the progress and result, and write the counts."""
    totals = _play_all(play, options.first, options.cases, options.batch, options.jobs)
    print(f"{totals.cases:,} cases in {totals.seconds:,.0f} s, {len(totals.failures)} failed")
    for name, count in sorted(totals.counts.items()):
        print(f"  {name}: {count:,}")
    print(f"  largest memory of a process: {totals.peak_mb:.0f} MB")
    if options.json:
        write_results(options.json, totals._asdict())
    return totals


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write the results of this program, with its command and the time, for ``benchmarks.reliability``."""
    spec: Any = sys.modules["__main__"].__spec__
    command = ["python", "-m", spec.name if spec else sys.argv[0], *sys.argv[1:]]
    document = {
        "command": " ".join(command),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        **results,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


@contextmanager
def time_limit(seconds: float, what: str, *, cpu: bool) -> Iterator[None]:
    """Raise TimeoutError in the main thread if ``what`` takes more than ``seconds``, of CPU time or in all.

    CPU time does not depend on what else the machine does. Only the time in all bounds what waits forever.
    """
    timer, number = (signal.ITIMER_VIRTUAL, signal.SIGVTALRM) if cpu else (signal.ITIMER_REAL, signal.SIGALRM)

    def expire(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"{what} took more than {seconds:g} s{' of CPU time' if cpu else ''}")

    previous = signal.signal(number, expire)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, previous)


def _play_all(play: Callable[[int, int], Batch], first: int, cases: int, size: int, jobs: int) -> Totals:
    began_s = shown_s = time.monotonic()
    counts: Counter[str] = Counter()
    failures: list[str] = []
    peak_mb, done = 0.0, 0
    end = first + cases
    starts = iter(range(first, end, size))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:

        def submit(at: int) -> Any:
            return pool.submit(play, at, min(size, end - at))

        running = {submit(at) for at in islice(starts, 2 * jobs)}
        while running:
            over, running = wait(running, return_when=FIRST_COMPLETED)
            for future in over:
                batch = future.result()
                done += batch.cases
                counts += batch.counts
                peak_mb = max(peak_mb, batch.peak_mb)
                failures += batch.failures
                for line in batch.failures:
                    print(f"FAILED {line}", file=sys.stderr, flush=True)
            if len(failures) <= MAX_SHOWN_FAILURES:
                running |= {submit(at) for at in islice(starts, len(over))}
            now_s = time.monotonic()
            if now_s - shown_s >= PROGRESS_S:
                shown_s = now_s
                rate = done / (now_s - began_s)
                left = f"{(cases - done) / max(rate, 1e-9) / 60:.0f} min left"
                print(f"{done:,} of {cases:,} cases, {rate:,.1f}/s, {left}", file=sys.stderr, flush=True)
    return Totals(first, done, round(time.monotonic() - began_s, 1), counts, failures, peak_mb)
