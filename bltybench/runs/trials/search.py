"""The result of a capacity search: ``search.json`` in the run's directory."""

import msgspec

from bltybench.runs.files import read_json
from bltybench.runs.folder import RunFolder

UNFINISHED = {
    "requests": "its request budget did not allow another trial",
    "too few answers": "a trial had too few responses, so increase stage_s",
    "budget": "the target's budget was exhausted",
    "worker lost": "a worker stopped reporting",
}
"""Reasons for an unfinished search, by how it ended."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial of one load."""

    stage: str
    """Its name in the records."""
    load: float
    """Requests per minute, or users."""
    held: bool | None
    """Whether every objective held; None if too few responses arrived to decide."""
    sent: int
    counted: int
    """Attempts evaluated: those after the warm-up."""
    settled: bool
    """Whether every response arrived in time."""
    cut: bool
    """Whether the trial ended early because it could not pass any more."""
    no_free_user: int
    values: dict[str, float | None]
    """Measured value of each objective, in ms or as a fraction."""

    def sentence(self) -> str:
        """Return the outcome as a sentence."""
        outcome = {True: "holds", False: "does not hold", None: "too few responses to decide"}[self.held]
        parts = [self.stage, outcome, f"{self.counted} attempts evaluated"]
        if not self.settled:
            parts.append("responses were outstanding at its end")
        if self.no_free_user and not self.held:
            parts.append(f"{self.no_free_user} arrivals found no idle user")
        return " · ".join(parts)


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The interval that contains the capacity, and every trial."""

    load: str
    """rate (requests per minute) or users."""
    objectives: dict[str, str]
    precision: float
    confirm: int
    holds: float | None
    """Lower end of the interval: the highest load that held; None if none did."""
    fails: float | None
    """Upper end of the interval: the lowest load that failed; None if none did, up to the highest tried."""
    ended: str | None
    """found, requests (the next trial could exceed the cap), budget (the target's is exhausted), too few
    answers, or worker lost; None if it was stopped. Only if found are both ends confirmed."""
    requests: int
    trials: list[Trial]

    def sentence(self) -> str:
        """Return the result, and why the search was not finished if so."""
        unit = "requests per minute" if self.load == "rate" else "users"
        if self.holds is None:
            down_to = "" if self.fails is None else f", down to {self.fails:.1f} {unit}"
            result = f"No load kept the objectives{down_to}."
        elif self.fails is None:
            result = f"The objectives held up to {self.holds:.1f} {unit}, and no higher load failed."
        else:
            result = (
                f"The objectives held at {self.holds:.1f} {unit} but not at {self.fails:.1f}: "
                "the capacity lies between."
            )
        if self.ended == "found":
            trials = "one trial" if self.confirm == 1 else f"{self.confirm} trials"
            return f"{result} Each end was confirmed by {trials}."
        why = UNFINISHED.get(self.ended or "", "the run was stopped")
        return f"{result} The search was not finished: {why}. An end may rest on a single trial."


def read_search(folder: RunFolder) -> SearchResult | None:
    """Return the result of a run's search; None if the run was not a search."""
    try:
        return read_json(folder.search_json, SearchResult)
    except FileNotFoundError:
        return None
