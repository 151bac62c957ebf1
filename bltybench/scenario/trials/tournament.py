"""The tournament's settings: client policies that get the same calls, one after another."""

from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from bltybench.scenario.base import PositiveFloat, Table
from bltybench.scenario.pacing import PACINGS, PacingName
from bltybench.scenario.patterns import Bursts, Constant, Gamma, Poisson, Trace
from bltybench.scenario.retry import PolicyName

RETRIES: tuple[PolicyName, ...] = get_args(PolicyName)
SEPARATOR = " + "
"""Text between the retry policy and the pacing in the name of a competitor."""


class Competitor(NamedTuple):
    """A retry policy with a pacing policy."""

    retry: PolicyName
    pacing: PacingName

    @property
    def name(self) -> str:
        """Name of its stage: ``openai`` or ``openai + limiter``."""
        return self.retry if self.pacing == "none" else f"{self.retry}{SEPARATOR}{self.pacing}"


def competitor(text: str) -> Competitor:
    """Return the competitor with a name. Raise ValueError for an unknown one."""
    retry_text, plus, pacing_text = (part.strip() for part in text.partition(SEPARATOR.strip()))
    retry = next((name for name in RETRIES if name == retry_text), None)
    pacing = next((name for name in PACINGS if name == (pacing_text if plus else "none")), None)
    if retry is None:
        raise ValueError(f"'{retry_text}' is no retry policy: use {', '.join(RETRIES)}")
    if pacing is None:
        raise ValueError(f"'{pacing_text}' is no pacing: use {', '.join(PACINGS)}")
    return Competitor(retry, pacing)


def _named(text: str) -> str:
    return competitor(text).name


class Tournament(Table):
    """Open loop with the same calls for one client policy after another. Each is a stage."""

    kind: Literal["tournament"]
    policies: tuple[Annotated[str, AfterValidator(_named)], ...] = Field(min_length=2, max_length=50)
    """Retry policies, each alone or with a pacing: ``openai`` or ``openai + limiter``."""
    calls: Annotated[Constant | Poisson | Gamma | Bursts | Trace, Field(discriminator="kind")]
    """Arrivals of the calls that every policy gets."""
    stage_s: PositiveFloat
    """Time in which the calls of a policy become due, in seconds."""
    max_drain_s: PositiveFloat = 120.0
    """Maximum time after that for its calls to end, in seconds. Those that have not are cut off."""
    max_pause_s: PositiveFloat = 300.0
    """Maximum wait for the limits to refill before the next policy, in seconds."""
    limits: str | None = None
    """limits.toml with the target's limits, for pacing and the optimum. Default: those of the sandbox; for
    pacing, also the documented ones."""

    @property
    def competitors(self) -> list[Competitor]:
        """The policies in order."""
        return [competitor(name) for name in self.policies]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for name in self.policies:
            if self.policies.count(name) > 1:
                raise ValueError(f"policies has '{name}' twice")
        return self
