"""What the experiment with wrong requests, other keys and refusals implies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from bltybench.limits.experiments.charges_steps import (
    CONTROL,
    DRAIN,
    FIRST,
    FREE,
    HAMMER,
    LATER,
    MODELS,
    OTHER_MODEL,
    SECOND_DRAIN,
    SECOND_KEY,
    WRONG,
    latest_free_s,
    unit_of,
)
from bltybench.limits.fit.result import Fit
from bltybench.limits.observations.answer import Answer, cannot_tell, sure
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import Kind

PRICES: dict[Kind, tuple[str, str]] = {
    "malformed": ("malformed_counts", "Malformed requests"),
    "unknown_model": ("unknown_model_counts", "Requests for a model that does not exist"),
    "models": ("models_endpoint_counts", "Calls of /models"),
    "wrong_key": ("wrong_key_counts", "Requests with a wrong key"),
}
FEWEST_HAMMERS = 3


def judge(seen: Sequence[ProbeResult], known: ProbeContext) -> list[Answer]:
    """Return what counts against the limit of requests, and whose limit it is."""
    kinds = [kind for kind in PRICES if kind != "wrong_key" or known.with_401 or _of(seen, WRONG[kind])]
    if not seen or known.fit is None:
        reason = (
            "the limit of requests is not known well enough"
            if known.fit is None
            else "the budget did not reach"
        )
        names = [PRICES[kind][0] for kind in kinds]
        names += ["refused_counts", "limit_per_key", "limit_per_model", "models_endpoint_shares"]
        return [cannot_tell(name, name.replace("_", " "), reason) for name in names]
    return [*_prices(seen, known, kinds), _refused(seen, known), *_scope(seen, known)]


def _of(seen: Sequence[ProbeResult], role: str) -> list[ProbeResult]:
    return [each for each in seen if each.role == role]


def _prices(seen: Sequence[ProbeResult], known: ProbeContext, kinds: Sequence[Kind]) -> list[Answer]:
    answers: list[Answer] = []
    slack = unit_of(known) - 1
    for kind in kinds:
        name, what = PRICES[kind]
        if not _undisturbed(seen, known, slack):
            reason = "another number was let in without them than before: others may use the same quota"
            answers.append(cannot_tell(name, f"whether {what[0].lower()}{what[1:]} count", reason))
            continue
        cycle = _cycle_with(seen, WRONG[kind])
        answers.append(_price(name, what, kind, cycle, known))
    return answers


def _cycle_with(seen: Sequence[ProbeResult], role: str) -> list[ProbeResult]:
    """Return the wrong requests that came before one drain, and the drain."""
    roles = {FIRST, *WRONG.values()}
    cycles: list[list[ProbeResult]] = [[]]
    for each in sorted(seen, key=lambda one: one.sent_s):
        if each.role in roles and cycles[-1] and cycles[-1][-1].role == DRAIN:
            cycles.append([])
        if each.role in roles or each.role == DRAIN:
            cycles[-1].append(each)
    return next((cycle for cycle in cycles if any(each.role == role for each in cycle)), [])


def _price(name: str, what: str, kind: Kind, cycle: Sequence[ProbeResult], known: ProbeContext) -> Answer:
    asked = f"whether {what[0].lower()}{what[1:]} count"
    wrong = _of(cycle, WRONG[kind])
    drain = _of(cycle, DRAIN)
    if not wrong or not drain:
        return cannot_tell(name, asked, "the budget did not reach")
    statuses = sorted({str(each.status) for each in wrong if each.status is not None})
    if kind != "models" and any(each.accepted for each in wrong):
        return cannot_tell(name, asked, f"they were answered with {', '.join(statuses)}")
    if kind == "models" and statuses not in (["200"], ["429"]):
        return cannot_tell(name, asked, f"they were answered with {', '.join(statuses)}")
    if not any(each.refused for each in drain):
        return cannot_tell(name, asked, "the limit was not reached after them")
    let_in = sum(bool(each.accepted) for each in drain)
    evidence = (
        f"after {len(wrong)} of them (answered {', '.join(statuses)}) {let_in} of {known.burst} were let in"
    )
    others = [each for each in WRONG if each != kind and _of(cycle, WRONG[each])]
    if others:
        counts = " and ".join(
            f"{len(_of(cycle, WRONG[each]))} of {PRICES[each][1].lower()}" for each in others
        )
        evidence += f"; {counts} went before too"
    verdicts = {_counted(each, cycle, kind) for each in known.fits}
    if len(verdicts) > 1 or None in verdicts:
        return cannot_tell(name, asked, "the number let in fits neither", [evidence])
    counts_too = verdicts == {True}
    return Answer(
        question=name,
        value=counts_too,
        says=f"{what} {'count' if counts_too else 'do not count'} against the limit of requests.",
        confidence=sure(min(3, len(wrong))),
        evidence=(evidence,),
    )


def _counted(best: Fit, cycle: Sequence[ProbeResult], kind: Kind) -> bool | None:
    """Say whether one kind counts, by that choice of kinds that count which explains the drain."""
    present = [each for each in WRONG if _of(cycle, WRONG[each])]
    found: list[tuple[int, bool]] = []
    for size in range(len(present) + 1):
        for chosen in combinations(present, size):
            found.append((_wrongly(best, cycle, {WRONG[each] for each in chosen}), kind in chosen))
    yes = min((cost for cost, counts in found if counts), default=99)
    no = min((cost for cost, counts in found if not counts), default=99)
    slack = min(len(_of(cycle, WRONG[each])) for each in present) - 1
    if min(yes, no) > slack or abs(yes - no) <= slack:
        return None
    return yes < no


def _undisturbed(seen: Sequence[ProbeResult], known: ProbeContext, slack: int) -> bool:
    """Say whether a drain with nothing wrong before it was as long as the limiter found would have it."""
    drain = [replace(each, role=DRAIN) for each in _of(seen, SECOND_DRAIN)]
    return not drain or any(_wrongly(each, drain, set()) <= slack for each in known.fits)


def _wrongly(best: Fit, cycle: Sequence[ProbeResult], counting: set[str]) -> int:
    """Return by how many requests a drain is longer or shorter than it is where these roles count.

    Answers that were lost may have been let in, or not.
    """
    lost = [each for each in cycle if each.role in {FIRST, DRAIN} and each.status is None]
    if not lost:
        return _off(best, cycle, counting)
    let_in = [replace(each, accepted=True) if each in lost else each for each in cycle]
    return min(_off(best, cycle, counting), _off(best, let_in, counting))


def _off(best: Fit, cycle: Sequence[ProbeResult], counting: set[str]) -> int:
    model = best.model()
    off = 0
    timed = [((each.sent_s + (each.decided_s or each.sent_s)) / 2, each) for each in cycle]
    for at_s, each in sorted(timed, key=lambda pair: pair[0]):
        if each.role in counting:
            model.charge(at_s)
        elif each.role in {FIRST, DRAIN} and each.accepted:
            off += not model.peek(at_s).accepted
            model.charge(at_s)
        elif each.role == DRAIN and each.refused:
            while model.decide(at_s).accepted:
                off += 1
            break
    return off


def _refused(seen: Sequence[ProbeResult], known: ProbeContext) -> Answer:
    name, asked = "refused_counts", "whether refused requests count"
    hammers = [each for each in _of(seen, HAMMER) if each.refused]
    free = _of(seen, FREE)
    by_fit = known.fit.count_refused if known.fit is not None else None
    if not free or len(hammers) < FEWEST_HAMMERS:
        if by_fit is not None and len(known.fits) == 1:
            says = f"Refused requests {'count too' if by_fit else 'cost nothing'}."
            return Answer(
                question=name, value=by_fit, says=says, confidence=sure(1), evidence=("by the algorithm",)
            )
        return cannot_tell(name, asked, "it was not asked often enough while the limit was used up")
    if any(each.accepted for each in _of(seen, HAMMER)):
        return cannot_tell(name, asked, "something was let in before it was predicted")
    drained = [each for each in _of(seen, SECOND_DRAIN) if each.accepted]
    evidence = (
        f"after {len(drained)} accepted, {len(hammers)} more were refused; the next, when it should be "
        f"free, was {'let in' if free[0].accepted else 'refused'}"
    )
    if free[0].accepted:
        says = "Refused requests cost nothing: the limit is free again as soon as without them."
        return Answer(
            question=name,
            value=False,
            says=says,
            confidence=sure(2 if by_fit is not True else 0),
            evidence=(evidence,),
        )
    later = [each for each in _of(seen, LATER) if each.accepted]
    unsure = _other_reason(seen, known, later, free[0])
    if unsure:
        return cannot_tell(name, asked, unsure, [evidence])
    after_s = later[0].sent_s - free[0].sent_s
    says = "Refused requests count too: who goes on asking keeps itself out."
    told = (evidence, f"{after_s:.3g} s after that one was let in")
    return Answer(
        question=name, value=True, says=says, confidence=sure(2 if by_fit is not False else 1), evidence=told
    )


def _other_reason(
    seen: Sequence[ProbeResult], known: ProbeContext, later: Sequence[ProbeResult], free: ProbeResult
) -> str:
    """Return what else may have kept out one that should have been let in; empty where nothing may."""
    if not later:
        return "nothing was let in afterwards either"
    if not _undisturbed(seen, known, 0):
        return "others may use the same quota, and had what was free"
    if all(each.traits.kind == "window" for each in known.fits):
        return "a window turns whatever it refused: its time was not known well enough"
    last_s = max(each.end_s or each.sent_s for each in _of(seen, SECOND_DRAIN))
    if free.sent_s <= latest_free_s(known.fits, seen, last_s):
        return "when it should be free is not known well enough"
    return ""


def _scope(seen: Sequence[ProbeResult], known: ProbeContext) -> list[Answer]:
    asked = (
        (
            "limit_per_key",
            "whether each key has a limit of its own",
            SECOND_KEY,
            "no second key was named (--probe-second-key-env)",
            ("Each key has a limit of its own.", "Both keys share one limit."),
        ),
        (
            "limit_per_model",
            "whether each model has a limit of its own",
            OTHER_MODEL,
            "no other model is listed, and none was named (--probe-model)",
            ("Each model has a limit of its own.", "Models share one limit."),
        ),
        (
            "models_endpoint_shares",
            "whether /models is refused with chat",
            MODELS,
            "it was not asked",
            (
                "/models is refused while chat is: they share one limit.",
                "/models is answered while chat is refused.",
            ),
        ),
    )
    control = _of(seen, CONTROL)
    answers: list[Answer] = []
    for name, what, role, without, (yes, no) in asked:
        rows = _of(seen, role)
        if not rows:
            answers.append(cannot_tell(name, what, without))
            continue
        # Each time the own was sent last: only where it was refused, the limit was used up.
        sure_of = [each for each, own in zip(rows, control, strict=False) if own.refused]
        if not sure_of:
            answers.append(cannot_tell(name, what, "the limit was free again before it was sure"))
            continue
        decided = [each for each in sure_of if each.accepted is not None]
        if not decided:
            answers.append(cannot_tell(name, what, f"it was answered with {rows[0].status or 'nothing'}"))
            continue
        refused, let_in = (sum(bool(each.accepted) is yes for each in decided) for yes in (False, True))
        # One that is let in may be what came back meanwhile; one that is refused shares the limit.
        shared = refused > 0
        value = shared if role == MODELS else not shared
        told = f"while own requests were refused, before and after, {let_in} of {len(decided)} were let in"
        votes = refused if shared else let_in
        says = yes if value else no
        answers.append(
            Answer(question=name, value=value, says=says, confidence=sure(votes), evidence=(told,))
        )
    return answers
