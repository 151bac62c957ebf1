"""How many requests may be in flight at a time, what becomes of more, and when a slot is free again.

Streams are opened and held until one of them is refused or does not begin. Then one is dropped: where the
next is let in at once, or one that waits begins, the limit is on how many are in flight, not on their rate.
"""

from __future__ import annotations

from collections.abc import Sequence

from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import CancelStep, Experiment, ProbeRequest, SendStep

NAME = "concurrency"
HELD, AGAIN, CONTROL = "held", "after a slot was freed", "one more"

MOST = 256
WAVE = 16
"""So many streams are opened at once at most, where nothing is documented."""
SPARE = 8
"""Requests kept back for what follows the first refusal."""
TRIALS = 2
"""How often a slot is freed."""
STREAM_TOKENS = (64, 1024)
"""Least and most tokens of a held stream: it must last until all are open."""
RETRIES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Waits from one try to the next after a stream was dropped."""
CONTROL_WAITS = 1.5
"""So many times as long, nothing is dropped before it is seen that no slot is free."""
PATIENCE_S = (1.0, 30.0)
"""Least and most time for a stream to begin; between them it is LATE times what the slowest took."""
LATE = 5


def room(known: ProbeContext) -> int:
    """Return how many streams can be held without meeting the limit of requests, or the budget."""
    return min(MOST, known.burst - SPARE, known.requests_left - SPARE, known.tokens_left // STREAM_TOKENS[0])


def stream_tokens(known: ProbeContext) -> int:
    """Return how long a held stream may be: all together within half of the tokens that there are."""
    most = room(known)
    if known.concurrency is not None:
        most = min(most, known.concurrency + SPARE)
    tokens = min(known.tokens_left, known.tokens_per_min or known.tokens_left)
    return max(STREAM_TOKENS[0], min(STREAM_TOKENS[1], tokens // (2 * max(1, most))))


def ask(known: ProbeContext, now_s: float) -> Experiment:
    """Return the experiment, to begin at ``now_s`` (Unix time) or later."""
    most = room(known)
    if most < 2:
        return
    tokens = stream_tokens(known)
    held = ProbeRequest(role=HELD, stream=True, max_tokens=tokens)
    size, at_s = 1, known.available_s(now_s)
    seen: Sequence[ProbeResult] = ()
    while True:
        wave = SendStep(
            (held,) * size,
            at_s,
            max_in_flight=size,
            until="begun",
            timeout_s=_patience_s(seen),
            purpose=f"{len(seen) + size} at a time",
        )
        seen = yield wave
        opened = sum(each.open for each in seen)
        if any(each.refused for each in seen) or opened < len(seen) or len(seen) >= most:
            break
        if any(each.begun_s is None for each in seen):
            break
        size, at_s = _next_wave(len(seen), known.concurrency, most), 0.0
    if any(each.refused for each in seen):
        yield from _free_slots(seen, held)
    elif any(each.open and each.begun_s is None for each in seen):
        yield from _let_in(seen)
    yield CancelStep()


def _next_wave(sent: int, documented: int | None, most: int) -> int:
    """Return how many to open next: up to one less than is documented at once, then one at a time."""
    size = min(sent, WAVE)
    if documented is not None and sent <= documented + 1:
        size = max(1, documented - 1 - sent)
    return min(size, most - sent)


def _patience_s(seen: Sequence[ProbeResult]) -> float:
    took = [each.begun_s - each.sent_s for each in seen if each.begun_s is not None]
    return min(PATIENCE_S[1], max(PATIENCE_S[0], LATE * max(took))) if took else PATIENCE_S[1]


def _free_slots(seen: Sequence[ProbeResult], held: ProbeRequest) -> Experiment:
    """Drop a stream and try again, sooner and then later; at last when the others have ended."""
    patience_s = _patience_s(seen)
    again = SendStep(
        (ProbeRequest(role=AGAIN, stream=True, max_tokens=held.max_tokens),),
        until="begun",
        timeout_s=patience_s,
    )
    control = SendStep(
        (ProbeRequest(role=CONTROL, stream=True, max_tokens=held.max_tokens),),
        until="begun",
        timeout_s=patience_s,
    )
    for _ in range(TRIALS):
        seen = yield CancelStep(1)
        waited_s = 0.0
        for wait_s in RETRIES_S:
            if _ended(seen):
                break
            seen = yield _after(again, wait_s, "a slot was freed")
            waited_s += wait_s
            if seen[-1].accepted is not False:
                break
        if seen[-1].refused:
            yield SendStep(until="ended", timeout_s=60.0, purpose="until the others end")
            yield _after(again, 0.05, "the others have ended")
            return
        # A limit of the rate would have let the first in all the same, and after as long lets in one more.
        seen = yield _after(control, CONTROL_WAITS * waited_s, "is it full again?")


def _after(send: SendStep, wait_s: float, says: str) -> SendStep:
    return SendStep(
        send.requests,
        after_s=wait_s,
        max_in_flight=send.max_in_flight,
        until=send.until,
        timeout_s=send.timeout_s,
        purpose=says,
    )


def _let_in(seen: Sequence[ProbeResult]) -> Experiment:
    """Drop a stream that has begun, and watch whether one that waits begins."""
    for _ in range(TRIALS):
        waiting = _still_waiting(seen)
        if not waiting:
            return
        seen = yield CancelStep(1)
        seen = yield SendStep(until="begun", timeout_s=_patience_s(seen), purpose="a slot was freed")
        if _still_waiting(seen) == waiting:
            yield SendStep(until="ended", timeout_s=60.0, purpose="until the others end")
            return


def _still_waiting(seen: Sequence[ProbeResult]) -> int:
    return sum(each.open and each.begun_s is None for each in seen)


def _ended(seen: Sequence[ProbeResult]) -> bool:
    """Say whether an answer has ended by itself."""
    return any(each.accepted and not each.open and not each.cancelled for each in seen)
