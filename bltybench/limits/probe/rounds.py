"""Bursts that distinguish the algorithms: in a round at fixed times, or when the candidates differ most."""

from collections.abc import Sequence

from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.probe.next_query import most_informative_time
from bltybench.limits.probe.planner import Planner, ProbePlan
from bltybench.limits.probe.queue_phase import fill_queue
from bltybench.limits.probe.thresholds import CONTEXT, PLAN, QUERY


def send_round(
    planner: Planner,
    number: int,
    period_s: float,
    limit: int | None,
    offsets: Sequence[float] = PLAN.round_offsets,
) -> ProbePlan[float]:
    """Send bursts between which the algorithms free different numbers of requests. Return when they start."""
    # Two idle periods empty every window and counter. Before the first refusal they hold little.
    ready_s = planner.now_s + (2 * period_s if planner.was_refused else 0.0)
    edge_s = PLAN.edge_fractions[number % len(PLAN.edge_fractions)] * period_s
    start_s = ready_s + (-(ready_s + edge_s)) % period_s
    first = max(1, int(PLAN.first_burst_fraction * limit)) if limit else PLAN.first_burst
    max_count = limit + limit // 2 + PLAN.overshoot if limit and planner.waited else planner.left
    for offset in offsets:
        got = yield from planner.send(
            start_s + offset * period_s,
            first if offset == 0 else max_count,
            f"round {number + 1}: {offset:.2f} periods",
            confirm_s=None if offset == 0 else PLAN.confirm_fraction * period_s,
        )
        if planner.waited and offset and all(one.accepted is not False for one in got):
            # Delays keep this many requests in flight from reaching the limit.
            planner.max_in_flight = planner.options.max_in_flight or PLAN.in_flight[-1]
        if planner.looks_queued() and (yield from fill_queue(planner)):
            break
    return start_s


def try_period(planner: Planner, period_s: float, limit: int) -> ProbePlan[None]:
    """Test a documented limit and period: send just before and after the times at which they permit more.

    The clock may align the window, or the first request may start it. It stops if more or less is accepted
    than the documented limit.
    """
    next_edge_s, (low, high) = -planner.now_s % period_s, PLAN.tried_edges
    if next_edge_s < low * period_s:
        next_edge_s += period_s
    start_s = planner.now_s + max(0.0, next_edge_s - high * period_s)
    edge_s = start_s + min(high * period_s, next_edge_s)
    first, margin_s = max(1, int(PLAN.first_burst_fraction * limit)), PLAN.end_margin * period_s
    yield from planner.send(start_s, first, "testing the documented limit")
    if planner.options.max_in_flight is None and planner.observations:
        planner.max_in_flight = _in_flight_to_reach(limit, planner.latency_s(), period_s)
    drain_s = limit * planner.latency_s() / planner.max_in_flight
    second_s = min(start_s + PLAN.round_offsets[1] * period_s, edge_s - 2 * margin_s - drain_s)
    confirm_s = min(PLAN.confirm_fraction * period_s, margin_s)
    max_count = limit + limit // 2 + PLAN.overshoot  # a bucket refills meanwhile
    for at_s in (second_s, *around(edge_s, margin_s), *around(start_s + period_s, margin_s)):
        if planner.looks_queued() and (yield from fill_queue(planner)):
            return
        accepted = sum(one.accepted is not False for one in planner.observations)
        if accepted < limit if planner.was_refused else at_s > second_s:
            return
        yield from planner.send(
            at_s,
            max_count,
            "testing the documented limit",
            confirm_s=confirm_s if at_s == second_s else None,
        )


def around(at_s: float, margin_s: float) -> tuple[float, float]:
    """Return the times just before and just after ``at_s``."""
    return at_s - margin_s, at_s + margin_s


def _in_flight_to_reach(limit: int, latency_s: float, period_s: float) -> int:
    """Return how many requests in flight reach the limit before much of it refills."""
    needed = limit * latency_s / (CONTEXT.drain_fraction * period_s)
    return next((count for count in PLAN.in_flight if count >= needed), PLAN.in_flight[-1])


def settle(planner: Planner, verdict: Verdict, until_s: float) -> ProbePlan[None]:
    """Send when the remaining candidates differ most, as long as time and budget permit."""
    for _ in range(PLAN.settlings):
        request_s = 1.5 * planner.latency_s() / planner.max_in_flight
        in_time = int((until_s - planner.now_s) / (2 * request_s))
        max_requests = min(planner.left - 1, in_time)
        # The full plan narrows the period, and makes idle intervals, afterwards.
        is_settled = (
            is_precise(verdict) if planner.options.quick else is_named(verdict) or begins_anywhere(verdict)
        )
        if not verdict.consistent or is_settled or max_requests < 1:
            return
        # Even the longest burst must end in time.
        last_s = until_s - (max_requests + 1) * request_s
        query = most_informative_time(
            planner.observations,
            verdict.consistent,
            planner.now_s,
            last_s,
            max_requests,
            enough=1.0 if planner.options.quick else QUERY.enough,
        )
        if query is None:
            return
        at_s, count = query
        yield from planner.send(at_s, count, "distinguishing the remaining candidates")
        verdict = planner.verdict(verdict.consistent)
        if verdict.best is None:
            return


def is_named(verdict: Verdict) -> bool:
    """Return whether one family remains."""
    return len(verdict.families) == 1


def begins_anywhere(verdict: Verdict) -> bool:
    """Return whether only windows remain that the clock does not align, or only counters of such windows.

    They differ only by what begins a window, which no request shows without an idle interval before it.
    """
    kinds = {fit.traits.kind for fit in verdict.consistent}
    unaligned = all(fit.phase != "clock" for fit in verdict.consistent)
    return unaligned and kinds in ({"window"}, {"counter"})


def is_precise(verdict: Verdict) -> bool:
    """Return whether one family remains, with a period that is known well enough."""
    return is_named(verdict) and verdict.consistent[0].precision <= PLAN.precision


def window_periods(verdict: Verdict, guess: Fit) -> list[float]:
    """Return the periods of all candidates but token buckets; that of ``guess`` if there are none."""
    return [fit.period_s for fit in verdict.consistent if not fit.traits.refills_singly] or [guess.period_s]
