"""Random kills of our own processes, with nothing lost that ended a second earlier.

python -m benchmarks.kills --cases 450 --jobs 3 --json kills.json    about 1,000 kills

Each case runs Locust for a few seconds against a sandbox that logs every request, and kills one process at a
random moment with a random signal: the standalone process, the master, one of two workers, or the report that
Locust starts. Then it kills up to three ``bltybench report`` of that run, at random moments too. In the end,
``bltybench report`` must succeed, and the records must agree with the sandbox's log:

- no attempt is missing that ended more than a second before a SIGKILL; after other signals, none at all
- none is doubled, and every file can be read
- each step ends in MAX_WAIT_S, and no process shows a traceback
"""

import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from benchmarks.campaign import Batch, parser, run
from benchmarks.kill_case import CaseError, KillCase
from benchmarks.truth_check import TruthReader, compare
from bltybench.errors import UserError
from bltybench.sandbox.process import SandboxProcess
from bltybench.scenario.target import Delay, SandboxLimits, SandboxSettings

BATCH = 5
KINDS = ("standalone", "standalone", "worker", "worker", "master", "own report")
TRUTH_FLUSH_S = 1.0
"""Time after which the sandbox has written its log, in seconds."""
SETTINGS = SandboxSettings(
    limits=SandboxLimits(requests=None, tokens=None, concurrency=None),
    ttft=Delay(median_ms=15, p95_ms=40),
    itl=Delay(median_ms=2, p95_ms=4),
)


def play(first: int, cases: int) -> Batch:
    """Play the cases from ``first`` on, with one sandbox."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bltybench-") as folder:
        log = Path(folder) / "truth.jsonl"
        with SandboxProcess.start(SETTINGS, log_path=log) as sandbox:
            truth = TruthReader(log)
            for number in range(first, first + cases):
                place = Path(folder) / str(number)
                place.mkdir()
                rng = Random(number)
                case = KillCase(rng.choice(KINDS), rng, place, sandbox.base_url)
                problems = _play(case, rng, truth, counts)
                failures += [f"{number}: {problem}; kills: {_text(case)}" for problem in problems]
    return Batch(cases, counts, failures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def _play(case: KillCase, rng: Random, truth: TruthReader, counts: Counter[str]) -> list[str]:
    """Play one case, add its counts, and return its problems."""
    try:
        case.play()
        if case.runs:
            case.kill_reports(rng.choice((0, 1, 1, 2, 2, 3)))
            case.recover()
        time.sleep(TRUTH_FLUSH_S)
        result = compare(case.runs, truth.new_rows(), case.lost_since_ns)
    except (CaseError, UserError) as error:
        time.sleep(TRUTH_FLUSH_S)
        truth.new_rows()  # they belong to this case
        return [str(error)]
    finally:
        for kill in case.kills:
            counts[f"kills: {kill.kind}, {kill.phase}"] += 1
            counts[f"signals: {kill.signal.name}"] += 1
        counts["kills in total"] += len(case.kills)
    counts["runs compared"] += len(case.runs)
    counts["records"] += result.recorded
    counts["records required"] += result.required
    return result.problems


def _text(case: KillCase) -> str:
    return ", ".join(f"{kill.kind} {kill.phase} {kill.signal.name}" for kill in case.kills) or "none"


if __name__ == "__main__":
    sys.exit(run(play, parser(__doc__, 450, BATCH).parse_args()).code)
