"""The calls of a simulation and their outcomes, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from bltybench.limits.observations.classify import Decision


class CallOutcome(NamedTuple):
    """One call."""

    client: int
    due_s: float
    accepted_s: float | None
    """Time at which the attempt that succeeded was sent, in seconds. None if the call ended refused."""
    ended_s: float
    refusals: Sequence[Decision]

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.accepted_s is not None


@dataclass(frozen=True, slots=True)
class SimulatedCalls(Sequence[CallOutcome]):
    """All calls, in the order in which they became due: a list for each field of ``CallOutcome``."""

    client: Sequence[int]
    due_s: Sequence[float]
    accepted_s: Sequence[float | None]
    ended_s: Sequence[float]
    refusals: Sequence[Sequence[Decision]]

    @property
    def ok(self) -> list[bool]:
        """Whether each succeeded."""
        return [at_s is not None for at_s in self.accepted_s]

    @property
    def refused(self) -> int:
        """Refused attempts of all calls."""
        return sum(map(len, self.refusals))

    @property
    def success_s(self) -> list[float]:
        """The time to success of each call that succeeded, in seconds."""
        rows = zip(self.due_s, self.accepted_s, self.ended_s, strict=True)
        return [ended_s - due_s for due_s, accepted_s, ended_s in rows if accepted_s is not None]

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self.due_s)

    @overload
    def __getitem__(self, index: int) -> CallOutcome: ...
    @overload
    def __getitem__(self, index: slice) -> list[CallOutcome]: ...
    def __getitem__(self, index: int | slice) -> CallOutcome | list[CallOutcome]:
        """Return one call, or several."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        columns = (self.client, self.due_s, self.accepted_s, self.ended_s, self.refusals)
        return CallOutcome(*(column[index] for column in columns))  # type: ignore[arg-type]
