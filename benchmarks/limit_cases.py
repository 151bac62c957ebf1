"""Simulated limiters behind simulated networks, and whether the probe identifies them."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import limit_pairs, unmodeled_limiters
from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from benchmarks.unmodeled_limiters import UNMODELED
from bltybench.limits.findings.cautious import unless_delayed
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.models import FirstHitWindow, LeakyQueue, TokenBucket, Waiting
from bltybench.limits.models.base import Admission, Model
from bltybench.limits.models.families import FAMILIES
from bltybench.limits.observations.announcement import Announcement
from bltybench.limits.observations.waits import waits_of
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions

START_S = 1_795_358_400.0
USUAL_PERIODS_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
LATENCIES_S = (0.005, 0.02, 0.05, 0.2)
MAX_DRAIN_FRACTION = 0.2
"""Maximum time for a sequential client to reach the limit, in periods. The probe needs a quicker server."""
MAX_PERIOD_ERROR = 0.02
MAX_PRECISION = 0.2
"""Half width of the period's range, relative to the period, above which a verdict counts as abstained."""

FALSE_RATIOS = (0.1, 0.5, 0.8, 1.5, 2.0, 6.0)
"""Announced period, relative to the actual one, if it is false."""

MakeModel = Callable[[int, float, random.Random], Model]


def _model(family: str, **options: bool) -> MakeModel:
    return lambda limit, period_s, _: FAMILIES[family].model(limit, period_s, **options)


def _other_phase(family: str) -> MakeModel:
    return lambda limit, period_s, rng: FAMILIES[family].model(
        limit, period_s, rng.uniform(0.1, 0.9) * period_s
    )


def _waiting(family: str) -> MakeModel:
    return lambda limit, period_s, rng: Waiting(FAMILIES[family].model(limit, period_s), rng.randint(1, 12))


def _queue(*, burst: bool) -> MakeModel:
    def make(limit: int, period_s: float, rng: random.Random) -> LeakyQueue:
        waiting = rng.randint(2, max(3, limit // 2))
        return LeakyQueue(limit, period_s, waiting, free=rng.randint(1, waiting - 1) if burst else 0)

    return make


KINDS: dict[str, tuple[str, MakeModel]] = {
    "fixed window, clock": ("fixed_window", _model("fixed_window")),
    "fixed window, other phase": ("fixed_window", _other_phase("fixed_window")),
    "fixed window, first hit": ("first_hit_window", _model("first_hit_window")),
    "sliding log": ("sliding_log", _model("sliding_log")),
    "sliding log, counts refused": ("sliding_log", _model("sliding_log", count_refused=True)),
    "sliding counter, clock": ("sliding_counter", _model("sliding_counter")),
    "sliding counter, other phase": ("sliding_counter", _other_phase("sliding_counter")),
    "sliding counter, first hit": ("first_hit_counter", _model("first_hit_counter")),
    "sliding counter, counts refused": ("sliding_counter", _model("sliding_counter", count_refused=True)),
    "token bucket": ("token_bucket", _model("token_bucket")),
    "token bucket, small burst": (
        "token_bucket",
        lambda limit, period_s, _: FAMILIES["token_bucket"].model(limit, period_s, max(2, limit // 4)),
    ),
    "bucket of whole tokens": ("whole_token_bucket", _model("whole_token_bucket")),
    "interval refill, four ticks": ("interval_refill", _model("interval_refill")),
    "leaky queue": ("leaky_queue", _queue(burst=False)),
    "fixed window, waiting room": ("fixed_window", _waiting("fixed_window")),
    "first-hit window, waiting room": ("first_hit_window", _waiting("first_hit_window")),
    "first-hit window, spread out": ("first_hit_window", _model("first_hit_window", spread=True)),
    "leaky queue, burst": ("leaky_queue", _queue(burst=True)),
}


KINDS_OF = {"strangers": list(UNMODELED), "pairs": list(limit_pairs.KINDS)}
"""Kinds of limiters of the plans that don't play ``KINDS``."""


@dataclass(frozen=True, slots=True)
class Case:
    """A limiter behind a network, and the probe's verdict on it."""

    number: int
    plan: str
    """quick, announced (the quick plan, which is given only headers), full, pairs (the full plan on two
    limits at once), or strangers: the full plan on limiters outside the modeled families."""
    kind: str
    limit: int
    period_s: float
    noise: str
    documented: str
    """What the quick plan was given: "true" limits, a wrong "limit", a wrong "period", or "nothing". If it is
    given only headers: what they announce."""
    judged: str
    """right, abstained, or wrong."""
    named: str
    requests: int
    busy_s: float
    """Duration of the probe, in seconds."""
    took_s: float
    said: str


def play(number: int, plan_name: str, kind: str | None = None) -> list[Case]:
    """Play one case of a plan. Its number is the seed, and chooses the kind if none is given."""
    start_cpu_s = time.process_time()
    quick, by_headers = plan_name in {"quick", "announced"}, plan_name == "announced"
    rng = random.Random(f"{number}/{plan_name}")
    kinds = KINDS_OF.get(plan_name, list(KINDS))
    kind = kind or kinds[number % len(kinds)]
    limit = rng.randint(limit_pairs.MIN_LONG_LIMIT if plan_name == "pairs" else 5, 60)
    # Half of the periods are unusual, so that a preference for usual ones gains nothing.
    period_s = rng.choice(USUAL_PERIODS_S) if rng.random() < 0.5 else round(10 ** rng.uniform(0, 1.8), 3)
    pair, held, held_s = None, limit, period_s
    if plan_name == "pairs":
        period_s = max(period_s, limit_pairs.MIN_LONG_PERIOD_S)
        pair = limit_pairs.make_pair(kind, limit, period_s, rng)
        held, held_s = pair.limit, pair.period_s
    max_drain_s = MAX_DRAIN_FRACTION * held_s
    latency_s = rng.choice([one_s for one_s in LATENCIES_S if one_s * held <= max_drain_s] or [0.002])
    noise = NetworkNoise(latency_s, rng.uniform(0, 0.4), rng.uniform(-0.2, 0.2), rng.choice([0.0, 0.02]))
    documented = rng.choice(["true"] * 4 + ["limit", "period"]) if quick else "nothing"
    announce = None
    if by_headers:
        documented, announce = _announced(limit, period_s, rng)
    options = PlanOptions(
        quick=quick,
        period_s=period_s * (2 if documented == "period" else 1) if quick and not by_headers else None,
        limit=max(2, limit * 2 // 3 if documented == "limit" else limit)
        if quick and not by_headers
        else None,
        budget=800,
    )
    start_s = START_S + rng.uniform(0, 100)
    if pair is not None:
        limiter = VirtualLimiter(pair, noise, number)
        verdict = limiter.play(plan(options, start_s))
        judged = limit_pairs.judge(verdict, pair)
    elif plan_name == "strangers":
        unmodeled = UNMODELED[kind](limit, period_s, rng)
        limiter = VirtualLimiter(unmodeled, noise, number)
        verdict = limiter.play(plan(options, start_s))
        judged = unmodeled_limiters.judge(verdict, unmodeled, noise.clock_offset_s, limiter.ended_s, rng)
    else:
        family, make = KINDS[kind]
        model = make(limit, period_s, rng)
        limiter = VirtualLimiter(model, noise, number, announce)
        verdict = limiter.play(plan(options, start_s))
        verdict = unless_delayed(verdict, waits_of(limiter.observations), limiter.observations)
        burst = _burst(model)
        judged = judge(verdict, family, burst, period_s * burst / limit, by_class=quick)
        if verdict.best is not None and not _delays_match(verdict.best, model):
            judged = "wrong"
    return [
        Case(
            number=number,
            plan=plan_name,
            kind=kind if pair is None or pair.both_hit else f"{kind} (one was hit)",
            limit=limit,
            period_s=period_s,
            noise=f"{latency_s * 1000:.0f} ms, jitter {noise.jitter:.2f}, lost {noise.lost:.0%}",
            documented=documented,
            judged=judged,
            named=_named(verdict),
            requests=verdict.attempts,
            busy_s=round(limiter.busy_s, 1),
            took_s=round(time.process_time() - start_cpu_s, 3),
            said="; ".join(map(_described, verdict.consistent)) or verdict.reason,
        )
    ]


def _announced(
    limit: int, period_s: float, rng: random.Random
) -> tuple[str, Callable[[Admission], Announcement]]:
    """Return what headers announce, true or false, in words and as a function."""
    ratio = rng.choice([1.0] * len(FALSE_RATIOS) + [*FALSE_RATIOS])
    header = rng.choice(["window", "reset", "whole reset", "nothing"])

    def announce(admission: Admission) -> Announcement:
        window_s = ratio * period_s if header == "window" else None
        reset_s = ratio * admission.reset_s if "reset" in header else None
        if reset_s is not None and header == "whole reset":
            reset_s = float(math.ceil(reset_s))
        known = header != "nothing"
        return Announcement(
            limit if known else None, int(admission.remaining) if known else None, reset_s, window_s
        )

    return f"{header}, times {ratio:g}", announce


def _named(verdict: Verdict) -> str:
    """Return what the verdict names: a ban or a family; else its status."""
    if verdict.ban is not None:
        return "ban"
    if verdict.status != "found" or verdict.best is None:
        return verdict.status
    return "two limits" if verdict.has_two_limits else verdict.best.family


def _delays_match(best: Fit, model: Model) -> bool:
    """Return whether the model has the waiting room, or the delays, that a fit has. Seats are a minimum."""
    is_spread = isinstance(model, FirstHitWindow) and model.spread
    seats = model.seats if isinstance(model, Waiting) else 0
    return (is_spread or not best.spread) and (best.seats or 0) <= seats


def _burst(model: Model) -> int:
    """Return how many requests the model accepts in one burst."""
    if isinstance(model, TokenBucket):
        return model.burst
    return model.queue + 1 if isinstance(model, LeakyQueue) else model.limit


def _described(fit: Fit) -> str:
    low_s, high_s = fit.period_range_s
    also = "" if fit.also is None else f", and {_described(fit.also)}"
    return (
        f"{fit.family}{'+' if fit.count_refused else ''} {fit.limit} {fit.limit_range} "
        f"{fit.period_s:.4g} ({low_s:.4g}-{high_s:.4g}) {fit.phase} {fit.cost}{also}"
    )


def judge(verdict: Verdict, family: str, limit: int, period_s: float, *, by_class: bool) -> str:
    """Return whether a verdict is right; if ``by_class``, any family of the right class will do."""
    kinds = {FAMILIES[name].kind for name in verdict.families}
    if verdict.status == "ambiguous" and not (by_class and kinds == {FAMILIES[family].kind}):
        return "abstained" if family in verdict.families else "wrong"
    best = next((fit for fit in verdict.consistent if fit.family == family), verdict.best)
    if best is None or (best.family == family and best.precision > MAX_PRECISION):
        return "abstained"
    low_s, high_s = best.period_range_s
    period_right = abs(best.period_s - period_s) <= MAX_PERIOD_ERROR * period_s or low_s * (
        1 - MAX_PERIOD_ERROR
    ) <= period_s <= high_s * (1 + MAX_PERIOD_ERROR)
    limit_right = best.limit_range[0] <= limit <= best.limit_range[1]
    return "right" if best.family == family and limit_right and period_right else "wrong"
