"""The part of the plan for who lets requests wait: make sure that he does, then fill the queue."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from bltybench.limits.fit.queueing import FEWEST_QUICK, Delayed
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.planner import Burst, Planner

SILENCE = 3
"""Waits of a queue after which it is surely empty."""
QUEUES = (16, 64, 128)
"""Requests that are sent at once to fill a queue."""
LONGEST_QUEUE_S = 50.0
"""How long the last of them may wait: clients give up after a minute."""
REFILLS = 3
"""How often a queue is filled again where it is not clear how many it lets wait."""


def fill_queue(planner: Planner) -> Generator[Burst, Sequence[Observation], bool]:
    """Where answers wait their turn: make sure that they do, then fill the queue. Whether they do."""
    interval_s = max(sight.answered_s - sight.sent_s for sight in planner.seen if sight.answered_s)
    for _ in range(FEWEST_QUICK):
        yield from planner.send(planner.now_s + SILENCE * interval_s, 1, "whether a silence ends the waiting")
    held = planner.verdict().delayed
    if held is None:
        return False
    widest = held.free + max(1, int(LONGEST_QUEUE_S / held.interval_s))
    for width in QUEUES:
        planner.width = min(width, widest)
        got = yield from _at_once(planner, held, f"{planner.width} at once, to fill the queue")
        if any(sight.accepted is False for sight in got):
            yield from _again(planner, held)
            break
        if planner.width == widest:
            break
    return True


def _again(planner: Planner, held: Delayed) -> Generator[Burst, Sequence[Observation], None]:
    """Fill it again where an answer that was lost leaves open how many it lets wait."""
    for _ in range(REFILLS):
        best = planner.verdict().best
        if best is None or best.limit_range[0] == best.limit_range[1]:
            return
        yield from _at_once(planner, held, "filling the queue again")


def _at_once(
    planner: Planner, held: Delayed, says: str
) -> Generator[Burst, Sequence[Observation], Sequence[Observation]]:
    # What was served at once has its turns taken all the same, and they must be over.
    silent_s = planner.now_s + (SILENCE + held.free) * held.interval_s
    return (yield from planner.send(silent_s, planner.width, says))
