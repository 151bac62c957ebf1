"""What a run that looks for something found: the head of its page, where others have their checks."""

from __future__ import annotations

from dataclasses import dataclass

from bltybench.report import text
from bltybench.report.page.limits_section import LimitsSection
from bltybench.report.summary import Summary


@dataclass(frozen=True, slots=True)
class Headline:
    """What a run that looks for something came to: beside its checks, or where it has none."""

    stamp: str
    says: str
    mood: str
    """good, bad or plain."""


def finding(summary: Summary, limits: LimitsSection | None) -> Headline | None:
    """Return what a search for the capacity or a probe of limits found; None of other runs."""
    search = summary.search
    if search is not None:
        unit = "calls a minute" if search.load == "rate" else "users"
        if search.holds is None:
            return Headline("NO LOAD HELD", search.sentence(), "bad")
        whole = search.ended == "found" and search.fails is not None
        stamp = f"{'' if whole else 'AT LEAST '}{text.compact(search.holds)} {unit}".upper()
        return Headline(stamp, search.sentence(), "good" if whole else "plain")
    if limits is not None and limits.probed and limits.says:
        stamp, mood = (
            ("LIMIT FOUND", "good") if limits.record.status == "found" else ("LIMIT NOT TOLD", "plain")
        )
        return Headline(stamp, limits.says[0], mood)
    return None
