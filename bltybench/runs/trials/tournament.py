"""The course of a tournament of client policies: ``tournament.json`` in the run's directory."""

import msgspec

from bltybench.runs.files import read_json
from bltybench.runs.folder import RunFolder

UNFINISHED = {
    "budget": "the target's budget was exhausted",
    "worker lost": "a worker stopped reporting",
}
"""Reasons for an unfinished tournament, by how it ended."""


class PolicyStage(msgspec.Struct, frozen=True, kw_only=True):
    """The stage of one policy. Times are seconds on the run's axis."""

    stage: str
    """Name of the policy, and of the stage in the records."""
    pause_s: float
    """Wait before it, in seconds, in which the limits refilled."""
    pause_reason: str
    """What the length of the wait is from."""
    begin_s: float
    end_s: float
    """Time at which its last call had become due."""
    drained_s: float
    """Time at which all of its calls had ended."""
    sent: int
    """Attempts sent."""
    settled: bool
    """Whether all calls ended in time. Otherwise, the rest was cut off."""
    no_free_user: int
    """Arrivals that found no idle user, although pacing held none."""

    def sentence(self) -> str:
        """Return the course as a sentence."""
        parts = [self.stage, f"{self.sent:,} attempts in {self.drained_s - self.begin_s:,.0f} s"]
        if not self.settled:
            parts.append("calls that had not ended were cut off")
        if self.no_free_user:
            parts.append(f"{self.no_free_user:,} arrivals found no idle user")
        return " · ".join(parts)


class TournamentCourse(msgspec.Struct, frozen=True, kw_only=True):
    """The stages of a tournament, in order."""

    stage_s: float
    """Time in which the calls of a policy become due."""
    policies: list[str]
    limits: dict[str, object] | None
    """The target's limits, as in limits.toml; None if they are not exactly known, or of several targets."""
    period_s: float | None
    """Longest period of the known or documented limits."""
    ended: str | None
    """completed, budget (the target's is exhausted), or worker lost; None if it was stopped."""
    stages: list[PolicyStage]

    @property
    def shortfall(self) -> str | None:
        """Why not every policy had its turn; None if all had."""
        if self.ended == "completed":
            return None
        why = UNFINISHED.get(self.ended or "", "the run was stopped")
        return f"{len(self.stages)} of {len(self.policies)} policies had their turn: {why}"


def read_tournament(folder: RunFolder) -> TournamentCourse | None:
    """Return the course of a run's tournament; None if the run was none."""
    try:
        return read_json(folder.tournament_json, TournamentCourse)
    except FileNotFoundError:
        return None
