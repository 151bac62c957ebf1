"""Simulated limiters behind simulated networks: what the probe is tried on, and whether it was right."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.simulation.virtual_limiter import Noise, World
from benchmarks.strangers import STRANGERS
from benchmarks.strangers import judge as foretells
from bltybench.limits.fit.select import Verdict
from bltybench.limits.models import FAMILIES, LeakyQueue, TokenBucket
from bltybench.limits.models.base import Model
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions

START_S = 1_795_358_400.0
NATURAL_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
LATENCIES_S = (0.005, 0.02, 0.05, 0.2)
PERIOD_ERROR = 0.02
VAGUE = 0.2
"""A period with such a range, half of it relative, is not said to be right."""

CLASSES = {
    "fixed_window": "window",
    "first_hit_window": "window",
    "sliding_log": "log",
    "sliding_counter": "counter",
    "first_hit_counter": "counter",
    "token_bucket": "bucket",
    "interval_refill": "bucket",
    "leaky_queue": "queue",
}
"""What the quick plan is to tell: what a window or counter is aligned to is not."""

Make = Callable[[int, float, random.Random], Model]


def _of(family: str, **options: bool) -> Make:
    return lambda limit, period_s, _: FAMILIES[family](limit, period_s, **options)


def _other_phase(family: str) -> Make:
    return lambda limit, period_s, rng: FAMILIES[family](limit, period_s, rng.uniform(0.1, 0.9) * period_s)


KINDS: dict[str, tuple[str, Make]] = {
    "fixed window, clock": ("fixed_window", _of("fixed_window")),
    "fixed window, other phase": ("fixed_window", _other_phase("fixed_window")),
    "fixed window, first hit": ("first_hit_window", _of("first_hit_window")),
    "sliding log": ("sliding_log", _of("sliding_log")),
    "sliding log, counts refused": ("sliding_log", _of("sliding_log", count_refused=True)),
    "weighted counter, clock": ("sliding_counter", _of("sliding_counter")),
    "weighted counter, other phase": ("sliding_counter", _other_phase("sliding_counter")),
    "weighted counter, first hit": ("first_hit_counter", _of("first_hit_counter")),
    "weighted counter, counts refused": ("sliding_counter", _of("sliding_counter", count_refused=True)),
    "token bucket": ("token_bucket", _of("token_bucket")),
    "token bucket, small burst": (
        "token_bucket",
        lambda limit, period_s, _: FAMILIES["token_bucket"](limit, period_s, max(2, limit // 4)),
    ),
    "refill in four lumps": ("interval_refill", _of("interval_refill")),
    "queue that delays": (
        "leaky_queue",
        lambda limit, period_s, rng: _queue(limit, period_s, rng, free=False),
    ),
    "queue, some at once": (
        "leaky_queue",
        lambda limit, period_s, rng: _queue(limit, period_s, rng, free=True),
    ),
}


def _queue(limit: int, period_s: float, rng: random.Random, *, free: bool) -> LeakyQueue:
    waiting = rng.randint(2, max(3, limit // 2))
    return LeakyQueue(limit, period_s, waiting, free=rng.randint(1, waiting - 1) if free else 0)


def burst_of(model: Model) -> int:
    """Return how many it lets in at once: what is judged, with the time in which so many come back."""
    if isinstance(model, TokenBucket):
        return model.burst
    return model.queue + 1 if isinstance(model, LeakyQueue) else model.limit


@dataclass(frozen=True, slots=True)
class Case:
    """One limiter behind one network, and what was said of it."""

    number: int
    plan: str
    """quick or full; or strangers, which is the full one on limiters of no family."""
    kind: str
    limit: int
    period_s: float
    noise: str
    documented: str
    """Whether what the quick plan was told was true."""
    judged: str
    """right, abstained or wrong."""
    named: str
    requests: int
    took_s: float
    said: str


def play(number: int, how: str) -> Case:
    """Play one case of a plan; the same number gives the same case."""
    began = time.process_time()
    quick = how == "quick"
    rng = random.Random(f"{number}/{how}")
    kinds = list(STRANGERS if how == "strangers" else KINDS)
    kind = kinds[number % len(kinds)]
    limit = rng.randint(5, 60)
    # Half of the periods are not what people choose, so that rounding to those is no help.
    period_s = rng.choice(NATURAL_S) if rng.random() < 0.5 else round(10 ** rng.uniform(0, 1.8), 3)
    # What cannot be reached one by one within a part of a period is no case for a sequential probe.
    latency_s = rng.choice([each for each in LATENCIES_S if each * limit <= 0.2 * period_s] or [0.002])
    noise = Noise(latency_s, rng.uniform(0, 0.4), rng.uniform(-0.2, 0.2), rng.choice([0.0, 0.02]))
    told = rng.choice(["true"] * 4 + ["limit", "period"]) if quick else "nothing"
    aims = PlanOptions(
        quick=quick,
        period_s=period_s * (2 if told == "period" else 1) if quick else None,
        limit=max(2, limit * 2 // 3 if told == "limit" else limit) if quick else None,
        budget=800,
    )
    start_s = START_S + rng.uniform(0, 100)
    if how == "strangers":
        stranger = STRANGERS[kind](limit, period_s, rng)
        world = World(stranger, noise, number)
        verdict = world.play(plan(aims, start_s))
        judged = foretells(verdict, stranger, noise.clock_offset_s, world.ended_s, rng)
    else:
        family, make = KINDS[kind]
        model = make(limit, period_s, rng)
        verdict = World(model, noise, number).play(plan(aims, start_s))
        held = burst_of(model)
        judged = judge(verdict, family, held, period_s * held / limit, by_class=quick)
    named = verdict.best.family if verdict.status == "found" and verdict.best else verdict.status
    said = "; ".join(
        f"{each.family}{'+' if each.count_refused else ''} {each.limit} {each.limit_range} "
        f"{each.period_s:.4g} ({each.period_range_s[0]:.4g}-{each.period_range_s[1]:.4g}) "
        f"{each.phase} {each.cost}"
        for each in verdict.consistent
    )
    return Case(
        number,
        how,
        kind,
        limit,
        period_s,
        f"{latency_s * 1000:.0f} ms, jitter {noise.jitter:.2f}, lost {noise.lost:.0%}",
        told,
        judged,
        named,
        verdict.attempts,
        round(time.process_time() - began, 3),
        said or verdict.reason,
    )


def judge(verdict: Verdict, family: str, limit: int, period_s: float, *, by_class: bool) -> str:
    """Say whether a verdict is right; ``by_class``, families of the same class are as good."""
    named = {CLASSES[each] for each in verdict.families}
    if verdict.status == "ambiguous" and not (by_class and named == {CLASSES[family]}):
        return "abstained" if family in verdict.families else "wrong"
    best = next((each for each in verdict.consistent if each.family == family), verdict.best)
    if best is None:
        return "abstained"
    if best.family == family and best.precision > VAGUE:
        return "abstained"
    period_right = abs(best.period_s - period_s) <= PERIOD_ERROR * period_s
    # A limit or a period given as a range does not claim more than the range.
    limit_right = best.limit_range[0] <= limit <= best.limit_range[1]
    in_range = best.period_range_s[0] * 0.98 <= period_s <= best.period_range_s[1] * 1.02
    return "right" if best.family == family and limit_right and (period_right or in_range) else "wrong"
