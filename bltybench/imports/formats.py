"""The log formats: their names, and which one a file has."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from bltybench.errors import UserError
from bltybench.imports import access_log, har, json_rows, langfuse, litellm, otel
from bltybench.imports.row import BrokenRowError, LogRow, Skipped
from bltybench.imports.source import Rows, Source

USUAL_PATHS = r"/(?:completions|responses|messages)/?$"
"""Paths whose requests generate text, in logs of HTTP requests."""
SNIFFED_CHARS = 1024 * 1024
MAX_SNIFFED_ROWS = 20
OPTION = "--format"

Parsed = LogRow | Skipped | BrokenRowError
Parse = Callable[[Any], Iterable[Parsed]]


@dataclass(frozen=True, slots=True)
class LogFormat:
    """How a kind of log is read."""

    name: str
    rows: Callable[[Source, str], Rows]
    """Yield its rows, given the start of the file."""
    parse: Parse
    lacks: tuple[str, ...] = ()
    measured_durations: bool = False
    """Whether durations are measured, and not differences of timestamps."""
    retries_inside: bool = False
    """Whether a row can cover several attempts."""


def _lines(source: Source, _: str) -> Rows:
    return source.lines()


def _json_or_csv(source: Source, first: str) -> Rows:
    return json_rows.rows(source, first) if json_rows.is_json(first) else source.tables()


def _each(parse: Callable[[Any], LogRow | Skipped]) -> Parse:
    return lambda row: (parse(row),)


NAMES = (
    "litellm",
    "langfuse",
    "otel",
    "har",
    "envoy",
    "envoy-json",
    "nginx-json",
    "combined",
    "combined+request_time",
    "'nginx:$remote_addr … $status $request_time'",
    "'envoy:%START_TIME% … %DURATION%'",
)
"""Values of the option, as messages list them."""


def named(text: str, path: re.Pattern[str]) -> LogFormat:
    """Return the format of a name; ``path`` matches the paths of requests to import."""
    kind, colon, pattern = text.partition(":")
    if colon and kind in {"nginx", "envoy"}:
        return _of_template(kind, pattern, path)
    builtin = {
        "combined": ("nginx", access_log.COMBINED),
        "combined+request_time": ("nginx", f"{access_log.COMBINED} $request_time"),
        "envoy": ("envoy", access_log.ENVOY),
    }
    if text in builtin:
        return _of_template(*builtin[text], path, text)
    found = {
        "litellm": LogFormat(
            "litellm", _json_or_csv, _each(litellm.parse), litellm.LACKS, retries_inside=True
        ),
        "langfuse": LogFormat(
            "langfuse", _json_or_csv, _each(langfuse.parse), langfuse.LACKS, retries_inside=True
        ),
        "otel": LogFormat("otel", json_rows.rows, otel.parse, otel.LACKS, retries_inside=True),
        "har": LogFormat(
            "har", json_rows.rows, _each(partial(har.parse, path=path)), har.LACKS, measured_durations=True
        ),
        "envoy-json": LogFormat(
            "envoy-json",
            json_rows.rows,
            _each(lambda row: access_log.request(access_log.envoy_json(row), path)),
            access_log.ENVOY_LACKS,
            measured_durations=True,
        ),
        "nginx-json": LogFormat(
            "nginx-json",
            json_rows.rows,
            _each(lambda row: access_log.request(access_log.nginx_json(row), path)),
            access_log.NGINX_LACKS,
            measured_durations=True,
        ),
    }.get(text)
    if found is None:
        raise UserError(f"no such format: {text[:60]!r}", where=OPTION, remedy=f"one of {', '.join(NAMES)}")
    return found


def _of_template(kind: str, pattern: str, path: re.Pattern[str], name: str | None = None) -> LogFormat:
    form = access_log.template(pattern, OPTION)
    return LogFormat(
        name or kind,
        _lines,
        _each(lambda line: access_log.request(form.fields(line), path)),
        access_log.NGINX_LACKS
        if kind == "nginx" and form.timed
        else access_log.ENVOY_LACKS * (kind == "envoy"),
        measured_durations=form.timed,
    )


def inferred(file: Path, path: re.Pattern[str]) -> LogFormat:
    """Return the format that the first rows of a file have. Raise UserError unless exactly one fits."""
    with Source(file) as source:
        first = source.read(SNIFFED_CHARS)
    if not first.strip():
        raise UserError("is empty", where=str(file), remedy="name another log")
    with Source(file) as source:
        fitting = _structured(source, first) if json_rows.is_json(first) else _text(first)
    if len(fitting) == 1:
        return named(fitting[0], path)
    what = f"could be {' or '.join(fitting)}" if fitting else "has a format that is not recognized"
    extra = " (nginx's combined format with more fields: name them)" if _more_than_combined(first) else ""
    raise UserError(what + extra, where=f"{file}:1", remedy=f"name it with {OPTION}: {', '.join(NAMES)}")


def _structured(source: Source, first: str) -> list[str]:
    rows = [row.value for row in islice(json_rows.rows(source, first), MAX_SNIFFED_ROWS)]
    objects = [row for row in rows if isinstance(row, dict)]
    tests: dict[str, Callable[[dict[str, Any]], bool]] = {
        "litellm": litellm.fits,
        "langfuse": langfuse.fits,
        "otel": otel.fits,
        "har": har.fits,
        "envoy-json": lambda row: {"start_time", "response_code", "duration"} <= row.keys(),
        "nginx-json": lambda row: (
            "status" in row and bool(row.keys() & {"time_local", "time_iso8601", "msec"})
        ),
    }
    return [name for name, fits in tests.items() if any(map(fits, objects))]


def _text(first: str) -> list[str]:
    lines = [line.strip() for line in first.splitlines()[:MAX_SNIFFED_ROWS] if line.strip()]
    header = dict.fromkeys(name.strip().strip('"') for name in lines[0].split(","))
    found = [name for name, fits in (("litellm", litellm.fits), ("langfuse", langfuse.fits)) if fits(header)]
    templates = {"combined": access_log.COMBINED, "envoy": access_log.ENVOY}
    for name, text in templates.items():
        form = access_log.template(text, OPTION)
        if any(form.pattern.fullmatch(line) for line in lines):
            found.append(name)
    return found


def _more_than_combined(first: str) -> bool:
    form = access_log.template(access_log.COMBINED, OPTION)
    return form.pattern.match(first.lstrip().partition("\n")[0]) is not None
