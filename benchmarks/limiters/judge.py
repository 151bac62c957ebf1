"""Whether the answers of a probe about a limiter are right. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.limiters.truth import Limiter, Setting
from bltybench.limits.findings.model import AnswerRecord, FindingsRecord, FitRecord, Value

Judgment = Literal["right", "abstained", "wrong"]
MAX_ERROR = 0.02
"""Largest relative error of a period, a rate, or a number."""
MAX_RANGE = 0.2
"""Width of a range, relative to its maximum, above which an answer counts as abstained."""
MIN_REPLAYED = 0.99
"""Minimum fraction of the run's decisions that limits.toml must repeat."""
NOTHING_TO_FIND = "nothing to find"
"""The right answer about something that a limiter does not have."""
REQUEST_LIMIT, REFUSALS = "request_limit", "refusal_status"
"""Names of the first two questions: the algorithm with its limit and period, and what a refusal is."""


@dataclass(frozen=True, slots=True)
class JudgedQuestion:
    """One answer of a probe, the right ones, and the judgment."""

    question: str
    truth: str
    said: str
    judged: Judgment


def judge(found: FindingsRecord, limiter: Limiter, setting: Setting) -> list[JudgedQuestion]:
    """Judge every question that the probe answered, or had to."""
    judged = [
        JudgedQuestion(
            REQUEST_LIMIT,
            _limit_text(limiter, setting),
            _said(found),
            _request_limit(found, limiter, setting),
        )
    ]
    if found.refused:
        right = found.refusal_status in limiter.statuses
        truth = " or ".join(map(str, limiter.statuses))
        said = str(found.refusal_status)
        judged.append(JudgedQuestion(REFUSALS, truth, said, "right" if right else "wrong"))
    for answer in found.answers:
        accepted = limiter.accepted(answer.question, setting)
        truth = " or ".join(map(_text, accepted))
        judged.append(JudgedQuestion(answer.question, truth, answer.says, judge_answer(answer, accepted)))
    return judged


def judge_answer(answer: AnswerRecord, accepted: Sequence[Value]) -> Judgment:
    """Judge one answer by the values that are right. None among them means that there is nothing to find."""
    if answer.value is None:
        return "right" if None in accepted else "abstained"
    if not _is_number(answer.value):
        # 1 == True, but a number is no answer to such a question.
        right = any(type(value) is type(answer.value) and value == answer.value for value in accepted)
        return "right" if right else "wrong"
    low, high = answer.range or (float(answer.value), float(answer.value))
    numbers = [float(value) for value in accepted if value is not None and _is_number(value)]
    if not any(_contains((low, high), number) for number in numbers):
        return "wrong"
    return "right" if high is not None and high - low <= MAX_RANGE * high else "abstained"


def replay_passed(found: FindingsRecord) -> bool | None:
    """Return whether limits.toml repeats enough of the decisions; None if it has no request limit."""
    if found.replayed is None or not found.replayed.of:
        return None
    return found.replayed.count >= MIN_REPLAYED * found.replayed.of


def _request_limit(found: FindingsRecord, limiter: Limiter, setting: Setting) -> Judgment:
    if limiter.concurrency:
        # Slots that are released can look like a rate, but there is none.
        return "wrong" if found.consistent else "right"
    if not limiter.families:
        # No model is right. One that repeats the decisions is a useful description.
        if found.status != "found":
            return "abstained"
        return "right" if replay_passed(found) else "wrong"
    fits = [fit for fit in found.consistent if fit.family in limiter.families]
    if found.status != "found":
        return "wrong" if found.consistent and not fits else "abstained"
    if not fits or not _describes(fits[0], limiter, setting):
        return "wrong"
    return "right" if _width(fits[0].period_range_s) <= MAX_RANGE else "abstained"


def _describes(fit: FitRecord, limiter: Limiter, setting: Setting) -> bool:
    """Return whether a fit has the right limit and period, within its ranges."""
    if not fit.limit_range[0] <= setting.limit <= fit.limit_range[1]:
        return False
    low_s, high_s = fit.period_range_s
    # A window can last longer than it should: then any period up to the longest is right.
    longest_s = setting.period_s * (1 + limiter.max_late)
    return low_s <= longest_s * (1 + MAX_ERROR) and high_s >= setting.period_s * (1 - MAX_ERROR)


def _contains(bounds: tuple[float, float | None], number: float) -> bool:
    low, high = bounds
    return low * (1 - MAX_ERROR) <= number and (high is None or number <= high * (1 + MAX_ERROR))


def _width(bounds: tuple[float, float]) -> float:
    return (bounds[1] - bounds[0]) / bounds[1]


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Value) -> str:
    return NOTHING_TO_FIND if value is None else str(value).lower()


def _limit_text(limiter: Limiter, setting: Setting) -> str:
    if limiter.concurrency:
        return f"no request limit; {setting.limit} in flight"
    rate = f"{setting.limit} per {setting.period_s} s"
    return f"{rate}, {' or '.join(limiter.families) or 'no family'}".replace("_", " ")


def _said(found: FindingsRecord) -> str:
    if not found.consistent:
        return f"{found.status}: {found.reason}".replace("_", " ")
    named = [f"{fit.limit} per {fit.period_s:.4g} s, {fit.family}" for fit in found.consistent]
    return f"{found.status}: {'; '.join(named)}".replace("_", " ")
