"""Routes: which target, key, and model a call uses, and which ones it falls back to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from pydantic import model_validator

from bltybench.scenario.api.weights import Weights, draw
from bltybench.scenario.base import Table

ONE_OF = {"target": "targets", "model": "models"}
"""Keys of a scenario that name one, each with the key that names several instead."""


class Route(NamedTuple):
    """Where an attempt is sent, with which key, and for which model."""

    target: str
    key: str | None
    """Name of the key's environment variable. None if the target's key has none."""
    model: str


@dataclass(frozen=True, slots=True)
class Choices:
    """The weighted targets and models among which a call is divided."""

    targets: Mapping[str, float]
    models: Mapping[str, float]


class Divided(Table):
    """A load that can be divided among several targets and models. Those of ``target`` have several keys."""

    targets: Weights | None = None
    """Targets with weights, instead of ``target``, which is then the first."""
    models: Weights | None = None
    """Models with weights, instead of ``model``, which is then the first."""

    @model_validator(mode="before")
    @classmethod
    def _first_of_several(cls, data: Any) -> Any:
        for one, several in ONE_OF.items():
            given = data.get(several) if isinstance(data, dict) else None
            if one in cls.model_fields and isinstance(given, dict | list | tuple):
                first = next(iter(given), "")
                if data.get(one, first) != first:
                    raise ValueError(f"set {one} or {several}, not both")
                data = data | {one: first if isinstance(first, str) else ""}
        return data


class Router:
    """Chooses routes. A choice depends only on the seed and the call's label, so any process can make it."""

    def __init__(
        self, seed: int, keys: Mapping[str, Mapping[str, float]], fallback: bool | Sequence[str] = False
    ) -> None:
        """``keys`` has the weighted keys of each target; an empty table for a target without."""
        self._seed = seed
        self._keys = keys
        self._fallback = fallback
        self._has_keys = any(len(names) > 1 for names in keys.values())
        self._rng = Random()

    def routes(self, choices: Choices, label: str) -> list[Route]:
        """Return the route of the call ``label``, and then those to which it falls back, each once."""
        return self._chain(choices, self._choose(choices, label))

    def _choose(self, choices: Choices, label: str) -> Route:
        rng, targets, models = self._rng, choices.targets, choices.models
        if self._has_keys or len(targets) > 1 or len(models) > 1:  # seeding takes some microseconds
            rng.seed(f"{self._seed}:route:{label}")
        target = draw(targets, rng)
        keys = self._keys[target]
        return Route(target, draw(keys, rng) if keys else None, draw(models, rng))

    def _chain(self, choices: Choices, first: Route) -> list[Route]:
        """Return ``first``, then the other keys of its target, other targets, and then other models."""
        if not self._fallback:
            return [first]
        everything = self._fallback is True
        targets = [first.target]
        targets += _after(choices.targets, first.target) if everything else self._others(first.target)
        models = [first.model, *(_after(choices.models, first.model) if everything else ())]
        return [
            Route(target, key, model)
            for model in models
            for target in targets
            for key in self._keys_of(target, first)
        ]

    def _others(self, target: str) -> list[str]:
        return [] if isinstance(self._fallback, bool) else [one for one in self._fallback if one != target]

    def _keys_of(self, target: str, first: Route) -> list[str | None]:
        keys = self._keys[target]
        if not keys:
            return [None]
        if target == first.target and first.key is not None:
            return [first.key, *_after(keys, first.key)]
        return list(keys)


def _after(names: Mapping[str, float], name: str) -> list[str]:
    """Return the other names, from the one after ``name`` on, and then those before it."""
    ordered = list(names)
    at = ordered.index(name)
    return [*ordered[at + 1 :], *ordered[:at]]
