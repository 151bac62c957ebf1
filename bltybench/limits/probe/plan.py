"""The plan of the probe: what to send next, from what was seen so far. Pure: it neither waits nor sends.

A plan is a generator. It yields a ``Burst``, is sent the sights that came of it, and returns a verdict. The
same answers give the same plan, so an interrupted probe goes on by playing its record back.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Literal

from bltybench.limits.fit.grid import WINDOWS
from bltybench.limits.fit.select import LUMPS, LUMPS_SEEN, TOO_FEW_LUMPS, Fit, Verdict
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.next_query import most_telling, replayed
from bltybench.limits.probe.planner import Aims, Burst, Plan, Planner
from bltybench.limits.probe.queue_phase import fill_queue

OFFSETS = (0.0, 0.40, 0.75, 1.05, 1.50)
"""When the bursts of a round begin, in periods. Between them each family frees something else."""
USED_UP = (0.5, 0.0)
"""Parts of a period after a window has turned at which it is used up: a ban may be taken for one, as who is
refused is kept out for so long, but ends at another time then."""
LOGS = frozenset({"sliding_log"})
"""Families that look longer than they are to who is banned."""
IDLE = 1.2
"""Periods after which all has come back."""
AFTER = 4
"""Requests after the first that is let in again: too soon, each contradicts."""
SILENT = (0.85, 0.65, 0.75)
"""Parts of a period for which nothing is asked after all was used up: asking may have begun a ban anew."""
STEP = 0.06
"""Parts of a period from one request to the next until the next window turns."""
QUICK_OFFSETS = (0.0, 0.40, 0.75, 0.99, 1.01, 1.05, 1.50)
"""With a known period it can be asked just before and after one: a phase hardly ever lies there by chance."""
FIRST_SHARE = 0.35
"""Share of the limit that the first burst takes: a log gives back this pattern and no other."""
FIRST_UNKNOWN = 4
"""So many it takes where no limit is named."""
EDGES = (0.70, 0.25, 0.55)
"""Where, in a round, a clock's window would turn: another place each time, so that an edge that only happened
to lie so is found out."""
CONFIRM_SHARE = 0.02
"""A refusal is confirmed by one more request so much of a period later."""
GROWTH = 1.35
"""From one wait to the next while the period is not known."""
PRECISION = 0.01
"""Half width of the period's range at which it is known well enough."""
SHARPENINGS = 8
"""How often it asks again just where what is left differs."""
SETTLINGS = 4
"""How often it asks where the families that are left differ most."""
SETTLE_PERIODS = 3
"""For how long, where nothing forbids it."""
POLLS = 6
"""Requests between the earliest and the latest time at which more may be let in."""
PEEK = 12
"""Requests after which it is looked whether answers wait their turn."""
WIDTHS = (1, 4, 16)
"""Requests in flight at a time: more where answers are too slow to reach the limit one by one."""


def plan(aims: Aims, now_s: float) -> Plan:
    """Return the plan of a probe that begins at ``now_s`` (Unix time)."""
    if aims.quick:
        return _quick(Planner(aims, now_s))
    return _full(Planner(aims, now_s))


def _quick(planner: Planner) -> Plan:
    period_s, limit = planner.aims.period_s or 60.0, planner.aims.limit
    yield from _round(planner, 0, period_s, limit, QUICK_OFFSETS)
    if not planner.seen:
        return planner.verdict()
    began_s = planner.seen[0].sent_s
    verdict = planner.verdict()
    if verdict.delayed is not None:
        return verdict
    yield from _settle(planner, verdict, began_s + 2 * period_s - 4 * planner.latency_s())
    verdict = planner.verdict()
    if verdict.best is not None and verdict.best.family == LUMPS:
        # Two periods show that it may fill in lumps, but several limits suit, and much else nearly does.
        verdict = replace(verdict, status="unknown", consistent=(), confidence=None, reason=TOO_FEW_LUMPS)
    return verdict


def _full(planner: Planner) -> Plan:
    verdict = planner.verdict()
    if not verdict.fits:
        drained = yield from _drain(planner)
        if drained != "refused":
            return planner.verdict()
        for _ in range(2):
            if not (yield from _recover(planner)):
                return planner.verdict()
        verdict = planner.verdict()
    for number in range(planner.aims.rounds):
        guess = verdict.best or (verdict.fits[0] if verdict.fits else None)
        if guess is None or planner.left < 2 * len(OFFSETS):
            return verdict
        # What little was seen at first also suits periods that are much too long, and a round takes some.
        period_s = _longest(verdict, guess) if number else _shortest(verdict, guess)
        yield from _round(planner, number, period_s, guess.limit)
        verdict = planner.verdict()
        # The first round's edge may lie where another phase looks the same, so there are always two.
        if number and len(verdict.families) == 1:
            break
    if len(verdict.families) > 1:
        period_s = _longest(verdict, verdict.consistent[0])
        yield from _settle(planner, verdict, planner.now_s + SETTLE_PERIODS * period_s)
        verdict = planner.verdict()
    yield from _rule_out_a_ban(planner, verdict)
    verdict = planner.verdict()
    for _ in range(SHARPENINGS):
        if not verdict.consistent or _sharp(verdict):
            break
        if not (yield from _sharpen(planner, verdict.consistent)):
            break
        narrowed = planner.verdict(verdict.consistent)
        if narrowed.best is None:
            break
        verdict = narrowed
    yield from _doubt(planner, planner.verdict())
    yield from _watch_lumps(planner, planner.verdict())
    return planner.verdict()


def _sharp(verdict: Verdict) -> bool:
    return len(verdict.families) == 1 and verdict.consistent[0].precision <= PRECISION


def _longest(verdict: Verdict, guess: Fit) -> float:
    """Return a period that suits the round: of what is left, that of the families with windows."""
    return max(_windowed(verdict) or [guess.period_s])


def _shortest(verdict: Verdict, guess: Fit) -> float:
    return min(_windowed(verdict) or [guess.period_s])


def _windowed(verdict: Verdict) -> list[float]:
    return [each.period_s for each in verdict.consistent if each.family != "token_bucket"]


def _drain(
    planner: Planner,
) -> Generator[Burst, Sequence[Observation], Literal["refused", "queue", "nothing"]]:
    """Send until something is refused: one by one, then more at a time where that is too slow.

    Where answers come as if each waited its turn, fill the queue.
    """
    for width in WIDTHS:
        planner.width = width
        cap = planner.left if width == WIDTHS[-1] else min(planner.left // 3, 64 * width)
        for part in (min(PEEK * width, cap), cap - PEEK * width):
            got = yield from planner.send(0.0, part, "until the first refusal")
            if any(sight.accepted is False for sight in got):
                return "refused"
            if planner.waits() and (yield from fill_queue(planner)):
                return "queue"
    return "nothing"


def _recover(planner: Planner) -> Generator[Burst, Sequence[Observation], bool]:
    """Ask, at growing intervals, until something is accepted again; then send until the next refusal."""
    refused_s = planner.now_s
    wait_s = max(2 * planner.latency_s(), 0.002)
    while planner.left > 0:
        at_s = refused_s + wait_s
        if at_s - refused_s > planner.aims.longest_wait_s:
            return False
        got = yield from planner.send(at_s, 1, "waiting for the refusals to end")
        if any(sight.accepted for sight in got):
            yield from planner.send(0.0, planner.left // 3, "again until the next refusal", confirm_s=0.0)
            return True
        wait_s = max(wait_s * GROWTH, planner.now_s - refused_s)
    return False


def _round(
    planner: Planner, number: int, period_s: float, limit: int | None, offsets: Sequence[float] = OFFSETS
) -> Generator[Burst, Sequence[Observation], None]:
    """Send five bursts between which the families free different amounts."""
    # Two idle periods empty every window; then so that a clock's window turns where it tells most.
    ready_s = planner.now_s + 2 * period_s if planner.seen else planner.now_s
    start_s = ready_s + (-(ready_s + EDGES[number % len(EDGES)] * period_s)) % period_s
    first = max(1, int(FIRST_SHARE * limit)) if limit else FIRST_UNKNOWN
    for offset in offsets:
        cap = first if offset == 0 else planner.left
        yield from planner.send(
            start_s + offset * period_s,
            cap,
            f"round {number + 1}: {offset:.2f} periods",
            confirm_s=None if offset == 0 else CONFIRM_SHARE * period_s,
        )
        if planner.waits() and (yield from fill_queue(planner)):
            return


def _rule_out_a_ban(planner: Planner, verdict: Verdict) -> Generator[Burst, Sequence[Observation], None]:
    """Where a window is named, see whether it turns when it is to, however early it was used up."""
    guess = verdict.best
    if guess is None or guess.family not in WINDOWS:
        return
    step_s = STEP * guess.period_s
    yield from _until_accepted(planner, planner.now_s + step_s, step_s)
    for share in USED_UP:
        yield from planner.send(planner.now_s + share * guess.period_s, guess.limit + 2, "using up a window")
        yield from _until_accepted(planner, planner.now_s + step_s, step_s)


def _doubt(planner: Planner, verdict: Verdict) -> Generator[Burst, Sequence[Observation], None]:
    """Where a log is named, or something contradicts what is, see when more is let in after a silence.

    Who asks a log that bans too soon makes it look longer. A contradiction may be chance, as of one node of
    several; but what is wrong is contradicted again.
    """
    for number, share in enumerate(SILENT):
        guess = verdict.best
        if guess is None or not (guess.contradictions or (guess.family in LOGS and number == 0)):
            return
        began_s = planner.now_s + IDLE * guess.period_s
        yield from planner.send(began_s, guess.limit + 2, "using all up, then silence")
        yield from _until_accepted(planner, began_s + share * guess.period_s, STEP * guess.period_s)
        yield from planner.send(0.0, AFTER, "how much more")
        verdict = planner.verdict()


def _watch_lumps(planner: Planner, verdict: Verdict) -> Generator[Burst, Sequence[Observation], None]:
    """Use up what comes back until so many periods were seen that a refill in lumps may be named."""
    guess = verdict.best
    if guess is None or verdict.reason != TOO_FEW_LUMPS:
        return
    seen_s = planner.seen[0].sent_s + LUMPS_SEEN * guess.period_range_s[1] * (1 + PRECISION)
    for at_s in (planner.now_s + 0.5 * guess.period_s, max(seen_s, planner.now_s + 0.8 * guess.period_s)):
        yield from planner.send(at_s, guess.limit + 2, "until five periods were seen")


def _until_accepted(
    planner: Planner, at_s: float, step_s: float
) -> Generator[Burst, Sequence[Observation], None]:
    for _ in range(round(2 / STEP)):
        got = yield from planner.send(at_s, 1, "until more is let in")
        if not got or got[0].accepted:
            return
        at_s = planner.now_s + step_s


def _sharpen(planner: Planner, left: Sequence[Fit]) -> Generator[Burst, Sequence[Observation], bool]:
    """Ask between the earliest and the latest time at which what is left would let the next request in."""
    got = yield from planner.send(0.0, max(each.limit for each in left) + 2, "sharpening")
    if not got or got[-1].accepted is not False:
        return False
    waits = [_next_s(planner, each, period_s) for each in left for period_s in each.period_range_s]
    earliest_s, latest_s = min(waits), max(waits)
    slack_s = 0.1 * (latest_s - earliest_s) + planner.latency_s()
    for step in range(POLLS + 1):
        at_s = earliest_s - slack_s + (latest_s - earliest_s + 2 * slack_s) * step / POLLS
        got = yield from planner.send(at_s, 1, "sharpening")
        if not got:
            return False
        if got[0].accepted:
            break
    return True


def _next_s(planner: Planner, guess: Fit, period_s: float) -> float:
    """Return when the next request will be let in, if the period is this."""
    model = replayed(planner.seen, guess, period_s)
    return planner.now_s + (model.peek(planner.now_s).retry_after_s or 0.0)


def _settle(
    planner: Planner, verdict: Verdict, until_s: float
) -> Generator[Burst, Sequence[Observation], Verdict]:
    """Ask where what is left differs most, as long as there is time and something to tell."""
    for _ in range(SETTLINGS):
        each_s = 1.5 * planner.latency_s() / planner.width
        most = min(planner.left - 1, int((until_s - planner.now_s) / (2 * each_s)))
        if not verdict.consistent or _sharp(verdict) or most < 1:
            break
        # So that even the longest burst is over in time.
        last_s = until_s - (most + 1) * each_s
        found = most_telling(planner.seen, verdict.consistent, planner.now_s, last_s, most)
        if found is None:
            break
        at_s, cap = found
        yield from planner.send(at_s, cap, "where what is left differs")
        narrowed = planner.verdict(verdict.consistent)
        if narrowed.best is None:
            break
        verdict = narrowed
    return verdict
