"""How often the probe names the right limiter: families, parameters and noise, in virtual time.

    python -m benchmarks.limits --cases 2000 --seconds 200 --results FILE    goes on where FILE ends
    python -m benchmarks.limits --results FILE --write                       docs/limits-accuracy.md

Runs on all cores. Every case is appended to FILE when it is done, so a run that is cut short (Ctrl-C, or
--seconds) loses nothing, and the same command goes on from there. The numbers of cases are their seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from benchmarks.limit_cases import KINDS, Case, play
from benchmarks.strangers import STRANGERS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "limits-accuracy.md"
PLANS = {
    "quick": "The quick plan",
    "full": "The full plan",
    "strangers": "Limiters of no family, the full plan",
}
FRESH = 8_000_000
"""Cases from here on are not looked at while the fit is worked on."""


def main() -> None:
    """Run what is missing, and print or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="a file of cases: JSON, one a line")
    parser.add_argument("--cases", type=int, default=0, help="how many of each plan there are to be")
    parser.add_argument("--first", type=int, default=FRESH, help="the number of the first case")
    parser.add_argument("--plan", nargs="+", choices=PLANS, default=PLANS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes. Default: the cores")
    parser.add_argument("--show", action="store_true", help="print the cases that were not right")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    done = read(options.results)
    known = {(case.number, case.plan) for case in done}
    missing = [
        (number, plan)
        for number in range(options.first, options.first + options.cases)
        for plan in options.plan
        if (number, plan) not in known
    ]
    done += run(missing, options.results, options.seconds, options.jobs)
    if options.show:
        show(done)
    text = page(done)
    print(text)
    if options.write:
        PAGE.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> list[Case]:
    """Return the cases of a file; none where there is no file."""
    if not path.exists():
        return []
    return [Case(**json.loads(line)) for line in path.read_text().splitlines()]


def run(missing: list[tuple[int, str]], path: Path, seconds: float, jobs: int) -> list[Case]:
    """Play cases on ``jobs`` processes, and append each to the file."""
    if not missing:
        return []
    ends = time.monotonic() + seconds
    found: list[Case] = []
    with ProcessPoolExecutor(jobs) as pool, path.open("a", encoding="utf-8") as file:
        for case in _played(pool, iter(missing), 2 * jobs, ends):
            found.append(case)
            file.write(json.dumps(asdict(case)) + "\n")
            file.flush()
            wrong = sum(each.judged == "wrong" for each in found)
            end = "\r" if sys.stderr.isatty() else "\n"
            if end == "\r" or len(found) % 50 == 0:
                print(f"{len(found)} of {len(missing)} cases, {wrong} wrong", end=end, file=sys.stderr)
    return found


def _played(
    pool: ProcessPoolExecutor, missing: Iterator[tuple[int, str]], ahead: int, ends: float
) -> Iterator[Case]:
    """Keep so many cases ahead, so that little is lost at the end."""
    waiting = {pool.submit(play, *each) for each in islice(missing, ahead)}
    while waiting:
        over, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in over:
            yield future.result()
        if time.monotonic() < ends:
            waiting |= {pool.submit(play, *each) for each in islice(missing, len(over))}


def show(cases: Iterable[Case]) -> None:
    """Print the cases that were not right, the wrong ones last."""
    for case in sorted(cases, key=lambda case: (case.judged, case.kind)):
        if case.judged != "right":
            print(json.dumps(asdict(case)))


INTRODUCTION = """# How often the probe is right

Made by `python -m benchmarks.limits`: simulated limiters behind a simulated network, in virtual time.
Limits of 5 to 60, periods of 1 to 63 s (half of them such as people choose), latencies of 2 to 200 ms with
lognormal jitter, clocks up to 0.2 s apart, and in half of the cases 2% of the answers lost. *Right*: the
one family named is the true one, its limit is in the range that is given, and so is its period or it is
within 2%. *Abstained*: several families are named and the true one is among them, or none is, with the
reason, or the period is given as a range of more than 20% to either side. *Wrong*: anything else. The quick
plan is told a limit and a period, of which one is false in a third of the cases, and is to tell the class
alone: a window that is aligned to something else than was said first is right there if both were named. The
full plan is told nothing.

Of limiters of no family (bans, several limits at once, a quota that others use) none of ours is the true
one: there, *abstained* is what is wanted, and *right* is a model that foretells 97% of the decisions on other
traffic, as where only one of two limits is ever met.

The seeds are not those that the fit was worked on with. What this does not show: latencies are such that the
limit can be reached one by one within a fifth of a period, and nobody else uses the quota. With
fewer than a thousand cases of a plan, the wrong ones are not bounded below 0.5%."""


def page(cases: list[Case]) -> str:
    """Return the page about these cases."""
    parts = [_section(plan, [case for case in cases if case.plan == plan]) for plan in PLANS]
    return "\n".join([INTRODUCTION, *parts])


def _section(plan: str, cases: list[Case]) -> str:
    judged = Counter(case.judged for case in cases)
    total = max(1, len(cases))
    named = sorted({case.named for case in cases})
    numbers = [case.number for case in cases]
    lines = [
        "",
        f"## {PLANS[plan]}: {len(cases)} cases",
        "",
        f"right {judged['right']} ({judged['right'] / total:.1%}), abstained {judged['abstained']} "
        f"({judged['abstained'] / total:.1%}), wrong {judged['wrong']} ({judged['wrong'] / total:.2%}); "
        f"{sum(case.requests for case in cases) / total:.0f} requests a case, "
        f"at most {max((case.requests for case in cases), default=0)}; seeds {min(numbers, default=0)} to "
        f"{max(numbers, default=0)}; {sum(case.took_s for case in cases) / total:.1f} s of computing a case.",
        "",
        "| true \\\\ named | " + " | ".join(name.replace("_", " ") for name in named) + " | wrong |",
        "|---" * (len(named) + 2) + "|",
    ]
    for kind in STRANGERS if plan == "strangers" else KINDS:
        of_kind = [case for case in cases if case.kind == kind]
        counts = Counter(case.named for case in of_kind)
        wrong = sum(case.judged == "wrong" for case in of_kind)
        lines.append(
            f"| {kind} | " + " | ".join(str(counts[name] or "") for name in named) + f" | {wrong or ''} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
