"""Simulated APIs for the probe's other questions, and whether its answers are right."""

import random
import time
from dataclasses import dataclass
from typing import TypedDict

from benchmarks.simulation.virtual_api import VirtualApi, virtual_limits
from benchmarks.simulation.virtual_probe import probe
from bltybench.limits.experiments.registry import REQUESTS
from bltybench.limits.observations.answer import Answer
from bltybench.limits.session import ProbeTask
from bltybench.scenario.target import RateLimit, SandboxLimits

PERIODS_S = (2.0, 5.0, 10.0, 30.0, 60.0)
FAMILIES = (
    "fixed_window",
    "first_hit_window",
    "sliding_log",
    "sliding_counter",
    "first_hit_counter",
    "token_bucket",
)
RESPONSE_TIMES_S = ((0.002, 0.002), (0.005, 0.02), (0.02, 0.02), (0.02, 0.1), (0.05, 0.1))
"""Pairs of a latency and a time to first token."""
MAX_DRAIN_FRACTION = 0.3
"""Maximum time for a sequential client to reach the limit, in periods. The probe needs a quicker server."""
MAX_RANGE = 0.2
"""Width of a number's range, relative to its maximum, above which an answer counts as abstained."""
MAX_PERIOD_ERROR = 0.02
PAIRED = ("fixed_window", "sliding_log", "token_bucket")
"""Families of each limit in the cases with two request limits."""
PAIRED_FRACTION = 1 / 6
FOCUSES = ("concurrency", "tokens", "charges", "headers")
RETRY_AFTER = {
    "none": "absent",
    "no_retry_after": "absent",
    "nonsense": "absent",
    "short_retry_after": "too_short",
    "long_retry_after": "too_long",
}
"""Right answer about Retry-After for each header style. For other styles it is "honest"."""

Value = int | float | str | bool | None
Truth = dict[str, Value]
Rules = dict[str, object]
"""Changed fields of ``SandboxLimits``."""


class Noise(TypedDict):
    """Keyword arguments of ``VirtualApi`` that describe a network and its server."""

    latency_s: float
    jitter: float
    clock_offset_s: float
    lost: float
    terse: bool
    early_headers: bool
    ttft_s: float


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """One answer of one case."""

    case: int
    focus: str
    question: str
    truth: Value
    value: Value
    judged: str
    """right, abstained, or wrong."""
    said: str
    setup: str


def play(number: int) -> list[JudgedAnswer]:
    """Play one case. Its number is the seed."""
    rng = random.Random(f"questions {number}")
    focus = FOCUSES[number % len(FOCUSES)]
    limits, truth = _limits(focus, rng)
    limits = _with_second_limit(limits, random.Random(f"second limit {number}"))
    rule = limits.requests
    max_response_s = MAX_DRAIN_FRACTION * rule.period_s / rule.limit if rule else 1.0
    fitting = [pair for pair in RESPONSE_TIMES_S if sum(pair) <= max_response_s] or RESPONSE_TIMES_S[:1]
    latency_s, ttft_s = rng.choice(fitting)
    noise = Noise(
        latency_s=latency_s,
        jitter=rng.uniform(0, 0.4),
        clock_offset_s=rng.uniform(-0.2, 0.2),
        lost=rng.choice([0.0, 0.0, 0.01]),
        terse=rng.random() < 0.5,
        early_headers=rng.random() < 0.7,
        ttft_s=ttft_s,
    )
    # A shared limiter that counts refused requests never accepts a probe: there would be nothing to observe.
    shared = rng.random() < 0.1 and not (rule and rule.count_refused)
    api = VirtualApi(limits, seed=number, others=_others if shared else _nobody, **noise)
    api.now_s += rng.uniform(0, 100)
    documented = rng.choice(["all", "none"])
    task = ProbeTask(
        questions=(REQUESTS, focus if focus != "headers" else "charges"),
        second_key=rng.random() < 0.7,
        with_401=rng.random() < 0.5,
        requests_per_min=_per_min(limits.requests) if documented == "all" else None,
        tokens_per_min=_per_min(limits.tokens) if documented == "all" else None,
        concurrency=limits.concurrency if documented == "all" else None,
    )
    start_cpu_s = time.process_time()
    findings = probe(api, task)
    took_s = time.process_time() - start_cpu_s
    setup = (
        f"{limits.model_dump_json(exclude_defaults=True)} {noise} {'shared' if shared else ''} "
        f"documented {documented}; {len(api.requests)} requests, {took_s:.1f} s"
    )
    return [
        JudgedAnswer(
            case=number,
            focus=focus,
            question=answer.question,
            truth=truth[answer.question],
            value=answer.value,
            judged=judge(answer, truth[answer.question]),
            said=f"{answer.says} {answer.range or ''} {'; '.join(answer.evidence)}",
            setup=setup,
        )
        for answer in findings.answers
        if answer.question in truth
    ]


def _others(rng: random.Random) -> int:
    return int(rng.random() < 0.3)


def _nobody(_: random.Random) -> int:
    return 0


def _limits(focus: str, rng: random.Random) -> tuple[SandboxLimits, Truth]:
    """Return random limits, and the right answers about them."""
    requests = _request_limit(rng)
    limits = virtual_limits(requests=requests, refusal_status=rng.choice([429] * 8 + [503, 403]))
    draw = {"concurrency": _concurrency, "tokens": _tokens, "charges": _charges, "headers": _charges}[focus]
    rules, truth = draw(requests, rng)
    if focus == "headers":
        rules, truth = {"headers": rng.choice(["honest"] * 6 + [*RETRY_AFTER, "full_remaining"])}, {}
    limits = limits.model_copy(update=rules)
    truth |= _headers(limits)
    # Terse refusals by another limit look like those of the request limit. Those of a token limit carry an
    # accurate Retry-After; those of a concurrency limit carry none.
    if focus == "tokens":
        truth["retry_after"] = "honest"
    elif limits.requests is None and limits.concurrency:
        truth["retry_after"] = "absent"
    return limits, truth


def _request_limit(rng: random.Random) -> RateLimit:
    family = rng.choice(FAMILIES)
    rule = RateLimit.model_validate(
        {"limit": rng.randint(8, 60), "period_s": rng.choice(PERIODS_S), "algorithm": family}
    )
    options: Rules = {}
    if family in {"sliding_log", "sliding_counter"} and rng.random() < 0.3:
        options["count_refused"] = True
    if family in {"fixed_window", "sliding_counter"} and rng.random() < 0.3:
        options["phase_s"] = round(rng.uniform(0.1, 0.9) * rule.period_s, 3)
    return rule.model_copy(update=options)


def _with_second_limit(limits: SandboxLimits, rng: random.Random) -> SandboxLimits:
    """Add a longer request limit, or not."""
    short = limits.requests
    if short is None or short.count_refused or short.algorithm not in PAIRED:
        return limits
    if rng.random() >= PAIRED_FRACTION * len(FAMILIES) / len(PAIRED):
        return limits
    ratio = rng.choice([6, 12, 20])
    long = RateLimit.model_validate(
        {
            "limit": round(short.limit * rng.uniform(1.5, 3)),
            "period_s": ratio * short.period_s,
            "algorithm": rng.choice(PAIRED),
        }
    )
    return limits.model_copy(update={"requests": short.model_copy(update={"also": long})})


def _concurrency(requests: RateLimit, rng: random.Random) -> tuple[Rules, Truth]:
    rule = rng.choice([None, requests])
    # The probe cannot hold more requests in flight than the request limit accepts.
    max_slots = 60 if rule is None else max(1, requests.limit - 10)
    slots = rng.choice([None, rng.randint(1, max_slots)])
    excess, keeps_slot = rng.choice(["refused", "queued"]), rng.random() < 0.5
    rules: Rules = {
        "requests": rule,
        "concurrency": slots,
        "concurrency_excess": excess,
        "cancelled_keeps_slot": keeps_slot,
    }
    truth: Truth = {
        "concurrency_limit": slots,
        "concurrency_excess": excess if slots else None,
        "cancelled_frees_slot": not keeps_slot if slots else None,
    }
    return rules, truth


def _tokens(requests: RateLimit, rng: random.Random) -> tuple[Rules, Truth]:
    rule = rng.choice([None, requests])
    tokens = RateLimit.model_validate(
        {
            "limit": rng.choice([4_000, 10_000, 40_000, 100_000, 150_000]),
            "period_s": rng.choice(PERIODS_S),
            "algorithm": rng.choice(FAMILIES),
        }
    )
    charged = rng.choice(["used", "reserved", "refunded"])
    truth: Truth = {
        "token_limit": tokens.limit,
        "token_period_s": tokens.period_s,
        "token_algorithm": tokens.algorithm,
        "tokens_charged": charged,
        "tokens_charged_at": "end" if charged == "used" else "admission",
    }
    return {"requests": rule, "tokens": tokens, "tokens_charged": charged}, truth


def _charges(requests: RateLimit, rng: random.Random) -> tuple[Rules, Truth]:
    charged = tuple(status for status in (400, 404) if rng.random() < 0.4)
    per = tuple(scope for scope in ("key", "model") if rng.random() < 0.5)
    models = rng.random() < 0.4
    truth: Truth = {
        "malformed_counts": 400 in charged,
        "unknown_model_counts": 404 in charged,
        "wrong_key_counts": False,
        "models_endpoint_counts": models,
        "models_endpoint_shares": models,
        "limit_per_key": "key" in per,
        "limit_per_model": "model" in per,
    }
    if "window" not in requests.algorithm:
        truth["refused_counts"] = bool(requests.count_refused)
    endpoints = ("models",) if models else ()
    return {"charged_errors": charged, "charged_endpoints": endpoints, "per": per}, truth


def _headers(limits: SandboxLimits) -> Truth:
    silent = limits.headers in {"none", "nonsense"} or limits.requests is None
    remaining = "wrong" if limits.headers == "full_remaining" else "honest"
    return {
        "limit_header": None if silent else "honest",
        "remaining_header": None if silent else remaining,
        "reset_header": None if silent else "window_end",
        "retry_after": None if limits.requests is None else RETRY_AFTER.get(limits.headers, "honest"),
    }


def _per_min(rule: RateLimit | None) -> int | None:
    return None if rule is None else round(rule.limit * 60 / rule.period_s)


def judge(answer: Answer, truth: Value) -> str:
    """Return whether an answer is right. If there is nothing to find, *cannot tell* is."""
    if truth is None:
        return "right" if answer.value is None else "wrong"
    if answer.range is not None and isinstance(truth, int | float) and not isinstance(truth, bool):
        low, high = answer.range
        if not low * (1 - MAX_PERIOD_ERROR) <= truth <= high * (1 + MAX_PERIOD_ERROR):
            return "wrong"
        narrow = answer.value is not None and high - low <= MAX_RANGE * high
        return "right" if narrow else "abstained"
    if answer.value is None:
        return "abstained"
    return "right" if answer.value == truth else "wrong"
