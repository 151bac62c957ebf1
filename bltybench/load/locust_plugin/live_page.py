"""What the live page shows: where the run is, its figures, and its verdict when it has ended."""

import math
import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from bltybench.errors import UserError
from bltybench.load.run.live import WINDOW_S, Point, Tick
from bltybench.load.run.run import Run
from bltybench.percentiles import percentile
from bltybench.scenario.api.documented_limits import TOKENS, Limit, What, amounts, limits_on
from bltybench.text import MAX_MESSAGE_CHARS, sanitize

NONE = "–"
ERROR = "bltybench:"
"""How an error message for the terminal begins."""


class Phase(StrEnum):
    """How far a run has come."""

    NONE = "none"
    FAILED = "failed"
    """It could not start."""
    PREPARING = "preparing"
    RUNNING = "running"
    REPORTING = "reporting"
    ENDED = "ended"


HEADLINES = {
    Phase.NONE: "No run yet",
    Phase.FAILED: "The run could not start",
    Phase.PREPARING: "Preparing",
    Phase.RUNNING: "Running",
    Phase.REPORTING: "Making the report",
    Phase.ENDED: "The run has ended",
}


class Tone(StrEnum):
    """How a line of text is shown."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"
    PLAIN = "plain"
    DETAIL = "detail"
    TABLE = "table"


TONES = {
    "VALID": Tone.GOOD,
    "PASS": Tone.GOOD,
    "INVALID": Tone.BAD,
    "FAIL": Tone.BAD,
    "NOTHING SUCCEEDED": Tone.BAD,
    "NOT DECIDED": Tone.OPEN,
    ERROR: Tone.BAD,
}
"""How a line that begins with one of these words is shown."""


COLUMN_GAP = re.compile("( {2,})")
MAX_COLUMNS = 20


class PageLine(msgspec.Struct):
    """A line of text."""

    text: str
    tone: Tone


class MeasureRow(msgspec.Struct):
    """A measure, its value now, and its documented limit."""

    measure: str
    now: str
    limit: str


class LimitLine(msgspec.Struct, frozen=True):
    """A documented limit in a chart of the last 60 s."""

    height: float
    text: str


class ChartLimits(msgspec.Struct, frozen=True):
    """The documented limits of a chart, and why the API can accept more, if it did."""

    lines: tuple[LimitLine, ...] = ()
    note: str = ""


class LivePage(msgspec.Struct, kw_only=True):
    """Everything that the live page shows."""

    phase: Phase
    headline: str
    clock: str = ""
    """The time since the load began."""
    about: str = ""
    lines: list[PageLine] = []
    """Why the run could not start, or its verdict."""
    report: str | None = None
    """The run whose report can be opened."""
    rows: list[MeasureRow] = []
    points: list[Point] = []
    requests: ChartLimits = ChartLimits()
    tokens: ChartLimits = ChartLimits()
    flight: ChartLimits = ChartLimits()


def live_page(shown: Run | UserError | None) -> LivePage:
    """Return the page of a run, or of one that could not start because of an error."""
    if not isinstance(shown, Run):
        phase = Phase.NONE if shown is None else Phase.FAILED
        lines = [] if shown is None else text_lines(f"{ERROR} {shown}")
        return LivePage(phase=phase, headline=HEADLINES[phase], lines=lines)
    phase, live, limits = phase_of(shown), shown.live, shown.resolved.documented()
    now_s = shown.now_s() if shown.ended_s is None else shown.ended_s
    running = phase is Phase.RUNNING
    points = [*live.points, live.point(now_s)]
    draining = running and shown.duration_s is not None and now_s > shown.duration_s
    return LivePage(
        phase=phase,
        headline="Waiting for the requests in flight" if draining else HEADLINES[phase],
        clock=clock(now_s, shown.duration_s, live.activity) if running else "",
        about=f"{shown.resolved.name} on {shown.resolved.target.base_url}, run {shown.folder.path.name}",
        lines=text_lines(shown.closing_text),
        report=shown.folder.path.name
        if phase is Phase.ENDED and shown.folder.report_html.is_file()
        else None,
        rows=rows(live.snapshot(now_s), limits),
        points=points,
        requests=chart_limits(points, limits_on(limits, "requests")),
        tokens=chart_limits(points, limits_on(limits, *TOKENS)),
        flight=chart_limits(points, limits_on(limits, "concurrency")),
    )


def chart_limits(points: Sequence[Point], limits: Sequence[Limit]) -> ChartLimits:
    """Return the documented limits of a chart."""
    lines = [LimitLine(limit.per_min, _label(limit)) for limit in limits]
    notes = (_note(limit, max(_used(point, limit.what) for point in points)) for limit in limits)
    return ChartLimits(tuple(lines), next(filter(None, notes), ""))


def _label(limit: Limit) -> str:
    text = f"limit {amounts([limit])}"
    if limit.period_s in {None, WINDOW_S}:
        return text
    # Less than a whole period can hold all of its limit.
    mean = " on average" if limit.period_s > WINDOW_S else ""
    per_min = f"{limit.per_min:,.0f}" if limit.per_min >= 10 else f"{limit.per_min:.2g}"
    return f"{text} ({per_min} in 60 s{mean})"


def _note(limit: Limit, best: int) -> str:
    """Return how ``best`` accepted within 60 s agrees with a limit; empty if it is not above it."""
    if limit.period_s is None or best <= limit.limit * max(1.0, WINDOW_S / limit.period_s):
        return ""
    max_accepted = limit.limit * (math.ceil(WINDOW_S / limit.period_s) + 1)
    window = f"around its reset, a fixed window of {limit.words} accepts up to {max_accepted:,}"
    other = "" if best <= max_accepted else ", so the API has another limit, or counts differently"
    return f"The best 60 s have {best:,}: {window}{other}."


def _used(point: Point, what: What) -> int:
    """Return how much of a limit a point has."""
    counts: dict[What, int] = {
        "requests": point.accepted,
        "tokens": point.tokens,
        "input_tokens": point.input_tokens,
        "output_tokens": point.output_tokens,
        "concurrency": point.in_flight,
    }
    return counts[what]


def phase_of(run: Run) -> Phase:
    """Return how far a run has come."""
    if run.exit_code is not None:
        return Phase.ENDED
    if run.ended_s is not None:
        return Phase.REPORTING
    return Phase.RUNNING if run.started.is_set() else Phase.PREPARING


def clock(now_s: float, duration_s: float | None, activity: str) -> str:
    """Return the time since the load began. A run that consists of steps ends with its last one."""
    elapsed = f"{max(0.0, now_s):.0f}"
    if activity:
        return f"{elapsed} s: {activity}"
    return f"{elapsed} s" if duration_s is None else f"{elapsed} of {duration_s:.0f} s"


def text_lines(text: str) -> list[PageLine]:
    """Return the lines of a text for the terminal.

    Indented ones are details of the line above. Those with columns are rows of a table.
    """
    lines = []
    for line in text.splitlines():
        columns = COLUMN_GAP.split(line.strip(), maxsplit=MAX_COLUMNS - 1)
        cleaned = "".join(
            column if column.isspace() else sanitize(column, limit=MAX_MESSAGE_CHARS) for column in columns
        )
        tone = next((tone for start, tone in TONES.items() if cleaned.startswith(start)), Tone.PLAIN)
        if line.startswith(" "):
            tone = Tone.DETAIL
        elif len(columns) > 1:
            tone = Tone.TABLE
        if cleaned:
            lines.append(PageLine(cleaned, tone))
    return lines


def rows(counts: Tick, limits: list[Limit]) -> list[MeasureRow]:
    """Return the figures of the last minute next to their documented limits."""
    ttfts = [f"{ms:,.0f} ms" for q in (0.5, 0.95) if (ms := percentile(counts.ttft_ms, q)) is not None]
    return [
        _row("Accepted requests", _count(counts.accepted), amounts(limits_on(limits, "requests"))),
        _row("Refused requests", _count(counts.refused)),
        _row("Failed requests", _count(counts.failed)),
        _row("Tokens", _count(counts.tokens), amounts(limits_on(limits, *TOKENS))),
        _row("TTFT p50, p95", ", ".join(ttfts) or NONE),
        _row("In flight now", _count(counts.in_flight), amounts(limits_on(limits, "concurrency"))),
        _row("Last Retry-After", NONE if counts.retry_after_s is None else f"{counts.retry_after_s:g} s"),
        _row("Remaining requests (last reported)", _count(counts.remaining_requests)),
        _row("Remaining tokens (last reported)", _count(counts.remaining_tokens)),
    ]


def _row(measure: str, now: str, limit: str = "") -> MeasureRow:
    return MeasureRow(measure, now, limit or NONE)


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"
