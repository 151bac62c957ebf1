"""Findings: what was expected of an API, and what was observed."""

from collections import Counter
from enum import StrEnum

import msgspec

FORMAT_VERSION = 1
"""Version of the JSON format that docs/cli.md describes."""


class Status(StrEnum):
    """Result of an expectation."""

    HOLDS = "holds"
    BROKEN = "broken"
    UNCLEAR = "unclear"
    """Tested, but the response allows no verdict."""
    SKIPPED = "skipped"
    """Not tested; ``observed`` has the reason."""


class CheckFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation and its result."""

    group: str
    name: str
    status: Status
    expected: str
    observed: str
    remedy: str | None = None


class Checkup(msgspec.Struct, kw_only=True):
    """All findings about one target."""

    format_version: int = FORMAT_VERSION
    target: str
    base_url: str
    model: str
    started: str
    """UTC, ISO 8601."""
    requests_sent: int
    passed: bool = False
    """Whether nothing is broken."""
    counts: dict[str, int] = {}
    """Number of findings per status."""
    works: list[str] = []
    """What works with the API."""
    fails: list[str] = []
    """What does not, with the consequence."""
    keys: dict[str, str | bool] = {}
    """Keys to set in the target."""
    findings: list[CheckFinding]

    def __post_init__(self) -> None:
        statuses = Counter(finding.status for finding in self.findings)
        self.passed = not statuses[Status.BROKEN]
        self.counts = {status.value: statuses[status] for status in Status}

    def to_json(self) -> str:
        """Return the documented JSON format, indented."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()
