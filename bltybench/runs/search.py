"""What a search for the capacity found: ``search.json`` in the run's folder."""

from __future__ import annotations

import msgspec

from bltybench.errors import UserError
from bltybench.runs.folder import RunFolder

UNFINISHED = {
    "requests": "its budget of requests did not allow another trial",
    "too few answers": "a trial had too few answers, so stage_s must be longer",
    "budget": "the target's budget was spent",
    "worker lost": "a worker told nothing any more",
}
"""By how a search ended: why it found no more."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial of one load."""

    stage: str
    """Its name in the records."""
    load: float
    """Requests a minute, or users."""
    held: bool | None
    """Whether every objective held; None where too few answers came to say."""
    sent: int
    counted: int
    """Attempts that were judged: those after the warm-up."""
    settled: bool
    """Whether all answers came in the time that they were given."""
    cut: bool
    """Ended before its time, as it could not hold any more."""
    no_free_user: int
    values: dict[str, float | None]
    """What was measured, by objective: ms, or a share."""

    def sentence(self) -> str:
        """Say how it went."""
        word = {True: "holds", False: "does not hold", None: "too few answers to say"}[self.held]
        said = [self.stage, word, f"{self.counted} attempts judged"]
        if not self.settled:
            said.append("answers were outstanding at its end")
        if self.no_free_user and not self.held:
            said.append(f"{self.no_free_user} arrivals found no free user")
        return " · ".join(said)


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The interval in which the capacity lies, and every trial."""

    load: str
    """rate (requests a minute) or users."""
    objectives: dict[str, str]
    precision: float
    confirm: int
    holds: float | None
    """The lower end of the interval, the highest load that was seen to hold; None: none did."""
    fails: float | None
    """The upper end, the lowest that was seen to fail; None: none did, up to the highest that was tried."""
    ended: str | None
    """found, requests (it may not send as many as another trial takes), budget (the target's is spent), too
    few answers, worker lost; None: it was stopped. Only where it is found have both ends been confirmed."""
    requests: int
    trials: list[Trial]

    def sentence(self) -> str:
        """Say what was found, and why there is no more of it where the search was not finished."""
        unit = "requests a minute" if self.load == "rate" else "users"
        if self.holds is None:
            down_to = "" if self.fails is None else f", down to {self.fails:.1f} {unit}"
            said = f"No load that was tried kept the objectives{down_to}."
        elif self.fails is None:
            said = f"The objectives held up to {self.holds:.1f} {unit}, and no higher load was seen to fail."
        else:
            said = (
                f"The objectives held at {self.holds:.1f} {unit} and not at {self.fails:.1f}: "
                "the capacity lies between."
            )
        if self.ended == "found":
            return f"{said} Each end was confirmed by {self.confirm} trials."
        why = UNFINISHED.get(self.ended or "", "the run was stopped")
        return f"{said} The search was not finished: {why}. An end may rest on a single trial."


def read_search(folder: RunFolder) -> SearchResult | None:
    """Return what the search of a run found; None where the run searched for nothing."""
    try:
        return msgspec.json.decode(folder.search_json.read_bytes(), type=SearchResult)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise UserError(f"cannot be read: {error}", where=str(folder.search_json)) from None
