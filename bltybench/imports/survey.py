"""What the first pass over a log finds: its extent, its clients, and what it lacks."""

from collections import Counter
from dataclasses import dataclass, field

from bltybench.imports.formats import LogFormat
from bltybench.imports.row import NS_PER_S, LogRow
from bltybench.wire.ratelimit_headers import Quota

MAX_CLIENTS = 100_000
"""Clients that are counted; the others share one number."""


@dataclass(slots=True)
class Survey:
    """What the first pass finds."""

    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    broken_rows: list[str] = field(default_factory=list)
    first_ns: int = 1 << 62
    last_ns: int = 0
    clock_s: float = 1.0
    durations: int = 0
    tokens: int = 0
    first_tokens: int = 0
    headers: int = 0
    clients: dict[int, int] = field(default_factory=dict, repr=False)
    """Number of each client, by the hash of its name."""
    models: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    parents: set[str] = field(default_factory=set)
    """Spans that contain another request: the inner span is the request."""

    def add(self, row: LogRow) -> None:
        """Count a row."""
        self.rows += 1
        self.first_ns = min(self.first_ns, row.end_ns if row.start_ns is None else row.start_ns)
        self.last_ns = max(self.last_ns, row.end_ns)
        self.clock_s = min(self.clock_s, _resolution_s(row.clock_ns))
        self.durations += row.start_ns is not None
        self.tokens += row.result.prompt_tokens is not None or row.result.completion_tokens is not None
        self.first_tokens += row.first_token_ns is not None
        self.headers += row.result.quota != Quota()
        if row.client is not None and len(self.clients) < MAX_CLIENTS:
            self.clients.setdefault(hash(row.client), len(self.clients))
        if row.model is not None and len(self.models) < MAX_CLIENTS:
            self.models.add(row.model)
        if row.host is not None and len(self.hosts) < MAX_CLIENTS:
            self.hosts.add(row.host)
        if row.parent is not None:
            self.parents.add(row.parent)


def _resolution_s(at_ns: int) -> float:
    """Return the largest of 1 s, 1 ms, and 1 µs of which a time is a multiple."""
    return next((s for s, ns in ((1.0, NS_PER_S), (1e-3, 1_000_000)) if at_ns % ns == 0), 1e-6)


def lacks_of(survey: Survey, form: LogFormat, *, shared_limit: bool) -> list[str]:
    """Return what the log does not show, as sentences."""
    says: list[str] = []
    missing = survey.rows - survey.durations
    if missing:
        some = f"{missing:,} of {survey.rows:,} requests don't have"
        whom = "No request has" if missing == survey.rows else some
        says.append(f"{whom} a duration: their latency and the number in flight are unknown.")
    if survey.clock_s >= 1:
        blur = "" if form.measured_durations else ", and so are its latencies"
        says.append(
            f"The clock has whole seconds: each time is up to 1 s early{blur}. The order of requests within "
            "a second is unknown, so limits are less exact."
        )
    if survey.broken:
        says.append(f"Rows that could not be read, so that their requests are missing: {survey.broken:,}.")
    clients = len(survey.clients)
    if not clients:
        says.append("The log does not name clients, so it does not show how many share the limits.")
    elif clients > 1 and shared_limit:
        says.append(f"{clients:,} clients, which share their limits according to --shared-limit.")
    elif clients > 1:
        says.append(
            f"{clients:,} clients. The log does not show which of them share a limit, so no limit is "
            "inferred: import one with --client, or add --shared-limit if they all share one."
        )
    if not survey.first_tokens:
        says.append("No times of first tokens: TTFT is unknown.")
    says.append("No arrival times of later tokens: ITL and TPOT are unknown.")
    if not survey.tokens:
        says.append("No token counts: tokens per minute are unknown.")
    elif survey.tokens < survey.rows:
        says.append(f"{survey.rows - survey.tokens:,} of {survey.rows:,} requests have no token counts.")
    if not survey.headers:
        says.append("No rate-limit headers: what the API announced is unknown.")
    says.append("Retries are not linked: each row is a call. Requests that were never logged are missing.")
    return [*says, *form.lacks]
