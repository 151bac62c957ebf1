"""Access logs of nginx and Envoy: a format of theirs becomes a pattern, and each line a request."""

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from bltybench.errors import UserError
from bltybench.imports.failures import of_status, responded
from bltybench.imports.row import NS_PER_S, BrokenRowError, LogRow, Skipped, seconds_ns, time_ns, whole
from bltybench.wire.error_body import redacted
from bltybench.wire.fault import Failure, Fault

COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent"'
)
ENVOY = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"'
)
NGINX_LACKS = ("nginx writes when a request ended, so it was sent at that time minus $request_time.",)
ENVOY_LACKS = ("Envoy's times and durations are whole milliseconds.",)

_NGINX_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ENVOY_OPERATOR = re.compile(r"%([A-Z_0-9]+)(?:\(([^)%]*(?:%[^)]*)?)\))?(?::\d+)?%")
_MISSING = frozenset({"", "-"})
_MONTHS = {name: month for month, name in enumerate(calendar.month_abbr) if name}
_TIME_LOCAL = re.compile(r"(\d\d)/(\w{3})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})", re.ASCII)

NGINX_FIELDS = {
    "time_local": "time_local",
    "time_iso8601": "time",
    "msec": "seconds",
    "request_time": "duration_s",
    "upstream_header_time": "headers_s",
    "status": "status",
    "request": "request",
    "request_method": "method",
    "request_uri": "path",
    "uri": "path",
    "remote_addr": "client",
    "realip_remote_addr": "client",
    "host": "host",
    "http_host": "host",
    "server_name": "host",
    "bytes_sent": "bytes_received",
    "request_length": "bytes_sent",
}
"""Variables of nginx that are read, by what they mean here. Sent and received are seen from the client."""
ENVOY_FIELDS = {
    "START_TIME": "start",
    "DURATION": "duration_ms",
    "RESPONSE_DURATION": "headers_ms",
    "RESPONSE_CODE": "status",
    "RESPONSE_FLAGS": "flags",
    "BYTES_RECEIVED": "bytes_sent",
    "BYTES_SENT": "bytes_received",
    "REQ(:METHOD)": "method",
    "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)": "path",
    "REQ(:PATH)": "path",
    "REQ(:AUTHORITY)": "host",
    "REQ(X-FORWARDED-FOR)": "client",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": "client",
}
ENVOY_JSON = {
    "start_time": "start",
    "duration": "duration_ms",
    "response_code": "status",
    "response_flags": "flags",
    "bytes_received": "bytes_sent",
    "bytes_sent": "bytes_received",
    "method": "method",
    "path": "path",
    "x-envoy-origin-path": "path",
    "authority": "host",
    ":authority": "host",
    "x_forwarded_for": "client",
    "x-forwarded-for": "client",
}
"""Keys of Envoy's JSON logs as Istio and Envoy Gateway name them."""
CANCELLED_FLAG = "DC"
BROKEN_FLAGS = frozenset({"UC", "UPE", "UT", "SI", "UR", "LR", "DPE"})
"""Envoy's flags of a response that broke off after its head."""
CLIENT_CLOSED = 499
"""nginx's status of a request that the client gave up before the head of its response."""

Fields = dict[str, str]


@dataclass(frozen=True, slots=True)
class Template:
    """A format of lines: its pattern, and the meaning of each group."""

    pattern: re.Pattern[str]
    meanings: tuple[str, ...]

    @property
    def timed(self) -> bool:
        """Whether it has durations."""
        return any(name in self.meanings for name in ("duration_s", "duration_ms"))

    def fields(self, line: str) -> Fields:
        """Return the values of a line that has this format, by their meanings."""
        match = self.pattern.fullmatch(line)
        if match is None:
            raise BrokenRowError("it does not have this format")
        return {
            name: value
            for name, value in zip(self.meanings, match.groups(), strict=True)
            if value is not None and value not in _MISSING
        }


def template(text: str, option: str) -> Template:
    """Return the format that nginx's ``log_format`` or Envoy's format string describes.

    Raise UserError if it lacks the time, the status, or the path.
    """
    nginx = "$" in text
    variable = _NGINX_VARIABLE if nginx else _ENVOY_OPERATOR
    parts, meanings, at = list[str](), list[str](), 0
    for match in variable.finditer(text):
        literal, after = text[at : match.start()], text[match.end() : match.end() + 1]
        if at and not literal:
            raise UserError(f"nothing separates {match[0]} from the variable before it", where=option)
        parts += [re.escape(literal), _value(match[1] or match[2], after)]
        meanings.append(_nginx_meaning(match) if nginx else _envoy_meaning(match))
        at = match.end()
    parts.append(re.escape(text[at:].rstrip("\n")))
    missing = [
        words
        for words, names in (
            ("a time", {"time_local", "time", "seconds", "start"}),
            ("a status", {"status"}),
            ("a path", {"request", "path"}),
        )
        if not names & set(meanings)
    ]
    if missing:
        example = 'nginx:$remote_addr [$time_local] "$request" $status $request_time'
        raise UserError(
            f"the format has no {', no '.join(missing)}", where=option, remedy=f"such as {example!r}"
        )
    return Template(re.compile("".join(parts)), tuple(meanings))


def _value(name: str, after: str) -> str:
    """Return the pattern of a value, which ends where the character ``after`` it in the format comes next."""
    if not after:
        return "(.*)"
    if after == " " and name == "time_local":
        return r"(\S+ \S+)"
    if after == " " and name.startswith("upstream_"):
        return "([^ ]*(?:(?<=[,:]) [^ ]+)*(?: : [^ ]+)*)"
    return f"([^{re.escape(after)}]*)"


def _nginx_meaning(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    for prefix in ("upstream_http_", "sent_http_"):
        if name.startswith(prefix):
            return "header:" + name.removeprefix(prefix).replace("_", "-")
    return NGINX_FIELDS.get(name, f"unused:{name}")


def _envoy_meaning(match: re.Match[str]) -> str:
    name, argument = match[1], match[2]
    if name == "RESP" and argument and "?" not in argument and "ENVOY" not in argument:
        return f"header:{argument.lower()}"
    if name in {"REQ", "RESP"}:
        name = f"{name}({argument})"
    return ENVOY_FIELDS.get(name, f"unused:{name}")


def envoy_json(row: dict[str, Any]) -> Fields:
    """Return the values of a line of Envoy's JSON log."""
    return _renamed(row, ENVOY_JSON)


def nginx_json(row: dict[str, Any]) -> Fields:
    """Return the values of a line of an nginx JSON log whose keys are nginx's variables."""
    return _renamed(row, NGINX_FIELDS)


def _renamed(row: dict[str, Any], names: dict[str, str]) -> Fields:
    return {
        names[key]: str(value)
        for key, value in row.items()
        if key in names and value is not None and str(value) not in _MISSING
    }


def request(fields: Fields, path: re.Pattern[str]) -> LogRow | Skipped:
    """Return the request of a line if its path matches ``path``."""
    method, target = _target(fields)
    where = target.partition("?")[0]
    if method not in {None, "POST"} or not path.search(where):
        return Skipped("requests to other paths")
    at_ns, starts = _time(fields)
    lasted_ns = _duration(fields, "duration_s", "duration_ms")
    end_ns = at_ns + (lasted_ns or 0) if starts else at_ns
    start_ns = None if lasted_ns is None else end_ns - lasted_ns
    head_ns = _duration(fields, "headers_s", "headers_ms")
    status = whole(fields.get("status"))
    headers = [(name[7:], value) for name, value in fields.items() if name.startswith("header:")]
    return LogRow(
        clock_ns=at_ns,
        start_ns=start_ns,
        end_ns=end_ns,
        result=_result(status, headers, fields.get("flags", ""), end_ns),
        endpoint=redacted(where),
        headers_ns=None
        if head_ns is None or start_ns is None or not status
        else min(start_ns + head_ns, end_ns),
        bytes_sent=whole(fields.get("bytes_sent")),
        bytes_received=whole(fields.get("bytes_received")),
        client=fields.get("client", "").partition(",")[0].strip() or None,
        host=fields.get("host"),
    )


def _target(fields: Fields) -> tuple[str | None, str]:
    if "request" in fields:
        method, _, rest = fields["request"].partition(" ")
        return method, rest.rpartition(" ")[0] or rest
    return fields.get("method"), fields.get("path", "")


def _time(fields: Fields) -> tuple[int, bool]:
    """Return the time of a line, and whether it is that of the request's start."""
    readers: tuple[tuple[str, Callable[[str, str], int], bool], ...] = (
        ("start", _start, True),
        ("seconds", seconds_ns, False),
        ("time", time_ns, False),
        ("time_local", _local, False),
    )
    for name, reader, starts in readers:
        if name in fields:
            return reader(fields[name], "its time"), starts
    raise BrokenRowError("it has no time")


def _start(value: str, name: str) -> int:
    return seconds_ns(value, name) if value.replace(".", "", 1).isdigit() else time_ns(value, name)


@lru_cache(maxsize=1024)
def _local(value: str, name: str) -> int:
    match = _TIME_LOCAL.fullmatch(value)
    if match is None or match[2] not in _MONTHS:
        raise BrokenRowError(f"{name} is no time")
    day, month, year, clock, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{year}-{_MONTHS[month]:02}-{day}T{clock}{zone}")
    except ValueError:
        raise BrokenRowError(f"{name} is no time") from None
    return int(moment.astimezone(UTC).timestamp()) * NS_PER_S


def _duration(fields: Fields, seconds: str, milliseconds: str) -> int | None:
    """Return a duration; None if there is none. nginx lists one for each upstream that it tried."""
    if milliseconds in fields:
        return seconds_ns(fields[milliseconds], "its duration") // 1000
    if seconds in fields:
        last = re.split("[,:] ?", fields[seconds].strip())[-1].strip()
        return None if last in _MISSING else seconds_ns(last, "its duration")
    return None


def _result(status: int | None, headers: list[tuple[str, str]], flags: str, end_ns: int) -> Any:
    known = set(re.split("[,; ]", flags))
    if status == CLIENT_CLOSED or CANCELLED_FLAG in known:
        status = status if status and 200 <= status < 300 else None
        failure = Failure(Fault.CANCELLED, "the client closed the connection")
        return responded(status, headers, b"", end_ns, failure=failure)
    if not status:
        return responded(None, headers, b"", end_ns, failure=Failure(Fault.RESET, "no response"))
    if 200 <= status < 300 and (broken := known & BROKEN_FLAGS):
        failure = Failure(Fault.CLOSED_EARLY, f"Envoy's flags: {', '.join(sorted(broken))}")
        return responded(status, headers, b"", end_ns, failure=failure)
    return of_status(status, headers, end_ns)
