"""Simulated APIs for the probe's other questions, and whether its answers are right."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

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
TIMES_S = ((0.002, 0.002), (0.005, 0.02), (0.02, 0.02), (0.02, 0.1), (0.05, 0.1))
"""Latencies, and times until a first token."""
DRAIN_SHARE = 0.3
WIDE = 0.2
"""A number given as a range so wide, relative, is no answer."""
PERIOD_ERROR = 0.02
FOCUSES = ("concurrency", "tokens", "charges", "headers")
RETRY_AFTER = {
    "none": "absent",
    "no_retry_after": "absent",
    "nonsense": "absent",
    "short_retry_after": "too_short",
    "long_retry_after": "too_long",
}

Truth = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """One answer of one case."""

    case: int
    focus: str
    question: str
    truth: Any
    value: Any
    judged: str
    """right, abstained or wrong."""
    said: str
    setup: str


def play(number: int) -> list[Told]:
    """Play one case; the same number gives the same case."""
    rng = random.Random(f"questions {number}")
    focus = FOCUSES[number % len(FOCUSES)]
    limits, truth = _limits(focus, rng)
    rule = limits.requests
    # What cannot be reached one by one within a part of a period is another matter.
    quick_s = DRAIN_SHARE * rule.period_s / rule.limit if rule else 1.0
    fitting = [pair for pair in TIMES_S if sum(pair) <= quick_s] or TIMES_S[:1]
    latency_s, ttft_s = rng.choice(fitting)
    noise: dict[str, Any] = {
        "latency_s": latency_s,
        "jitter": rng.uniform(0, 0.4),
        "clock_offset_s": rng.uniform(-0.2, 0.2),
        "lost": rng.choice([0.0, 0.0, 0.01]),
        "terse": rng.random() < 0.5,
        "early_headers": rng.random() < 0.7,
        "ttft_s": ttft_s,
    }
    # Who asks a limiter that counts refusals while others do is never let in: nothing can be seen of it.
    shared = rng.random() < 0.1 and not (rule and rule.count_refused)
    api = VirtualApi(limits, seed=number, others=_others if shared else _nobody, **noise)
    api.now_s += rng.uniform(0, 100)
    documented = rng.choice(["all", "none"])
    task = ProbeTask(
        questions=(REQUESTS, focus) if focus != "headers" else (REQUESTS, "charges"),
        second_key=rng.random() < 0.7,
        with_401=rng.random() < 0.5,
        requests_per_min=_per_min(limits.requests) if documented == "all" else None,
        tokens_per_min=_per_min(limits.tokens) if documented == "all" else None,
        concurrency=limits.concurrency if documented == "all" else None,
    )
    began = time.process_time()
    found = probe(api, task)
    took_s = time.process_time() - began
    setup = (
        f"{limits.model_dump_json(exclude_defaults=True)} {noise} {'shared' if shared else ''} "
        f"documented {documented}; {len(api.flights)} requests, {took_s:.1f} s"
    )
    return [
        _told(number, focus, each, truth[each.question], setup)
        for each in found.answers
        if each.question in truth
    ]


def _others(draw: random.Random) -> int:
    return int(draw.random() < 0.3)


def _nobody(_: random.Random) -> int:
    return 0


def _limits(focus: str, rng: random.Random) -> tuple[SandboxLimits, Truth]:
    """Return limits that are drawn, and what is true of them."""
    requests = _requests(rng)
    rules: dict[str, Any] = {"requests": requests, "refusal_status": rng.choice([429] * 8 + [503, 403])}
    truth: Truth = {}
    if focus == "concurrency":
        rules["requests"] = rng.choice([None, requests])
        # More than the limit of requests lets in cannot be held.
        most = 60 if rules["requests"] is None else max(1, requests.limit - 10)
        slots = rng.choice([None, rng.randint(1, most)])
        rules |= {
            "concurrency": slots,
            "concurrency_excess": rng.choice(["refused", "queued"]),
            "cancelled_keeps_slot": rng.random() < 0.5,
        }
        truth |= {
            "concurrency_limit": slots,
            "concurrency_excess": rules["concurrency_excess"] if slots else None,
            "cancelled_frees_slot": not rules["cancelled_keeps_slot"] if slots else None,
        }
    elif focus == "tokens":
        rules["requests"] = rng.choice([None, requests])
        tokens = RateLimit.model_validate(
            {
                "limit": rng.choice([4_000, 10_000, 40_000, 100_000, 150_000]),
                "period_s": rng.choice(PERIODS_S),
                "algorithm": rng.choice(FAMILIES),
            }
        )
        rules |= {"tokens": tokens, "tokens_charged": rng.choice(["used", "reserved", "refunded"])}
        truth |= {
            "token_limit": tokens.limit,
            "token_period_s": tokens.period_s,
            "token_algorithm": tokens.algorithm,
            "tokens_charged": rules["tokens_charged"],
            "tokens_charged_at": "end" if rules["tokens_charged"] == "used" else "admission",
        }
    else:
        charged = tuple(each for each in (400, 404) if rng.random() < 0.4)
        per = tuple(each for each in ("key", "model") if rng.random() < 0.5)
        models = rng.random() < 0.4
        if focus == "charges":
            rules |= {
                "charged_errors": charged,
                "charged_endpoints": ("models",) if models else (),
                "per": per,
            }
            truth |= {
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
        else:
            rules["headers"] = rng.choice(["honest"] * 6 + [*RETRY_AFTER, "full_remaining"])
    truth |= _headers(rules.get("headers", "honest"), rules["requests"])
    # Terse refusals by another limit cannot be told from those of requests. What those for tokens say of the
    # wait is as true; those of what is in flight say nothing.
    if focus == "tokens":
        truth["retry_after"] = "honest"
    elif rules["requests"] is None and rules["concurrency"]:
        truth["retry_after"] = "absent"
    return virtual_limits(**rules), truth


def _headers(style: str, requests: RateLimit | None) -> Truth:
    silent = style in {"none", "nonsense"} or requests is None
    return {
        "limit_header": None if silent else "honest",
        "remaining_header": None if silent else "wrong" if style == "full_remaining" else "honest",
        "reset_header": None if silent else "window_end",
        "retry_after": None if requests is None else RETRY_AFTER.get(style, "honest"),
    }


def _requests(rng: random.Random) -> RateLimit:
    family = rng.choice(FAMILIES)
    rule: dict[str, Any] = {
        "limit": rng.randint(8, 60),
        "period_s": rng.choice(PERIODS_S),
        "algorithm": family,
    }
    if family in {"sliding_log", "sliding_counter"} and rng.random() < 0.3:
        rule["count_refused"] = True
    if family in {"fixed_window", "sliding_counter"} and rng.random() < 0.3:
        rule["phase_s"] = round(rng.uniform(0.1, 0.9) * rule["period_s"], 3)
    return RateLimit.model_validate(rule)


def _per_min(rule: RateLimit | None) -> int | None:
    return None if rule is None else round(rule.limit * 60 / rule.period_s)


def _told(number: int, focus: str, answer: Answer, truth: Any, setup: str) -> Told:
    said = f"{answer.says} {answer.range or ''} {'; '.join(answer.evidence)}"
    judged = judge(answer, truth)
    return Told(number, focus, answer.question, truth, answer.value, judged, said, setup)


def judge(answer: Answer, truth: Any) -> str:
    """Say whether an answer is right. Where there is nothing to find, *cannot tell* is."""
    if truth is None:
        return "right" if answer.value is None else "wrong"
    if answer.range is not None and isinstance(truth, int | float) and not isinstance(truth, bool):
        least, most = answer.range
        if not least * (1 - PERIOD_ERROR) <= truth <= most * (1 + PERIOD_ERROR):
            return "wrong"
        near = answer.value is not None and most - least <= WIDE * most
        return "right" if near else "abstained"
    if answer.value is None:
        return "abstained"
    return "right" if answer.value == truth else "wrong"
