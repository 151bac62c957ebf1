"""``import.json``: where the attempts of an imported run are from, and what the log does not show."""

from typing import Annotated

import msgspec

from bltybench.runs.files import read_json
from bltybench.runs.folder import RunFolder

IMPORTED = "imported"
"""Why the load of an imported run ended, in its manifest."""
FILE = "import.json"
COARSE_CLOCK_S = 0.1
"""Resolution from which the order of requests is uncertain, in seconds."""

Count = Annotated[int, msgspec.Meta(ge=0)]


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The source of an imported run, and what it lacks."""

    format: str
    files: list[str]
    rows: Count
    """Requests imported."""
    skipped: dict[str, Count] = {}
    """Rows that are no requests to the API, by reason."""
    broken: Count = 0
    """Rows that could not be read."""
    broken_rows: list[str] = []
    """The first of them: file, line, and reason."""
    clock_s: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Resolution of the timestamps, in seconds. An event happened up to this long after its time."""
    durations: Count
    """Requests whose duration is known."""
    measured_durations: bool
    """Whether durations were measured separately. Otherwise they are differences of timestamps."""
    retries_inside: bool
    """Whether one row can cover several attempts."""
    clients: Count | None
    """Distinct clients; None if the log does not name them."""
    shared_limit: bool
    """Whether the user said that all clients share their limits."""
    tokens: Count
    """Requests whose tokens are known."""
    headers: Count
    """Requests with rate-limit headers or a Retry-After."""
    lacks: list[str]
    """What the log does not show, as sentences."""

    @property
    def coarse(self) -> bool:
        """Whether the order of requests is uncertain."""
        return self.clock_s >= COARSE_CLOCK_S

    @property
    def unclear_limits(self) -> str | None:
        """Why the log can't show which limiter refused, whatever fits its decisions; None if it can."""
        if not self.durations:
            return "the log has no durations, so it does not show when requests were sent"
        if (self.clients or 0) > 1 and not self.shared_limit:
            return (
                f"the log has {self.clients:,} clients and does not show which of them share a limit: import "
                "one with --client, or all with --shared-limit if they share their limits"
            )
        return None


def read_import(folder: RunFolder) -> ImportRecord | None:
    """Return the source of an imported run; None for a run that sent its requests."""
    if folder.manifest().ended != IMPORTED:
        return None
    return read_json(folder.path / FILE, ImportRecord)
