"""Weighted lists of scenarios.toml: ``["a", "b"]``, or ``{ a = 3, b = 1 }``."""

import re
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from random import Random
from typing import Annotated

from pydantic import BeforeValidator

from bltybench.scenario.api.access import VARIABLE
from bltybench.scenario.base import MAX_NUMBER, MIN_POSITIVE

FORMS = '["a", "b"], or a table with weights, { a = 3, b = 1 }'
MAX_ENTRIES = 100
"""Maximum entries of a list. Tables and pages have a row for each."""


def read_weights(value: object) -> dict[str, float]:
    """Return the weight of each entry, in the order of the file. Raise ValueError for another form."""
    if isinstance(value, list | tuple):
        if not all(isinstance(name, str) and name for name in value):
            raise ValueError(f"must be a list of names, {FORMS}")
        if len(set(value)) < len(value):
            raise ValueError("has the same entry twice: use weights instead, { a = 2, b = 1 }")
        value = dict.fromkeys(value, 1.0)
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a list, {FORMS}")  # noqa: TRY004 - pydantic reports a ValueError
    if not 1 <= len(value) <= MAX_ENTRIES:
        raise ValueError(f"must have 1 to {MAX_ENTRIES} entries")
    for name, weight in value.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not name or not number or not MIN_POSITIVE <= weight <= MAX_NUMBER:
            raise ValueError("each weight must be a number above 0, and a name with a dot must be in quotes")
    return {name: float(weight) for name, weight in value.items()}


def read_variables(value: object) -> dict[str, float]:
    """Return the weights of keys. Raise ValueError for an entry that is not a variable's name."""
    weights = read_weights(value)
    if not all(re.fullmatch(VARIABLE, name) for name in weights):
        raise ValueError("must be names of environment variables, never the keys themselves")
    return weights


Weights = Annotated[dict[str, float], BeforeValidator(read_weights)]
KeyWeights = Annotated[dict[str, float], BeforeValidator(read_variables)]


def fraction(weights: Mapping[str, float], name: str) -> float:
    """Return how often an entry is drawn; 0 for a name that is not in the list."""
    return weights.get(name, 0.0) / sum(weights.values())


def draw(weights: Mapping[str, float], rng: Random) -> str:
    """Return one entry at random, each as often as its weight says."""
    if len(weights) == 1:
        return next(iter(weights))
    totals = list(accumulate(weights.values()))
    return list(weights)[min(bisect_right(totals, rng.random() * totals[-1]), len(totals) - 1)]
