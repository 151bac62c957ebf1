"""What counts against the limit of requests, and whose limit it is.

1. In a fresh window so many requests that are wrong in one way, twice as many that are wrong in another, and
   so on; then good ones until the first refusal. How many are missing tells which of the wrong ones counted.
2. While the limit is used up: another key, another model, another endpoint; and the own again, to see that it
   still is. Then again just before, and just after, the time that Retry-After names.
3. The limit is used up once more and asked again and again: if refusals cost nothing it is free when
   predicted.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from bltybench.limits.fit.result import Fit
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import Experiment, Kind, ProbeRequest, SendStep, Step

NAME = "charges"
FIRST = "first"
DRAIN, SECOND_KEY, OTHER_MODEL, MODELS, CONTROL = "drain", "second key", "other model", "models", "own again"
EARLY, RETRY = "before Retry-After is over", "after Retry-After"
SECOND_DRAIN, HAMMER, FREE, LATER = "second drain", "hammer", "when it should be free", "later"
WRONG: dict[Kind, str] = {
    "malformed": "malformed",
    "unknown_model": "unknown model",
    "models": "list of models",
    "wrong_key": "wrong key",
}
"""Kinds whose price is asked for, and the roles of those that are sent for it."""

SHARE = 16
"""The first kind is sent once for so many requests of the limit; twice at least where it is not tiny, for
one may go missing by chance."""
TINY = 6
ASKED = 2
"""How often others are tried while the limit is used up."""
RETRIES = 3
"""How often a Retry-After is followed that was not enough."""
MOST_SHARE = {False: 0.85, True: 0.6}
"""Of the limit, the most that the wrong ones may take: where nothing comes back meanwhile, and else."""
HAMMERS = 6
MARGIN = 0.04
"""Of a period: how long after the predicted time it is asked whether the limit is free."""
LATER_S = (0.3, 0.5, 1.0)
"""Periods after that at which it is asked again."""
LONGEST_S = 150.0
"""A Retry-After that is longer is not waited for."""
EARLY_S = 1.3
"""How long before its end it is asked: a whole second is owed to rounding."""
AFTER_S = 0.03
EXTRA = 3


def ask(known: ProbeContext, now_s: float) -> Experiment:
    """Return the experiment, to begin at ``now_s`` (Unix time) or later."""
    if known.fit is None or known.burst < 1:
        return
    seen: Sequence[ProbeResult] = ()
    for group in groups(known):
        wrong = sum(count for _, count in group)
        if known.requests_left - len(seen) < _most(known) + wrong + EXTRA:
            return
        shots = (ProbeRequest(role=FIRST),) * _first(known, wrong)
        shots += tuple(
            ProbeRequest(role=WRONG[kind], kind=kind) for kind, count in group for _ in range(count)
        )
        at_s = known.available_s(_last_s(seen, now_s))
        yield SendStep(
            shots, at_s, max_in_flight=known.drain_in_flight, purpose=f"{wrong} requests that are wrong"
        )
        seen = yield _drain(known, DRAIN)
    seen = yield from _asides(known)
    seen = yield from _retry(known, seen)
    if known.requests_left - len(seen) >= _most(known) + HAMMERS + 2 * EXTRA:
        yield from _hammer(known, seen)


def groups(known: ProbeContext) -> list[list[tuple[Kind, int]]]:
    """Return which kinds of wrong requests are sent before the limit is used up, and how many of each.

    Their numbers are such that each sum of some of them is another: 1, 2, 4 …
    """
    kinds: list[Kind] = ["malformed", "unknown_model", "models"]
    if known.with_401:
        kinds.append("wrong_key")
    unit = unit_of(known)
    most = MOST_SHARE[_gives_back(known)] * known.burst
    made: list[list[tuple[Kind, int]]] = []
    while kinds:
        group = [(kind, unit << place) for place, kind in enumerate(kinds)]
        while len(group) > 1 and sum(count for _, count in group) > most:
            group.pop()
        made.append(group)
        kinds = kinds[len(group) :]
    return made


def unit_of(known: ProbeContext) -> int:
    """Return how many of the first kind are sent."""
    return max(2 if known.burst >= TINY else 1, known.burst // SHARE)


def _gives_back(known: ProbeContext) -> bool:
    return any(each.traits.kind == "bucket" for each in known.fits)


def _first(known: ProbeContext, wrong: int) -> int:
    """Return how many good ones go first: a bucket that is full would give back what wrong ones cost."""
    if not _gives_back(known):
        return 0
    refill = wrong * known.latency_s / known.drain_in_flight * known.burst / known.period_s
    return min(known.burst // 3, 2 + int(refill))


def _last_s(seen: Sequence[ProbeResult], now_s: float) -> float:
    return max((each.end_s or each.sent_s for each in seen), default=now_s)


def _most(known: ProbeContext) -> int:
    """Return how many requests use up the limit for sure; some families give back meanwhile."""
    return known.burst + known.burst // 2 + EXTRA


def _drain(known: ProbeContext, role: str, at_s: float = 0.0) -> SendStep:
    shots = (ProbeRequest(role=role),) * _most(known)
    return SendStep(
        shots,
        at_s,
        max_in_flight=known.drain_in_flight,
        until_refused=True,
        purpose="until the first refusal",
    )


def _asides(known: ProbeContext) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    shots = [ProbeRequest(role=MODELS, kind="models")]
    if known.second_key:
        shots.append(ProbeRequest(role=SECOND_KEY, second_key=True))
    if known.other_model is not None:
        shots.append(ProbeRequest(role=OTHER_MODEL, model=known.other_model))
    seen: Sequence[ProbeResult] = ()
    # What a bucket gave back meanwhile looks like a limit of its own: once more tells.
    for _ in range(ASKED + _gives_back(known)):
        # All at once: the limit must still be used up when the last of them is decided on.
        seen = yield SendStep(
            (*shots, ProbeRequest(role=CONTROL)), max_in_flight=len(shots), purpose="whose limit is it?"
        )
    return seen


def _retry(
    known: ProbeContext, seen: Sequence[ProbeResult]
) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    roles = {CONTROL, DRAIN}
    for _ in range(RETRIES):
        refused = next((each for each in reversed(seen) if each.role in roles and each.refused), None)
        if refused is None or refused.retry_after_s is None or refused.retry_after_s > LONGEST_S:
            return seen
        over_s = (refused.decided_s or refused.sent_s) + refused.retry_after_s
        counting = any(each.count_refused for each in known.fits)
        if refused.retry_after_s > EARLY_S + 0.2 and not counting:
            yield SendStep(
                (ProbeRequest(role=EARLY),), over_s - EARLY_S, purpose="just before Retry-After is over"
            )
        seen = yield SendStep(
            (ProbeRequest(role=RETRY),), over_s + AFTER_S, purpose="just after Retry-After is over"
        )
        if not seen[-1].refused:
            return seen
        roles = {RETRY}
    return seen


def _hammer(known: ProbeContext, seen: Sequence[ProbeResult]) -> Experiment:
    seen = yield _drain(known, SECOND_DRAIN, known.available_s(_last_s(seen, 0.0)))
    if not seen[-1].refused and not any(each.refused for each in seen if each.role == SECOND_DRAIN):
        return
    last_s = _last_s(seen, 0.0)
    # Only the drain is in it, so this is when it is free if it had been left alone.
    free_s = max(free_at(each, seen, last_s) for each in known.fits)
    # More than what a log would give back by the time that it is asked.
    first_s = min(each.sent_s for each in seen if each.role == SECOND_DRAIN)
    soon_s = first_s + 2 * MARGIN * known.period_s
    hammers = HAMMERS + sum(each.role == SECOND_DRAIN and each.sent_s <= soon_s for each in seen)
    in_time = int((free_s - last_s) / (2 * known.latency_s)) - 1
    hammers = min(hammers, known.requests_left - len(seen) - EXTRA, in_time)
    for number in range(1, hammers + 1):
        at_s = last_s + (free_s - last_s) * number / (hammers + 1)
        yield SendStep((ProbeRequest(role=HAMMER),), at_s, purpose="does asking cost anything?")
    period_s = known.period_s
    sure_s = latest_free_s(known.fits, seen, last_s) + MARGIN * period_s
    seen = yield SendStep((ProbeRequest(role=FREE),), sure_s, purpose="is it free when predicted?")
    for periods in LATER_S:
        if not seen[-1].refused:
            return
        seen = yield SendStep(
            (ProbeRequest(role=LATER),), after_s=periods * period_s, purpose="is it free later?"
        )


def latest_free_s(fits: Sequence[Fit], seen: Sequence[ProbeResult], now_s: float) -> float:
    """Return when the next request is let in at the latest, whichever of the parameters left are true."""
    return max(free_at(variant, seen, now_s) for each in fits for variant in (each, *each.variants))


def free_at(best: Fit, seen: Sequence[ProbeResult], now_s: float) -> float:
    """Return when the next request would be let in, if what was let in before were all that counts."""
    model = best.model()
    charged = [each for each in seen if each.role == SECOND_DRAIN and each.accepted]
    for at_s in sorted((each.sent_s + (each.decided_s or each.sent_s)) / 2 for each in charged):
        model.charge(at_s)
    return now_s + (model.peek(now_s).retry_after_s or 0.0)
