"""The part of the page that says what the probe of rate limits found, where the run was one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bltybench.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class LimitsFound:
    """Documented, announced and observed, side by side, and the same in words."""

    says: list[str]
    rows: list[tuple[str, str, str, str]]
    """What, documented, announced, observed."""
    rejected: list[tuple[str, int]]
    """Families that do not explain the run, and how many decisions contradict each."""


def limits_found(folder: RunFolder) -> LimitsFound | None:
    """Read what the probe left in ``limits.json``; None where there is nothing, or nothing whole."""
    try:
        found: dict[str, Any] = json.loads((folder.path / "limits.json").read_bytes())
        documented, announced = found["documented"]["requests_per_min"], found["announced"]["limit"]
        return LimitsFound(
            says=[str(line) for line in found["says"]],
            rows=_rows(found["observed"], documented, announced),
            rejected=[(_name(each), int(each["contradictions"])) for each in found["rejected"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _rows(
    observed: dict[str, Any] | None, documented: int | None, announced: int | None
) -> list[tuple[str, str, str, str]]:
    nothing = "–"
    limits = ("Limit", f"{documented} a minute" if documented else nothing, str(announced or nothing))
    if observed is None:
        return [(*limits, "cannot tell")]
    least, most = observed["period_range_s"]
    aligned = {"clock": "the clock", "first_hit": "the first request", "other": "neither clock nor requests"}
    counted = {True: "yes", False: "no", None: "cannot tell"}[observed["count_refused"]]
    period = f"{observed['period_s']:g} s ({least:g} to {most:g})"
    bucket = observed["family"] == "token_bucket"
    return [
        (*limits, f"{observed['limit']}{' at once' if bucket else ''}"),
        ("Period", "60 s" if documented else nothing, nothing, period),
        ("In the long run", nothing, nothing, f"{observed['rate_per_min']:g} a minute"),
        ("Algorithm", nothing, nothing, str(observed["family"]).replace("_", " ")),
        ("Windows begin with", nothing, nothing, aligned.get(observed["phase"], nothing)),
        ("Refused requests count", nothing, nothing, counted),
    ]


def _name(each: dict[str, Any]) -> str:
    return str(each["family"]).replace("_", " ") + (", counting refusals" if each["count_refused"] else "")
