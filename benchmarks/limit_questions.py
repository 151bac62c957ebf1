"""How often the probe's other questions are answered rightly, in virtual time.

    python -m benchmarks.limit_questions --cases 400 --seconds 170 --results FILE    goes on where FILE ends
    python -m benchmarks.limit_questions --results FILE --show                       what was wrong, and why
    python -m benchmarks.limit_questions --results FILE --write                      docs/limits-accuracy.md

Runs on all cores. The numbers of cases are their seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from benchmarks.limits import PAGE
from benchmarks.question_cases import Told, play

FRESH = 13_000_000
"""Cases from here on are not looked at while the questions are worked on."""
HEADING = "## The other questions: "


def main() -> None:
    """Run what is missing, and print or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="a file of answers: JSON, one a line")
    parser.add_argument("--cases", type=int, default=0, help="how many there are to be")
    parser.add_argument("--first", type=int, default=FRESH, help="the number of the first case")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes. Default: the cores")
    parser.add_argument("--show", action="store_true", help="print the answers that were wrong")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args()
    told = read(options.results)
    known = {each.case for each in told}
    missing = [each for each in range(options.first, options.first + options.cases) if each not in known]
    told += run(missing, options.results, options.seconds, options.jobs)
    if options.show:
        for each in sorted(told, key=lambda each: (each.question, each.case)):
            if each.judged == "wrong":
                print(json.dumps(asdict(each)))
    text = section(told)
    print(text)
    if options.write:
        before = PAGE.read_text(encoding="utf-8").split(HEADING)[0].rstrip()
        PAGE.write_text(f"{before}\n\n{text}\n", encoding="utf-8")


def read(path: Path) -> list[Told]:
    """Return the answers of a file; none where there is no file."""
    if not path.exists():
        return []
    return [Told(**json.loads(line)) for line in path.read_text().splitlines()]


def run(missing: Sequence[int], path: Path, seconds: float, jobs: int) -> list[Told]:
    """Play cases on ``jobs`` processes, and append their answers to the file, all of a case together."""
    found: list[Told] = []
    if not missing:
        return found
    numbers, ends = iter(missing), time.monotonic() + seconds
    with ProcessPoolExecutor(jobs) as pool, path.open("a", encoding="utf-8") as file:
        waiting = {pool.submit(play, each) for each in islice(numbers, 2 * jobs)}
        done = 0
        while waiting:
            over, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in over:
                answers = future.result()
                found += answers
                file.write("".join(json.dumps(asdict(each)) + "\n" for each in answers))
                file.flush()
                done += 1
            if done % 25 < len(over):
                wrong = sum(each.judged == "wrong" for each in found)
                print(f"{done} of {len(missing)} cases, {wrong} answers wrong", file=sys.stderr)
            if time.monotonic() < ends:
                waiting |= {pool.submit(play, each) for each in islice(numbers, len(over))}
    return found


def section(told: Sequence[Told]) -> str:
    """Return the part of the page about these answers."""
    cases = {each.case for each in told}
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for each in told:
        counts[each.question, _name(each.truth)][each.judged] += 1
    total = Counter(each.judged for each in told)
    of = max(1, len(told))
    lines = [
        f"{HEADING}{len(cases)} cases",
        "",
        "Made by `python -m benchmarks.limit_questions`: the whole probe, all its questions and judgements,",
        "against the sandbox's own quotas behind a simulated network. Each API has a limit of requests of a",
        "family that is drawn (8 to 60 in 2 to 60 s), and one thing more: a limit in flight, of tokens,",
        "errors that count, or headers that lie. One in ten is shared with other traffic, one in three loses",
        "1% of the answers, half of the refusals say nothing of their reason, half of the limits are",
        "documented. *Right*: the value, or a range no wider than 20% that holds it; where there is nothing",
        "to find, *cannot tell*.",
        "",
        f"right {total['right']} ({total['right'] / of:.1%}), abstained {total['abstained']} "
        f"({total['abstained'] / of:.1%}), wrong {total['wrong']} ({total['wrong'] / of:.2%}) of {len(told)} "
        f"answers; seeds {min(cases, default=0)} to {max(cases, default=0)}.",
        "",
        "| question | truth | answers | right | abstained | wrong |",
        "|---|---|---|---|---|---|",
    ]
    for (question, truth), judged in sorted(counts.items()):
        lines.append(
            f"| {question} | {truth} | {judged.total()} | {judged['right'] or ''} | "
            f"{judged['abstained'] or ''} | {judged['wrong'] or ''} |"
        )
    return "\n".join(lines)


def _name(truth: object) -> str:
    if truth is None:
        return "none"
    return (
        "a number" if isinstance(truth, int | float) and not isinstance(truth, bool) else str(truth).lower()
    )


if __name__ == "__main__":
    main()
