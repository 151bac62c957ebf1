"""How often the probe names the right limiter: families, parameters and noise, in virtual time.

    python benchmarks/limits.py --quick            300 cases of the quick plan (minutes)
    python benchmarks/limits.py --write            what docs/limits-accuracy.md holds

Right: the one family named made the answers, its limit is in the range given, and so is its period or it is
within 2%. Abstaining: several families are named, the right one among them, or none. Wrong: the rest.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bltybench.limits import FAMILIES
from bltybench.limits.base import Model
from bltybench.limits.fit import Verdict
from bltybench.limits.plan import Aims, plan
from bltybench.limits.virtual import Noise, World

PAGE = Path(__file__).resolve().parents[1] / "docs" / "limits-accuracy.md"
START_S = 1_795_358_400.0
LIMITS = (8, 20, 30, 60)
PERIODS_S = (1.0, 2.5, 10.0, 60.0)
LATENCIES_S = (0.005, 0.02, 0.05, 0.2)
PERIOD_ERROR = 0.02

Make = Callable[[int, float, random.Random], Model]


def _of(family: str, **options: bool) -> Make:
    return lambda limit, period_s, _: FAMILIES[family](limit, period_s, **options)


KINDS: dict[str, tuple[str, Make]] = {
    "fixed window, clock": ("fixed_window", _of("fixed_window")),
    "fixed window, other phase": (
        "fixed_window",
        lambda limit, period_s, rng: FAMILIES["fixed_window"](
            limit, period_s, rng.uniform(0.1, 0.9) * period_s
        ),
    ),
    "fixed window, first hit": ("first_hit_window", _of("first_hit_window")),
    "sliding log": ("sliding_log", _of("sliding_log")),
    "sliding log, counts refused": ("sliding_log", _of("sliding_log", count_refused=True)),
    "weighted counter, clock": ("sliding_counter", _of("sliding_counter")),
    "weighted counter, first hit": ("first_hit_counter", _of("first_hit_counter")),
    "token bucket": ("token_bucket", _of("token_bucket")),
    "token bucket, small burst": (
        "token_bucket",
        lambda limit, period_s, _: FAMILIES["token_bucket"](limit, period_s, max(2, limit // 4)),
    ),
    "refill in four lumps": ("interval_refill", _of("interval_refill")),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One limiter behind one network, and what was said of it."""

    kind: str
    judged: str
    """right, abstained or wrong."""
    named: str
    requests: int


def main() -> None:
    """Run the cases and print, or write, the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000, help="cases of the quick plan")
    parser.add_argument("--full", type=int, default=100, help="cases of the full plan")
    parser.add_argument("--quick", action="store_true", help="300 cases, quick plan only")
    parser.add_argument("--seconds", type=float, default=600, help="stop each plan's cases after so long")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    counts = {True: 300 if options.quick else options.cases, False: 0 if options.quick else options.full}
    parts = [section(quick, count, options.seconds) for quick, count in counts.items() if count]
    text = "\n".join([INTRODUCTION, *parts])
    print(text)
    if options.write:
        PAGE.write_text(text + "\n", encoding="utf-8")


def section(quick: bool, count: int, seconds: float) -> str:
    """Run cases of one plan and return its part of the page."""
    began = time.monotonic()
    cases: list[Case] = []
    for number in range(count):
        if time.monotonic() - began > seconds:
            break
        cases.append(one(number, quick))
    return _section(quick, cases, time.monotonic() - began)


def one(number: int, quick: bool) -> Case:
    """Play one case; the same number gives the same case."""
    rng = random.Random(f"{number}/{quick}")
    kind = list(KINDS)[number % len(KINDS)]
    limit, period_s = rng.choice(LIMITS), rng.choice(PERIODS_S)
    # What cannot be reached one by one within a part of a period is no case for a sequential probe.
    latency_s = rng.choice([each for each in LATENCIES_S if each * limit <= 0.2 * period_s] or [0.002])
    noise = Noise(latency_s, rng.uniform(0, 0.4), rng.uniform(-0.2, 0.2), rng.choice([0.0, 0.02]))
    family, make = KINDS[kind]
    aims = Aims(quick=quick, period_s=period_s if quick else None, limit=limit if quick else None, budget=800)
    start_s = START_S + rng.uniform(0, 100)
    verdict = World(make(limit, period_s, rng), noise, number).play(plan(aims, start_s))
    small = "small" in kind
    judged = judge(
        verdict, family, max(2, limit // 4) if small else limit, period_s / 4 if small else period_s, quick
    )
    named = verdict.best.family if verdict.status == "found" and verdict.best else verdict.status
    return Case(kind, judged, named, verdict.attempts)


def judge(verdict: Verdict, family: str, limit: int, period_s: float, quick: bool) -> str:
    """Say whether a verdict is right."""
    if verdict.status == "ambiguous":
        return "abstained" if family in verdict.families else "wrong"
    best = verdict.best
    if best is None:
        return "abstained"
    period_right = quick or abs(best.period_s - period_s) <= PERIOD_ERROR * period_s
    # A limit or a period given as a range does not claim more than the range.
    limit_right = best.limit_range[0] <= limit <= best.limit_range[1]
    in_range = best.period_range_s[0] * 0.98 <= period_s <= best.period_range_s[1] * 1.02
    return "right" if best.family == family and limit_right and (period_right or in_range) else "wrong"


INTRODUCTION = """# How often the probe is right

Made by `python benchmarks/limits.py --seconds 150 --write` on a busy machine: simulated limiters
behind a simulated network, in virtual time.
Limits of 8 to 60, periods of 1 to 60 s, latencies of 2 to 200 ms with lognormal jitter, clocks up to 0.2 s
apart, and in half of the cases 2% of the answers lost. *Right*: the one family named is the true one, its
limit is in the range that is given, and so is its period or it is within 2%. *Abstained*: several families
are named and the true one is among them, or none is, with the reason. *Wrong*: anything else.

What this does not show: the quick plan is given the true limit and period, and its period is not judged;
latencies are such that the limit can be reached one by one within a fifth of a period; the same seeds were
looked at while the thresholds were set, and there are too few cases to bound the wrong ones below 0.5%."""


def _section(quick: bool, cases: list[Case], seconds: float) -> str:
    judged = Counter(case.judged for case in cases)
    total = max(1, len(cases))
    named = sorted({case.named for case in cases})
    lines = [
        "",
        f"## The {'quick' if quick else 'full'} plan: {len(cases)} cases",
        "",
        f"right {judged['right']} ({judged['right'] / total:.1%}), abstained {judged['abstained']} "
        f"({judged['abstained'] / total:.1%}), wrong {judged['wrong']} ({judged['wrong'] / total:.1%}); "
        f"{sum(case.requests for case in cases) / total:.0f} requests a case, "
        f"at most {max((case.requests for case in cases), default=0)}; {seconds:.0f} s.",
        "",
        "| true \\\\ named | " + " | ".join(name.replace("_", " ") for name in named) + " | wrong |",
        "|---" * (len(named) + 2) + "|",
    ]
    for kind in KINDS:
        of_kind = [case for case in cases if case.kind == kind]
        counts = Counter(case.named for case in of_kind)
        wrong = sum(case.judged == "wrong" for case in of_kind)
        lines.append(
            f"| {kind} | " + " | ".join(str(counts[name] or "") for name in named) + f" | {wrong or ''} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
