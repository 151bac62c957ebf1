"""Base class of all tables of scenarios.toml, and the numbers in them.

Every number has a bound. Beyond it, a schedule or a prompt would have no end, and times would not fit into a
record, so a value beyond it is a typing error.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, ConfigDict

MAX_NUMBER = 10**12
"""Maximum of any number, in its unit."""
MIN_POSITIVE = 1e-9
"""Minimum of a number that must be positive, in its unit."""
MAX_TOKENS = 10_000_000
"""Maximum tokens of a prompt or a completion, in tokens."""
MAX_DURATION_S = 366 * 86_400.0
"""Maximum duration of a run, in seconds."""
MAX_USERS = 1_000_000
"""Maximum number of users."""


def _not_huge(value: float) -> float:
    if value > MAX_NUMBER:
        raise ValueError(f"must be {MAX_NUMBER:,} or less")
    return value


def _not_tiny(value: float) -> float:
    if value < MIN_POSITIVE:
        raise ValueError(f"must be {MIN_POSITIVE:g} or more")
    return value


# A validator and not Le, which would hide the smaller bound that a field sets with Field(le=…).
_NOT_HUGE = AfterValidator(_not_huge)
PositiveFloat = Annotated[float, Gt(0), _NOT_HUGE, AfterValidator(_not_tiny)]
NonNegativeFloat = Annotated[float, Ge(0), _NOT_HUGE]
PositiveInt = Annotated[int, Gt(0), _NOT_HUGE]
NonNegativeInt = Annotated[int, Ge(0), _NOT_HUGE]
TokenCount = Annotated[int, Gt(0), Le(MAX_TOKENS)]


class Table(BaseModel):
    """An immutable table of scenarios.toml that rejects unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
