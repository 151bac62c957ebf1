"""The result of a capacity search, a probe, or a run in which nothing succeeded, at the top of the page."""

from dataclasses import dataclass
from typing import Literal

from bltybench.report import text
from bltybench.report.page.limits_section import LimitsSection
from bltybench.report.summary import Summary


@dataclass(frozen=True, slots=True)
class Headline:
    """A result: next to the checks, or in their place if there are none."""

    stamp: str
    says: str
    mood: Literal["good", "bad", "plain"]


def headline(summary: Summary, limits: LimitsSection | None) -> Headline | None:
    """Return the result of a search, a probe, or a run without success; None for other runs."""
    search = summary.search
    if search is not None:
        unit = "calls per minute" if search.load == "rate" else "users"
        if search.holds is None:
            return Headline("NO LOAD HELD", search.sentence(), "bad")
        complete = search.ended == "found" and search.fails is not None
        stamp = f"{'' if complete else 'AT LEAST '}{text.compact(search.holds)} {unit}".upper()
        return Headline(stamp, search.sentence(), "good" if complete else "plain")
    if limits is not None and limits.probed and limits.says:
        if limits.record.status == "found":
            return Headline("LIMIT FOUND", limits.says[0], "good")
        return Headline("LIMIT NOT IDENTIFIED", limits.says[0], "plain")
    if summary.failure is not None:
        return Headline("NOTHING SUCCEEDED", f"{summary.failure}.", "bad")
    return None
