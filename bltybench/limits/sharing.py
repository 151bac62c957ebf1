"""Whether keys or models share a limit: one limiter for all, or one for each, makes more of the decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from bltybench.limits.findings.model import Sharing
from bltybench.limits.findings.replay import agreement, is_confirmed
from bltybench.limits.fit.evidence import missing_recoveries
from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.observations.classify import classify, refusal_statuses
from bltybench.limits.observations.extract import Timing, observed
from bltybench.limits.observations.observation import Observation, Observations, most_informative
from bltybench.limits.observations.proportion import Proportion
from bltybench.limits.pairs.select import fit_limits
from bltybench.runs.attempt import Attempt

ATTRIBUTES = {"key": "key", "model": "requested_model"}
"""Attribute of an attempt by what can have a limit of its own."""


@dataclass(frozen=True, slots=True)
class SharingThresholds:
    """What is compared, and when one explanation counts as better."""

    min_decisions: int = 6
    """Decisions that one explanation must make more than the other. Fewer can be chance or timing errors."""
    max_names: int = 8
    """Maximum keys or models to compare. Each is fitted alone, which takes up to seconds."""
    max_compared: int = 600
    """Maximum successive decisions to compare, for the same reason."""
    max_fits: int = 3
    """Candidates that fit alike, of which the one that makes most decisions counts."""
    max_listed: int = 3
    """Maximum names in a sentence."""


SHARING = SharingThresholds()


@dataclass(frozen=True, slots=True)
class Part:
    """Attempts that one limit decided on, as far as the run shows."""

    owner: Mapping[str, str]
    """What they have in common that others have not: target, key, model. Empty for a whole run."""
    attempts: Sequence[Attempt]
    unclear: str | None = None
    """Why no limiter can be inferred: the run does not show whether they share a limit."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the fit has to know about a run besides its attempts."""

    start_s: float
    """Start of the run in Unix time."""
    hints_s: tuple[float, ...]
    """Expected periods."""
    timing: Timing


def divide(attempts: Sequence[Attempt], conditions: Conditions) -> tuple[list[Part], list[Sharing]]:
    """Return the attempts by the limits that decided on them, and what that is concluded from.

    Targets never share a limit. Keys and models of a target may.
    """
    parts: list[Part] = []
    sharings: list[Sharing] = []
    targets = _by(attempts, "target")
    for target, own in targets.items():
        owner = {"target": target} if len(targets) > 1 else {}
        found = [
            _compare(of, own, conditions, f" of target {target}" if owner else "")
            for of, attribute in ATTRIBUTES.items()
            if len(_by(own, attribute)) > 1
        ]
        sharings += found
        unclear = " ".join(one.says for one in found if one.shared is None and one.refused)
        separate = [one.of for one in found if one.shared is False]
        if unclear or not separate:
            parts.append(Part(owner, own, unclear or None))
            continue
        groups: dict[tuple[str, ...], list[Attempt]] = {}
        for attempt in own:
            names = tuple(str(getattr(attempt, ATTRIBUTES[of])) for of in separate)
            groups.setdefault(names, []).append(attempt)
        parts += [
            Part(owner | dict(zip(separate, names, strict=True)), group)
            for names, group in sorted(groups.items())
        ]
    return parts, sharings


def _compare(of: str, attempts: Sequence[Attempt], conditions: Conditions, where: str) -> Sharing:
    """Compare one limiter for all keys, or models, with one for each."""
    # What else differs could have limits of its own, so only its most frequent value counts.
    for attribute in set(ATTRIBUTES.values()) - {ATTRIBUTES[of]}:
        attempts = max(_by(attempts, attribute).values(), key=len)
    statuses = refusal_statuses(attempts)
    refused = sum(classify(attempt, statuses).refused for attempt in attempts)
    pairs = observed(attempts, conditions.start_s, conditions.timing)
    kept = {
        id(one) for one in most_informative([observation for _, observation in pairs], SHARING.max_compared)
    }
    named: dict[str, list[Observation]] = {}
    for attempt, observation in pairs:
        if id(observation) in kept:
            named.setdefault(str(getattr(attempt, ATTRIBUTES[of])), []).append(observation)
    names = tuple(sorted(named))
    subject = f"{of}s {_listed(names)}{where}"
    if too_little := _too_little(named, refused):
        return _open(of, names, refused, subject, too_little)
    by_one, by_each = _explained(named, conditions)
    by_shared = f"one limiter for all makes {by_one.count} of {by_one.of} decisions"
    by_separate = f"one for each makes {by_each.count}"
    # Without recoveries, a fit fails because it shows too little, not because it is wrong.
    one_can_fail = _recovers(list(chain.from_iterable(named.values())))
    each_can_fail = all(map(_recovers, named.values()))
    if is_confirmed(by_one) and by_one.count >= by_each.count + SHARING.min_decisions and each_can_fail:
        return Sharing(of, names, True, refused, f"The {subject} share a limit: {by_shared}, {by_separate}.")
    if is_confirmed(by_each) and by_each.count >= by_one.count + SHARING.min_decisions and one_can_fail:
        says = f"The {subject} do not share a limit: {by_shared}, {by_separate}."
        if meanwhile := _accepted_meanwhile(named):
            says += f" While one of them was refused, {meanwhile} requests with another were accepted."
        return Sharing(of, names, False, refused, says)
    if not (one_can_fail and each_can_fail):
        reason = "refusals must end more than once for each of them, so a longer run is needed"
        return _open(of, names, refused, subject, reason)
    if is_confirmed(by_one) or is_confirmed(by_each):
        remedy = "Send more with one of them until it is refused"
        reason = f"{by_shared}, {by_separate}, which is about the same. {remedy}"
        return _open(of, names, refused, subject, reason)
    return _open(of, names, refused, subject, f"{by_shared}, and {by_separate}, so neither explains the run")


def _too_little(named: Mapping[str, Sequence[Observation]], refused: int) -> str:
    """Return why a run has nothing to compare; empty if it has."""
    if not refused:
        return "nothing was refused"
    if all(one.accepted is not False for own in named.values() for one in own):
        return "no refusal is by the request limit"
    if len(named) < 2:
        return "only one of them met the request limit"
    return f"at most {SHARING.max_names} are compared" if len(named) > SHARING.max_names else ""


def _open(of: str, names: tuple[str, ...], refused: int, subject: str, reason: str) -> Sharing:
    says = f"The run does not show whether the {subject} share a limit: {reason}."
    return Sharing(of, names, None, refused, says)


def _explained(
    named: Mapping[str, Sequence[Observation]], conditions: Conditions
) -> tuple[Proportion, Proportion]:
    """Return how many decisions one limiter for all makes, and how many one for each."""
    everything = list(chain.from_iterable(named.values()))
    by_one = by_each = Proportion(0, len(everything))
    for fit in (fit_limiter, fit_limits):  # two limits at once take long to find, and few servers have them
        by_one = _made(fit(everything, hints_s=conditions.hints_s, probed=False), everything)
        alone = [_made(fit(own, hints_s=conditions.hints_s, probed=False), own) for own in named.values()]
        by_each = Proportion(sum(made.count for made in alone), sum(made.of for made in alone))
        if is_confirmed(by_one) or is_confirmed(by_each):
            break
    return by_one, by_each


def _recovers(observations: Sequence[Observation]) -> bool:
    """Return whether refusals ended often enough to rule out a limiter, if there were any."""
    refused = any(one.accepted is False for one in observations)
    ordered = sorted(observations, key=lambda one: one.sent_s)
    return not refused or missing_recoveries(len(Observations(ordered).recoveries)) is None


def _made(verdict: Verdict, observations: Sequence[Observation]) -> Proportion:
    """Return how many decisions the best fit makes; without one, that all were accepted, or refused."""
    known = [one.accepted for one in observations if one.accepted is not None]
    fits = (verdict.consistent or verdict.fits)[: SHARING.max_fits]
    made = [agreement(observations, fit.model).count for fit in fits]
    same = max(sum(known), 0 if any(known) else len(known))
    return Proportion(max([same, *made]), len(known))


def _accepted_meanwhile(named: Mapping[str, Sequence[Observation]]) -> int:
    """Return how many requests were accepted between two refusals of another name without an acceptance."""
    accepted = [(name, one.sent_s) for name, own in named.items() for one in own if one.accepted]
    found: set[float] = set()
    for name, own in named.items():
        ordered = sorted((one for one in own if one.accepted is not None), key=lambda one: one.sent_s)
        for first, second in pairwise(ordered):
            if not first.accepted and not second.accepted:
                found |= {
                    at_s for other, at_s in accepted if other != name and first.sent_s < at_s < second.sent_s
                }
    return len(found)


def is_of(attempt: Attempt, owner: Mapping[str, str]) -> bool:
    """Return whether an attempt has a target, a key, and a model."""
    attributes = ATTRIBUTES | {"target": "target"}
    return all(str(getattr(attempt, attributes[of])) == name for of, name in owner.items())


def _by(attempts: Sequence[Attempt], attribute: str) -> dict[str, list[Attempt]]:
    """Return the attempts by an attribute, in the order of first use."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(str(getattr(attempt, attribute)), []).append(attempt)
    return groups


def _listed(names: Sequence[str]) -> str:
    shown = [name[:40] for name in names[: SHARING.max_listed]]
    if len(names) > SHARING.max_listed:
        shown.append(f"{len(names) - SHARING.max_listed} more")
    return " and ".join(shown) if len(shown) < 3 else f"{', '.join(shown[:-1])}, and {shown[-1]}"
