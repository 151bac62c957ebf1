"""Steps of the concurrency experiment: how many requests can be in flight, and when a slot is released.

The probe opens streams and holds them until one is refused or does not start. Then it cancels one. If the
next request is accepted immediately, or a queued one starts, the limit is on concurrency and not on the rate.
"""

from collections.abc import Sequence
from dataclasses import replace

from bltybench.limits.experiments.thresholds import CONCURRENCY
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import CancelStep, Experiment, ProbeRequest, SendStep

NAME = "concurrency"
HELD, RETRY, CONTROL = "held", "after a slot was freed", "one more"


def steps(context: ProbeContext, now_s: float) -> Experiment:
    """Yield the steps, starting at ``now_s`` (Unix time) or later."""
    max_streams = _max_streams(context)
    if max_streams < 2:
        return
    held = ProbeRequest(role=HELD, stream=True, max_tokens=_stream_tokens(context, max_streams))
    size, at_s = 1, context.available_s(now_s)
    results: Sequence[ProbeResult] = ()
    while True:
        results = yield SendStep(
            (held,) * size,
            at_s,
            max_in_flight=size,
            until="begun",
            timeout_s=_patience_s(results),
            purpose=f"{len(results) + size} streams in flight",
        )
        if len(results) >= max_streams:
            break
        if any(result.refused or not result.open or result.begun_s is None for result in results):
            break
        size, at_s = _next_wave(len(results), context.concurrency, max_streams), 0.0
    if any(result.refused for result in results):
        yield from _retry_after_cancelling(results, held)
    elif _queued(results):
        yield from _watch_queue(results)
    yield CancelStep()


def _max_streams(context: ProbeContext) -> int:
    """Return how many streams can be held within the request limit and the budget."""
    return min(
        CONCURRENCY.max_streams,
        context.burst - CONCURRENCY.spare_requests,
        context.requests_left - CONCURRENCY.spare_requests,
        context.tokens_left // CONCURRENCY.min_stream_tokens,
    )


def _stream_tokens(context: ProbeContext, max_streams: int) -> int:
    """Return the tokens of a held stream. All of them together use at most half of the available tokens."""
    if context.concurrency is not None:
        max_streams = min(max_streams, context.concurrency + CONCURRENCY.spare_requests)
    tokens = min(context.tokens_left, context.tokens_per_min or context.tokens_left)
    per_stream = tokens // (2 * max_streams)
    return max(CONCURRENCY.min_stream_tokens, min(CONCURRENCY.max_stream_tokens, per_stream))


def _next_wave(sent: int, documented: int | None, max_streams: int) -> int:
    """Return how many streams to open next: all but one of a documented limit, then one at a time."""
    size = min(sent, CONCURRENCY.max_wave_streams)
    if documented is not None and sent <= documented + 1:
        size = max(1, documented - 1 - sent)
    return min(size, max_streams - sent)


def _patience_s(results: Sequence[ProbeResult]) -> float:
    """Return how long to wait for a stream to start, from the slowest start so far."""
    starts_s = [result.begun_s - result.sent_s for result in results if result.begun_s is not None]
    if not starts_s:
        return CONCURRENCY.max_patience_s
    patience_s = max(CONCURRENCY.min_patience_s, CONCURRENCY.late_start_ratio * max(starts_s))
    return min(CONCURRENCY.max_patience_s, patience_s)


def _retry_after_cancelling(results: Sequence[ProbeResult], held: ProbeRequest) -> Experiment:
    """Cancel a stream and retry at growing intervals, and finally after the other streams have ended."""
    patience_s = _patience_s(results)

    def retry(role: str, wait_s: float, purpose: str) -> SendStep:
        request = replace(held, role=role)
        return SendStep((request,), after_s=wait_s, until="begun", timeout_s=patience_s, purpose=purpose)

    for _ in range(CONCURRENCY.cancellations):
        results = yield CancelStep(1)
        waited_s = 0.0
        for wait_s in CONCURRENCY.retry_waits_s:
            if any(result.accepted and not result.open and not result.cancelled for result in results):
                break
            results = yield retry(RETRY, wait_s, "retrying after cancelling a stream")
            waited_s += wait_s
            if results[-1].accepted is not False:
                break
        if results[-1].refused:
            yield SendStep(until="ended", purpose="waiting for the other streams to end")
            yield retry(RETRY, 0.05, "retrying after the other streams have ended")
            return
        # A rate limit would have accepted the retry without the cancellation, and would now accept another.
        control_wait_s = CONCURRENCY.control_wait_ratio * waited_s
        results = yield retry(CONTROL, control_wait_s, "checking that no slot is available")


def _watch_queue(results: Sequence[ProbeResult]) -> Experiment:
    """Cancel a stream that has started, and watch whether a queued one starts."""
    for _ in range(CONCURRENCY.cancellations):
        queued = _queued(results)
        if not queued:
            return
        results = yield CancelStep(1)
        results = yield SendStep(
            until="begun", timeout_s=_patience_s(results), purpose="waiting for a queued stream to start"
        )
        if _queued(results) == queued:
            yield SendStep(until="ended", purpose="waiting for the other streams to end")
            return


def _queued(results: Sequence[ProbeResult]) -> int:
    return sum(result.open and result.begun_s is None for result in results)
