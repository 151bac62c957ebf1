"""What the report of a run can be written as."""

from __future__ import annotations

from bltybench.errors import UserError

FORMATS = {
    "html": "report.html",
    "csv": "figures/*.csv",
    "json": "summary.json",
    "junit": "junit.xml",
    "md": "summary.md",
    "parquet": "attempts.parquet, generator.parquet",
    "prom": "metrics.prom",
}
"""Each format by its name, and the files of it."""

USUAL = frozenset({"html", "csv", "json", "junit", "md", "parquet"})


def read_formats(given: str | None, option: str) -> frozenset[str]:
    """Return the formats that an option names, with commas between them; USUAL where it is not given.

    Raises UserError for names that are not of FORMATS.
    """
    if given is None:
        return USUAL
    names = frozenset(name.strip() for name in given.split(",") if name.strip())
    unknown = sorted(names - set(FORMATS))
    if unknown or not names:
        raise UserError(
            f"no such format: {', '.join(unknown) or 'none given'}",
            where=option,
            remedy=f"choose of {', '.join(FORMATS)}",
        )
    return names
