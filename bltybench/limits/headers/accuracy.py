"""Accuracy of Limit, Remaining, Reset, and Retry-After, compared with the fitted limiter.

A header counts as wrong only if it is wrong for every time at which each request may have been decided, and
for every choice of parameters that fits the decisions.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from bltybench.limits.fit.result import Fit
from bltybench.limits.headers.honesty import Honesty
from bltybench.limits.headers.replay import Moment, contradicts_limit, replay_moments
from bltybench.limits.headers.thresholds import HEADERS
from bltybench.limits.observations.answer import Answer, cannot_tell, sure
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext

LIMIT, REMAINING, RESET, RETRY_AFTER = "limit_header", "remaining_header", "reset_header", "retry_after"
NO_FIT = "the limit itself is not known"
EITHER = "the headers are about several limits"
"""The reason if two limits were found, or if headers announce different ones."""


def analyze(
    results: Sequence[ProbeResult],
    ambiguous: Sequence[ProbeResult],
    honesty: Honesty,
    context: ProbeContext,
) -> list[Answer]:
    """Return the accuracy of each header; ``ambiguous`` are requests that may not count in the limit."""
    # Headers can be about either of two limits, so only Limit and Retry-After can be compared with these.
    fits = tuple(fit for fit in context.fits if fit.also is None)
    retry_after = _retry_after(honesty, limit_is_known=bool(context.fits))
    if _about_another_limit(results, honesty, fits):
        reason = (
            "the headers are about another limit: Remaining falls with each request and does not refill "
            "within the period"
        )
        return [*(cannot_tell(question, reason) for question in (LIMIT, REMAINING, RESET)), retry_after]
    announced = {result.limit for result in results if result.limit is not None}
    limit = _limit(honesty.announced_limit, context.fits, results)
    if len(announced) > 1 and limit.value != "honest":
        limit = cannot_tell(LIMIT, EITHER)
    if len(fits) < len(context.fits) or len(announced) > 1:
        return [limit, cannot_tell(REMAINING, EITHER), cannot_tell(RESET, EITHER), retry_after]
    moments = replay_moments(fits, results, ambiguous)
    return [
        limit,
        _remaining(moments, results),
        _reset(moments, results, fits),
        retry_after,
    ]


def _about_another_limit(results: Sequence[ProbeResult], honesty: Honesty, fits: Sequence[Fit]) -> bool:
    """Return whether the headers count requests of a longer period, for example of a day."""
    steps, announced = honesty.remaining_steps, honesty.announced_limit
    if not fits or announced is None or announced <= max(fit.limit_range[1] for fit in fits):
        return False
    values = [
        result.remaining
        for result in sorted(results, key=lambda result: result.sent_s)
        if result.accepted and result.remaining is not None
    ]
    never_rises = all(later <= earlier for earlier, later in pairwise(values))
    falls_by_one = steps.of >= HEADERS.min_values and steps.count >= HEADERS.min_accurate_fraction * steps.of
    return never_rises and falls_by_one


def _limit(announced: int | None, fits: Sequence[Fit], results: Sequence[ProbeResult]) -> Answer:
    if announced is None or announced < 1:  # some servers announce 0 or -1 if they have no limit to report
        return cannot_tell(LIMIT, "no header announces one")
    if not fits:
        return cannot_tell(LIMIT, NO_FIT)
    evidence = (f"announced {announced}, observed {fits[0].limit}",)
    if all(announced in {limit.limit for limit in fit.limits} for fit in fits):
        return Answer(LIMIT, "honest", "The announced limit is accurate.", sure(2), evidence)
    if any(fit.also or fit.traits.kind == "bucket" for fit in fits):
        return cannot_tell(LIMIT, "it can be a rate, or another limit than those observed", evidence)
    low, high = min(fit.limit_range[0] for fit in fits), max(fit.limit_range[1] for fit in fits)
    if low <= announced <= high or not contradicts_limit(fits, results, announced):
        return cannot_tell(LIMIT, "the decisions fit other limits as well", evidence)
    says = f"The announced limit is wrong: it is {announced}, but {fits[0].limit} requests are accepted."
    return Answer(LIMIT, "wrong", says, sure(2), evidence)


def _remaining(moments: Sequence[Moment], results: Sequence[ProbeResult]) -> Answer:
    reported = [
        (moment.result.remaining, moment.remaining)
        for moment in moments
        if moment.result.remaining is not None
    ]
    if len(reported) < HEADERS.min_values:
        absent = all(result.remaining is None for result in results)
        return cannot_tell(REMAINING, "no header reports it" if absent else NO_FIT)
    bounds = [expected for _, expected in reported]
    min_accurate = HEADERS.min_accurate_fraction * len(reported)
    accurate = sum(_is_remaining(value, expected) for value, expected in reported)
    evidence = (f"{accurate} of {len(reported)} values matched the remaining requests, within one",)
    values = {value for value, _ in reported}
    if accurate >= min_accurate:
        if any(
            sum(_is_remaining(value, expected) for expected in bounds) >= min_accurate for value in values
        ):
            return cannot_tell(REMAINING, "an accurate value would hardly have changed either", evidence)
        return Answer(REMAINING, "honest", "Remaining is accurate.", sure(3), evidence)
    too_high = sum(value > expected[1] + HEADERS.remaining_tolerance for value, expected in reported)
    if too_high <= (1 - HEADERS.min_accurate_fraction) * len(reported):
        reason = (
            "it is lower than expected: other clients may share the quota, or each node counts separately"
        )
        return cannot_tell(REMAINING, reason, evidence)
    says = f"Remaining is wrong in {len(reported) - accurate} of {len(reported)} responses."
    if len(values) == 1:
        says = f"Remaining never changes: it is always {reported[0][0]}."
    return Answer(REMAINING, "wrong", says, sure(2), evidence)


def _is_remaining(value: float, expected: tuple[float, float]) -> bool:
    tolerance = HEADERS.remaining_tolerance
    return expected[0] - tolerance <= value <= expected[1] + tolerance


def _reset(moments: Sequence[Moment], results: Sequence[ProbeResult], fits: Sequence[Fit]) -> Answer:
    if all(result.reset_s is None for result in results):
        return cannot_tell(RESET, "no header reports it")
    alone = [moment for moment in moments if moment.alone and moment.result.reset_s is not None]
    if not fits or len(alone) < HEADERS.min_values:
        return cannot_tell(RESET, "too few requests were sent alone" if fits else NO_FIT)
    periods_s = min(fit.period_s for fit in fits), max(fit.period_s for fit in fits)
    if periods_s[0] < HEADERS.min_reset_period_s:
        return cannot_tell(RESET, "the period is too short for a value in whole seconds")
    values = [moment.result.reset_s or 0.0 for moment in alone]
    expected = {
        "window_end": [moment.full_s for moment in alone],
        "next_request": [moment.next_s for moment in alone],
        "first_unit": [moment.unit_s for moment in alone],
        "whole_period": [periods_s] * len(alone),
    }
    kind = fits[0].traits.kind
    end = "the whole limit is available" if kind == "bucket" else "the window ends"
    unit = "the oldest request no longer counts" if kind == "log" else "one request more is available"
    meanings = {
        "window_end": f"the time until {end}",
        "next_request": "the time until the next request is accepted",
        "first_unit": f"the time until {unit}",
        "whole_period": "one whole period",
    }
    min_accurate = HEADERS.min_accurate_fraction * len(values)
    # Some servers round up and add a second, or count the second that has begun.
    for late_s in (0.0, HEADERS.late_reset_s):
        punctual = [value - late_s for value in values]
        accurate = {meaning: _count_resets(punctual, bounds) for meaning, bounds in expected.items()}
        meaning = max(accurate, key=lambda meaning: accurate[meaning])
        count = accurate[meaning]
        if count >= min_accurate:
            break
    late = f", {late_s:g} s late" if late_s else ""
    tolerance = f"within {HEADERS.reset_tolerance_s:g} s"
    ends_s = [median(bounds) for bounds in expected["window_end"]]
    ahead_s = median(value - end_s for value, end_s in zip(values, ends_s, strict=True))
    # A constant difference is no chance if the expected values vary enough.
    if count < min_accurate and max(ends_s) - min(ends_s) > 2 * HEADERS.min_reset_period_s:
        shifted = _count_resets([value - ahead_s for value in values], expected["window_end"])
        if shifted >= min_accurate:
            offset = f"{abs(ahead_s):.3g} s {'ahead of' if ahead_s > 0 else 'behind'}"
            says = f"Reset is {meanings['window_end']}, by a clock that is {offset} yours."
            evidence = (f"{shifted} of {len(values)} were off by {ahead_s:.3g} s, {tolerance}",)
            return Answer(RESET, "window_end", says, sure(2), evidence)
    evidence = (f"{count} of {len(values)} values matched {meanings[meaning]}{late}, {tolerance}",)
    if count >= min_accurate:
        return Answer(RESET, meaning, f"Reset is {meanings[meaning]}{late}.", sure(3), evidence)
    says = "Reset predicts nothing: neither when the limit is available again, nor when one request is."
    return Answer(RESET, "wrong", says, sure(2), evidence)


def _count_resets(values: Sequence[float], expected: Sequence[tuple[float, float]]) -> int:
    tolerance_s = HEADERS.reset_tolerance_s
    return sum(
        least_s - tolerance_s <= value <= most_s + tolerance_s
        for value, (least_s, most_s) in zip(values, expected, strict=True)
    )


def _retry_after(honesty: Honesty, *, limit_is_known: bool) -> Answer:
    enough, early, missing = honesty.retry_enough, honesty.retry_early, honesty.without_retry_after
    if missing.of and missing.count == missing.of:
        return Answer(RETRY_AFTER, "absent", "Refusals have no readable Retry-After.", sure(missing.of))
    evidence: list[str] = []
    if enough.of:
        evidence.append(f"{enough.count} of {enough.of} waits of that length were long enough")
    if early.of:
        answered = "requests answered over a second before its end were accepted"
        evidence.append(f"{early.count} of {early.of} {answered}")
    max_wrong = 1 - HEADERS.min_accurate_fraction
    too_short = enough.of - enough.count
    # Other clients may use the quota first, and without a fitted limiter nothing rules them out. So half of
    # the waits must be too short with a fitted limiter, and twice the minimum and all of them without one.
    mostly_short = too_short >= enough.count
    if not limit_is_known:
        mostly_short = too_short >= 2 * HEADERS.min_wrong_waits and not enough.count
    if too_short >= HEADERS.min_wrong_waits and mostly_short:
        says = "Retry-After is too short: a client that waits that long is refused again."
        return Answer(RETRY_AFTER, "too_short", says, sure(too_short, enough.count), tuple(evidence))
    if too_short > max_wrong * enough.of:
        reason = "it was not always long enough, but other clients may share the quota"
        return cannot_tell(RETRY_AFTER, reason, evidence)
    if early.count >= HEADERS.min_wrong_waits or early.count > max_wrong * early.of:
        says = "Retry-After is longer than needed."
        return Answer(RETRY_AFTER, "too_long", says, sure(early.count), tuple(evidence))
    if not enough.of:
        reason = "no request was sent just after its end"
        return cannot_tell(RETRY_AFTER, reason, evidence)
    says = "Retry-After is long enough."
    if early.of:
        says = "Retry-After is accurate: that wait is long enough, and a much shorter one is not."
    return Answer(RETRY_AFTER, "honest", says, sure(enough.count), tuple(evidence))
