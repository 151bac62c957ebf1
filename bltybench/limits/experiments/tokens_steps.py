"""How tokens are limited: what is charged, when, how many in which time.

1. *Fill*: once nothing that was used before can count any more, streams that might use much are held open.
   One that is refused, though next to nothing was used, shows that prompt + max_tokens are reserved at
   admission; ever smaller ones fill the rest, to a few tokens. It is filled again after the units, for a
   window may have turned meanwhile, or more may have counted than was thought.
2. *After*: these are dropped, and others that might use much but end with their first word follow one by one.
   Reservations that are given back let all of them in, and those that are kept do not.
3. *Size*, where nothing is reserved: prompts that double until one is refused.
   *Units*: requests of an eighth of the limit each, so that the limit of tokens is one of eight requests,
   whose period and algorithm are found as those of any other. What is given back must really be used then.
4. Where only used tokens count: smaller *parts* for the exact size, and all units *together*: where they are
   charged when their answers end, more are let in than fit.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from bltybench.limits.experiments.tokens_roles import (
    AFTER,
    FILL,
    LATER,
    ONE_BY_ONE,
    PART,
    PROMPT_SLACK,
    REFILL,
    SIZE,
    TOGETHER,
    UNIT,
    bounds,
    charged_of,
    largest,
    unit_sights,
    unit_verdict,
    used,
)
from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.observation import Observation
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import Burst, PlanOptions
from bltybench.limits.probe.protocol import CancelStep, Experiment, ProbeRequest, SendStep, Step
from bltybench.limits.probe.thresholds import CONTEXT, PLAN

NAME = "tokens"
UNITS = 8
"""Into so many requests the limit of tokens is cut."""
MOST_FILLED = 48
SMALL = 8
"""Tokens of a short prompt, about."""
FIRST_FILL = 1024
FINE = 0.001
"""The share of the limit to which it is filled."""
BEYOND = 1.3
"""So many times the documented limit are reserved before it is taken that nothing is."""
TRIES = 3
"""How often at most one is sent whose answer is lost."""
SHARES = (0.5, 0.45, 0.45, 0.45)
"""Of the limit: what might be used, one by one. Kept, the first two fit and no more. Where the model does not
take so much at once, as much in smaller ones."""
LONGEST_S = 300.0
MOST_UNITS = 120
SIZE_SHARE = 6
"""The part of the tokens that finding the size may cost: the rest is needed to find out about it."""
PARTS = 8
EXTRA = 3
"""So many more units than fit are sent together."""


def ask(known: ProbeContext, now_s: float) -> Experiment:
    """Return the experiment, to begin at ``now_s`` (Unix time) or later."""
    if min(known.burst, known.requests_left) < 2 * len(SHARES):
        return
    seen = yield from _fill(known, known.available_s(now_s, _idle_s(known)))
    filled = bounds(seen)
    if filled is not None and filled[1] is not None:
        seen = yield from _after(seen, filled[0])
        size, kept = filled[0], charged_of(seen) == "reserved"
    else:
        seen = yield from _size(known, seen)
        size, kept = _expected(known, seen), False
    # A 400 only says that so many tokens cannot be asked for at once.
    if not size or (seen[-1].accepted is None and seen[-1].status != 400):
        return
    yield from _units(known, seen, size, kept=kept)


def _fill(known: ProbeContext, at_s: float) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    documented = known.tokens_per_min
    size = max(FIRST_FILL, min(documented // 4, known.tokens_left // 8)) if documented else FIRST_FILL
    room = min(MOST_FILLED, known.burst - 2 * len(SHARES), (known.measured_concurrency or MOST_FILLED) - 1)
    mistakes = 0
    seen: Sequence[ProbeResult] = ()
    while len(seen) < room and mistakes < 4:
        least, most = bounds(seen) or (0, None)
        if least + size > known.tokens_left // 2 and most is None:
            break
        shot = ProbeRequest(role=FILL, stream=True, max_tokens=size)
        seen = yield SendStep((shot,), at_s, until="decided", purpose=f"{least + size:,} tokens in flight")
        at_s = 0.0
        last = seen[-1]
        least, most = bounds(seen) or (0, None)
        if last.status == 400:
            mistakes += 1
            size //= 2
        elif last.accepted is None or last.about_concurrency:
            break
        elif most is None:
            if documented is not None and least > BEYOND * documented:
                break
            size = size if documented else 2 * size
        else:
            if most - least <= max(2 * SMALL, FINE * most):
                break
            size = max(1, (most - least) // 2 - SMALL)
    seen = yield CancelStep()
    return seen


def _after(
    seen: Sequence[ProbeResult], size: int
) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    """See whether the reservations come back: at once, or later, and whether they do each time."""
    most = largest(seen) or size

    def brief(
        role: str, share: float, after_s: float, says: str
    ) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
        shot = ProbeRequest(role=role, one_word=True, max_tokens=max(1, min(most, int(share * size) - SMALL)))
        return _answered(SendStep((shot,), after_s=after_s, purpose=says))

    seen = yield from brief(AFTER, SHARES[0], 0.5, "are reservations given back?")
    wait_s, waited_s = 0.5, 0.5
    while seen[-1].refused and waited_s < LONGEST_S:
        seen = yield from brief(LATER, SHARES[0], wait_s, "waiting for tokens")
        waited_s += wait_s
        wait_s *= PLAN.wait_growth
    asked = 0
    while seen[-1].accepted and asked < sum(SHARES[1:]) * size:
        asked += most if most < SHARES[1] * size else int(SHARES[1] * size)
        seen = yield from brief(ONE_BY_ONE, SHARES[1], 0.0, "one by one")
    return seen


def _answered(send: SendStep) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    """Send one request, and again where its answer is lost."""
    seen: Sequence[ProbeResult] = ()
    for _ in range(TRIES):
        seen = yield send
        if not seen[-1].lost:
            break
    return seen


def _size(
    known: ProbeContext, seen: Sequence[ProbeResult]
) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    """Find about how many tokens can be used, with prompts that double."""
    size, spent, at_s = FIRST_FILL, 0, known.available_s(_last_s(seen), _idle_s(known))
    most = known.tokens_left // SIZE_SHARE
    # What is charged when an answer ends is seen by the next one: a short one comes last.
    while spent < most + FIRST_FILL:
        shot = ProbeRequest(role=SIZE, prompt_tokens=size)
        seen = yield from _answered(SendStep((shot,), at_s, purpose=f"{spent + size:,} tokens used"))
        if seen[-1].accepted is not True:
            break
        spent += used(seen[-1])
        size = min(2 * size, max(FIRST_FILL, most - spent))
    return seen


def _expected(known: ProbeContext, seen: Sequence[ProbeResult]) -> int:
    """Return about how many tokens can be used: the documented limit where it may be true; 0: not known."""
    documented, taken = known.tokens_per_min or 0, sum(used(each) for each in seen if each.role == SIZE)
    if seen and seen[-1].refused and not documented / 2 <= taken <= 2 * documented:
        return taken
    return documented


def unit_of(known: ProbeContext, size: int, most: int | None = None, *, kept: bool) -> ProbeRequest:
    """Return one of the units that the limit is cut into; max_tokens may be at most ``most``."""
    count = max(2, min(UNITS, known.burst // 3, known.requests_left // 8))
    # As many must fit each time, though no prompt is counted exactly; and hardly any part of one more, for
    # the families differ in what becomes of that.
    each = max(2 * SMALL, int((1 - 2 * FINE) * size / count) - 2 * PROMPT_SLACK)
    if kept:
        return ProbeRequest(role=UNIT, one_word=True, max_tokens=max(1, min(most or each, each - SMALL - 2)))
    return ProbeRequest(role=UNIT, prompt_tokens=each)


def _units(known: ProbeContext, seen: Sequence[ProbeResult], size: int, *, kept: bool) -> Experiment:
    unit = unit_of(known, size, largest(seen), kept=kept)
    spent = sum(used(each) for each in seen)
    afford = (known.tokens_left - spent) // (2 * SMALL if kept else unit.max_total_tokens)
    exact = 0 if (bounds(seen) or (0, None))[1] is not None else 2 * UNITS + EXTRA
    if afford > 2 * exact:
        afford -= exact
    budget = min(MOST_UNITS, known.requests_left - len(seen), afford)
    if budget < 4:
        return
    fresh_s = known.available_s(_last_s(seen), _idle_s(known))
    hints = PlanOptions(budget=budget, rounds=1, period_s=known.expected_token_period_s)
    seen = yield from _play(plan(hints, fresh_s), unit, fresh_s, seen)
    if (bounds(seen) or (0, None))[1] is None:
        yield from _exact(known, unit, seen)
    else:
        yield from _refill(known, unit, seen)


def _play(
    playing: Generator[Burst, Sequence[Observation], Verdict],
    unit: ProbeRequest,
    fresh_s: float,
    seen: Sequence[ProbeResult],
) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    """Play the plan for a limit of requests with units; return all that was seen."""
    try:
        burst = next(playing)
        while True:
            before = len(seen)
            at_s = max(fresh_s, burst.at_s)
            seen = yield SendStep(
                (unit,) * burst.max_requests, at_s, until_refused=True, purpose=burst.purpose
            )
            if burst.confirm_s is not None and seen[-1].refused:
                seen = yield SendStep((unit,), after_s=burst.confirm_s, purpose=burst.purpose)
            since_s = min((each.sent_s for each in seen[before:]), default=at_s)
            burst = playing.send([sight for sight in unit_sights(seen) if sight.sent_s >= since_s])
    except StopIteration:
        return seen


def _refill(known: ProbeContext, unit: ProbeRequest, seen: Sequence[ProbeResult]) -> Experiment:
    """Fill the limit once more where all of it is free: first nearly all that should fit, then less."""
    verdict = unit_verdict(seen, known)
    if verdict.best is None:
        return
    at_s = replace(known, fits=verdict.consistent).available_s(known.available_s(_last_s(seen)))
    fits, top = (
        verdict.best.limit_range[0] * unit.max_total_tokens,
        (verdict.best.limit + 1) * unit.max_total_tokens,
    )
    most_each = largest(seen) or top
    size = max(1, min(most_each, fits - 2 * SMALL))
    for _ in range(min(MOST_FILLED // 2, known.burst, known.requests_left - len(seen))):
        shot = ProbeRequest(role=REFILL, stream=True, max_tokens=size)
        seen = yield SendStep((shot,), at_s, until="decided", purpose="filling it again")
        at_s = 0.0
        least, refused = bounds(seen, REFILL) or (0, None)
        if refused is None and top - least <= 2 * SMALL:
            top = 2 * least  # more is free than when it was filled first
        left = (refused or top) - least
        if seen[-1].accepted is None or left <= max(2 * SMALL, FINE * least):
            break
        size = max(1, min(most_each, left // 2 - SMALL))
    yield CancelStep()


def _exact(known: ProbeContext, unit: ProbeRequest, seen: Sequence[ProbeResult]) -> Experiment:
    """Find the size to a part of a unit, and whether what is in flight is charged already."""
    verdict = unit_verdict(seen, known)
    best = verdict.best
    spent = sum(used(each) for each in seen)
    if best is None or known.tokens_left - spent < (best.limit + 1) * unit.max_total_tokens:
        return
    part = ProbeRequest(role=PART, prompt_tokens=max(2 * SMALL, unit.max_total_tokens // PARTS))
    found = replace(known, fits=verdict.consistent)
    # What is charged at the end goes beyond the limit, so a bucket may owe a unit and more.
    idle_s = max(best.period_s, _idle_s(known))
    ready_s = found.available_s(known.available_s(_last_s(seen), idle_s))
    yield SendStep(
        (unit_like(unit, PART),) * (best.limit - 1), ready_s, until_refused=True, purpose="exact size"
    )
    parts = min(PARTS + 2, known.burst - best.limit)
    seen = yield SendStep((part,) * parts, until_refused=True, purpose="exact size")
    count = best.limit + EXTRA
    spent = sum(used(each) for each in seen)
    if known.tokens_left - spent < count * unit.max_total_tokens or count > min(
        known.measured_concurrency or count, known.burst
    ):
        return
    ready_s = found.available_s(known.available_s(_last_s(seen), idle_s))
    yield SendStep((unit_like(unit, TOGETHER),) * count, ready_s, max_in_flight=count, purpose="all together")


def unit_like(unit: ProbeRequest, role: str) -> ProbeRequest:
    """Return a unit for another purpose."""
    return ProbeRequest(
        role=role, prompt_tokens=unit.prompt_tokens, max_tokens=unit.max_tokens, one_word=unit.one_word
    )


def _last_s(seen: Sequence[ProbeResult]) -> float:
    return max((each.end_s or each.sent_s for each in seen), default=0.0)


def _idle_s(known: ProbeContext) -> float:
    """Return after how long nothing that was used counts any more: the window before may."""
    return (1 + CONTEXT.idle_periods) * known.expected_token_period_s
