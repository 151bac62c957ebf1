"""Whether runs had the same load, except for what was varied on purpose."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bltybench.errors import UserError
from bltybench.metrics.outline import Outline
from bltybench.scenario.workload import Scenario
from bltybench.text import sanitize

NO_LOAD = frozenset({"title", "answers", "checks"})
"""Scenario keys that do not affect the load."""
FREE_TO_DIFFER = frozenset({"target", "model", "seed", "duration_s"})
"""Keys that may differ between comparable runs, unless the user says what was varied."""
FREE_IN_REPEATS = frozenset({"seed", "duration_s"})
"""Keys that may differ between the repeats of one side."""
TARGET_KEYS = ("name", "base_url", "proxy", "body", "max_tokens_key", "header_names", "query_names")
"""What a target is, unlike its documented limits, budget, and prices."""

KEYS = "keys"
"""Key for the API keys of targets, which divide the load as the lists of a scenario do."""

MAX_NAMED = 3
"""Maximum variations that a sentence names."""
MAX_VALUE_CHARS = 40
"""Maximum characters of a value in a sentence."""


@dataclass(frozen=True, slots=True)
class Variation:
    """A key in which two runs differ."""

    key: str
    """Path in the scenario, such as ``retry.policy``; ``target.base_url`` for that of the target."""
    base: Any
    candidate: Any

    def __str__(self) -> str:
        """Return the key with both values."""
        return f"{sanitize(self.key)} ({_shown(self.base)} → {_shown(self.candidate)})"


def read_vary(given: str) -> frozenset[str]:
    """Return the keys of ``--vary KEY,…``. Raises UserError if the scenario has no such key."""
    keys = frozenset(key.strip() for key in given.split(",") if key.strip())
    known = {*Scenario.model_fields, KEYS} - NO_LOAD
    for key in sorted(keys):
        if _top(key) not in known:
            remedy = f"name a key of the scenario: {', '.join(sorted(known))}"
            raise UserError("no key that affects the load", where=f"--vary {key}", remedy=remedy)
    return keys


def check_repeats(sides: Sequence[Sequence[Outline]]) -> None:
    """Raise UserError if a run is named twice, or if the repeats of one side differ in their load."""
    ids = [run.manifest.run_id for side in sides for run in side]
    for run_id in ids:
        if ids.count(run_id) > 1:
            raise UserError(f"{run_id} is named twice", remedy="name each run once")
    for first, *others in sides:
        for other in others:
            found = [found for found in variations(first, other) if not _covers(FREE_IN_REPEATS, found.key)]
            if found:
                names = f"{first.manifest.run_id} and {other.manifest.run_id}"
                raise UserError(
                    f"repeats of one side must have the same load, but {names} differ in {listed(found)}",
                    remedy="name them as different sides",
                )


def unlike(base: Sequence[Outline], candidate: Sequence[Outline], vary: Collection[str] = ()) -> str:
    """Return in one sentence why two sides can't be compared; nothing if they can.

    ``vary`` names the keys in which they must differ, and then they may differ in nothing else.
    """
    found = _between(base, candidate)
    extra = [variation for variation in found if not _covers(vary or FREE_TO_DIFFER, variation.key)]
    if extra:
        also = f", not only in {', '.join(sorted(vary))}" if vary else ""
        return f"the runs differ in {listed(extra)}{also}"
    same = [key for key in sorted(vary) if not any(_covers({key}, variation.key) for variation in found)]
    return f"the runs do not differ in {', '.join(same)}" if same else ""


def remedy_of(base: Sequence[Outline], candidate: Sequence[Outline]) -> str:
    """Return how to compare sides that are unlike."""
    keys = ",".join(dict.fromkeys(_top(variation.key) for variation in _between(base, candidate)))
    named = f", or say what you varied: --vary {keys}" if keys else ""
    return f"compare runs of the same load{named}"


def variations(base: Outline, candidate: Outline) -> list[Variation]:
    """Return every key that affects the load and in which two runs differ."""
    ours, theirs = _described(base), _described(candidate)
    return [
        found
        for key in sorted({*ours, *theirs} - NO_LOAD)
        for found in _within(key, ours.get(key), theirs.get(key))
    ]


def listed(found: Sequence[Variation]) -> str:
    """Return the first variations, and how many more there are."""
    names = [str(variation) for variation in found[:MAX_NAMED]]
    more = len(found) - MAX_NAMED
    names += [f"{more} more key{'s' if more > 1 else ''}"] if more > 0 else []
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])}, and {names[-1]}"


def value_at(run: Outline, key: str) -> str:
    """Return the value at the key of a variation, as text."""
    value: Any = _described(run)
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal():
            value = value[int(part)]
    return _shown(value)


def _between(base: Sequence[Outline], candidate: Sequence[Outline]) -> list[Variation]:
    """Return what differs between sides: keys with a value that no run of the base has.

    So repeats with the seeds 1, 2, and 3 on both sides differ in nothing.
    """
    found: dict[str, Variation] = {}
    for run in candidate:
        first, *others = ({one.key: one for one in variations(reference, run)} for reference in base)
        found |= {key: one for key, one in first.items() if all(key in other for other in others)}
    return [found[key] for key in sorted(found)]


def _described(run: Outline) -> dict[str, Any]:
    """Return the scenario of a run, with its target as a table, and the names of several keys."""
    target = msgspec.to_builtins(run.manifest.target)
    keys = {info.name: info.keys for info in run.manifest.targets if info.keys}
    return run.load | {"target": {key: target[key] for key in TARGET_KEYS}, KEYS: keys}


def _within(key: str, ours: Any, theirs: Any) -> Iterator[Variation]:
    """Yield the innermost keys in which two values differ."""
    if ours == theirs:
        return
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        # Tables of different kinds have different keys, which would only repeat that.
        names = ["kind"] if ours.get("kind") != theirs.get("kind") else sorted({*ours, *theirs})
        pairs = [(f"{key}.{name}", ours.get(name), theirs.get(name)) for name in names]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(f"{key}[{index}]", *both) for index, both in enumerate(zip(ours, theirs, strict=True))]
    if not pairs:
        yield Variation(key, ours, theirs)
    for inner in pairs:
        yield from _within(*inner)


def _covers(keys: Collection[str], key: str) -> bool:
    """Return whether one of ``keys`` is ``key`` or a table that contains it."""
    return any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in keys)


def _top(key: str) -> str:
    return key.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, list):
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    return sanitize(f"{value:g}" if isinstance(value, float) else str(value), limit=MAX_VALUE_CHARS)
