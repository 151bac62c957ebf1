"""Plan for limiters that queue requests: confirm the queueing, then fill the queue."""

from collections.abc import Sequence

from bltybench.limits.fit.queueing import QueueTiming
from bltybench.limits.fit.thresholds import QUEUEING
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.planner import Planner, ProbePlan
from bltybench.limits.probe.thresholds import QUEUE


def fill_queue(planner: Planner) -> ProbePlan[bool]:
    """Confirm that requests are queued, then fill the queue. Return False if they are not."""
    interval_s = max(
        observation.answered_s - observation.sent_s
        for observation in planner.observations
        if observation.answered_s
    )
    for _ in range(QUEUEING.min_quick):
        idle_s = QUEUE.idle_intervals * interval_s
        yield from planner.send(
            planner.now_s + idle_s, 1, "checking for quick responses after an idle interval"
        )
    queue = planner.verdict().queue
    if queue is None:
        return False
    max_size = queue.free + max(1, int(QUEUE.max_wait_s / queue.interval_s))
    for size in QUEUE.sizes:
        planner.max_in_flight = min(size, max_size)
        got = yield from _fill(planner, queue)
        if any(observation.accepted is False for observation in got):
            yield from _fill_again(planner, queue)
            break
        if planner.max_in_flight == max_size:
            break
    return True


def _fill_again(planner: Planner, queue: QueueTiming) -> ProbePlan[None]:
    """Fill the queue again if a lost response leaves its size ambiguous."""
    for _ in range(QUEUE.refills):
        best = planner.verdict().best
        if best is None or best.limit_range[0] == best.limit_range[1]:
            return
        yield from _fill(planner, queue)


def _fill(planner: Planner, queue: QueueTiming) -> ProbePlan[Sequence[Observation]]:
    # Requests that are served immediately take their turns too, and these must be over.
    idle_s = (QUEUE.idle_intervals + queue.free) * queue.interval_s
    size = planner.max_in_flight
    return (yield from planner.send(planner.now_s + idle_s, size, f"filling the queue with {size} requests"))
