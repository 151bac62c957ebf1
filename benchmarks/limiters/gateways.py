"""Limiters of gateways from Debian in front of the chat API: the command and the configuration of each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are. Debian's servers are not on every user's path."""


class Gateway(NamedTuple):
    """A program and its configuration."""

    program: str
    config: Callable[[int, int, int, int, Path], str]
    """Return the text, from limit, period in seconds, port, the API's port, and the folder."""
    command: Callable[[str, Path, int], list[str]]
    """Return the command, from the program, the folder with the configuration, and the port."""


def find(program: str) -> str | None:
    """Return the path of a program, or None if it is not installed."""
    return shutil.which(program) or shutil.which(program, path=SEARCHED)


def _nginx(zone: str, rule: str) -> Gateway:
    def config(limit: int, period_s: int, port: int, upstream: int, folder: Path) -> str:
        values = {"rate": f"{limit * 60 // period_s}r/m", "limit": limit, "burst": limit - 1}
        values["free"] = limit // 4
        temporary = "".join(
            f"{name}_temp_path {folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
access_log off;
{temporary}
client_max_body_size 64m;
proxy_buffering off;
{zone.format(**values)}
server {{
listen 127.0.0.1:{port};
location / {{ {rule.format(**values)} proxy_pass http://127.0.0.1:{upstream}; }}
}}
}}
"""

    def command(program: str, folder: Path, _port: int) -> list[str]:
        return [program, "-c", str(folder / "config"), "-p", str(folder)]

    return Gateway("nginx", config, command)


def _haproxy(rules: str, server: str = "") -> Gateway:
    def config(limit: int, period_s: int, port: int, upstream: int, _folder: Path) -> str:
        return f"""
global
  maxconn 512
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout queue 120s
frontend in
  bind 127.0.0.1:{port}
  {rules.format(limit=limit, period=period_s)}
  default_backend api
backend api
  server api 127.0.0.1:{upstream} {server.format(limit=limit)}
"""

    def command(program: str, folder: Path, _port: int) -> list[str]:
        return [program, "-db", "-q", "-f", str(folder / "config")]

    return Gateway("haproxy", config, command)


def _varnish() -> Gateway:
    def config(limit: int, period_s: int, _port: int, upstream: int, _folder: Path) -> str:
        return f"""
vcl 4.1;
import vsthrottle;
backend api {{ .host = "127.0.0.1"; .port = "{upstream}"; .first_byte_timeout = 120s; }}
sub vcl_recv {{
  if (vsthrottle.is_denied(req.http.Authorization, {limit}, {period_s}s)) {{ return (synth(429)); }}
  return (pass);
}}
"""

    def command(program: str, folder: Path, port: int) -> list[str]:
        where = ["-a", f"127.0.0.1:{port}", "-f", str(folder / "config"), "-n", str(folder / "work")]
        return [program, "-F", "-j", "none", "-T", "none", *where]

    return Gateway("varnishd", config, command)


_TABLE = "stick-table type ip size 1k expire 10m store http_req_rate({period}s)\n  "

GATEWAYS: dict[str, Gateway] = {
    "nginx limit_req": _nginx(
        "limit_req_zone $binary_remote_addr zone=one:1m rate={rate};",
        "limit_req zone=one burst={burst} nodelay;",
    ),
    "nginx limit_req, delayed": _nginx(
        "limit_req_zone $binary_remote_addr zone=one:1m rate={rate};",
        "limit_req zone=one burst={burst} delay={free};",
    ),
    "nginx limit_conn": _nginx(
        "limit_conn_zone $binary_remote_addr zone=one:1m;",
        "limit_conn one {limit}; limit_conn_status 429;",
    ),
    "haproxy http_req_rate": _haproxy(
        _TABLE
        + "http-request track-sc0 src\n"
        + "  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {limit} }}"
    ),
    "haproxy http_req_rate, accepted only": _haproxy(
        _TABLE
        + "http-request deny deny_status 429 if {{ src_http_req_rate ge {limit} }}\n"
        + "  http-request track-sc0 src"
    ),
    "haproxy maxconn": _haproxy("", "maxconn {limit}"),
    "varnish vsthrottle": _varnish(),
}
