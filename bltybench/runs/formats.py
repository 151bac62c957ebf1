"""Formats in which a report can be written."""

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
"""Format names, each with the files it consists of."""

USUAL = frozenset({"html", "csv", "json", "junit", "md", "parquet"})


def read_formats(given: str | None, option: str) -> frozenset[str]:
    """Return the formats in a comma-separated option, or USUAL if it is not set.

    Raise UserError for unknown names.
    """
    if given is None:
        return USUAL
    names = frozenset(name.strip() for name in given.split(",") if name.strip())
    unknown = sorted(names - set(FORMATS))
    if unknown or not names:
        raise UserError(
            f"no such format: {', '.join(unknown) or 'none given'}",
            where=option,
            remedy=f"choose from {', '.join(FORMATS)}",
        )
    return names
