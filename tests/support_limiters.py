"""Chat APIs behind limiters from other projects, each server in its own process on a free port."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support_cli import free_port

INTEROP = Path(__file__).parent / "interop"
EXPRESS = INTEROP / "express"
SERVERS = INTEROP / "servers"
ENGINE_KEY = "sk-engine"


@contextmanager
def python_limiters(limit: int, period_s: int) -> Iterator[str]:
    """Start ``interop/limited_app.py`` and yield its base address."""
    port = free_port()
    with _process([sys.executable, str(INTEROP / "limited_app.py"), str(limit), str(period_s), str(port)]):
        yield _answering(f"http://127.0.0.1:{port}")


@contextmanager
def express(limit: int, period_s: float) -> Iterator[str]:
    """Start ``interop/express/server.js`` and yield its base address."""
    node = shutil.which("node")
    if node is None or not (EXPRESS / "node_modules").is_dir():
        pytest.skip("needs node, and `npm ci` in tests/interop/express")
    command = [node, str(EXPRESS / "server.js"), str(limit), str(round(period_s * 1000))]
    with _process(command, cwd=EXPRESS) as process:
        pipe = process.stdout
        assert pipe is not None
        yield f"http://127.0.0.1:{int(pipe.readline())}"


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Start ``interop/servers/engine.py`` with a model in ``folder``, and yield its base address."""
    command = [_program("python"), str(SERVERS / "engine.py"), str(folder / "random.gguf"), ENGINE_KEY]
    with _process(command) as process:
        pipe = process.stdout
        assert pipe is not None
        address = pipe.readline().strip()
        assert address, "the engine did not start"
        yield address


@contextmanager
def lm_proxy(folder: Path, upstream: str, key: str, upstream_key: str) -> Iterator[str]:
    """Start the gateway lm-proxy with a ``key`` in front of ``upstream``, and yield its base address."""
    program = _program("lm-proxy")
    port = free_port()
    (folder / "config.toml").write_text(
        f"""
host = "127.0.0.1"
port = {port}
[connections.upstream]
api_type = "openai"
api_base = "{upstream}"
api_key = "{upstream_key}"
[routing]
"*" = "upstream.*"
[groups.default]
api_keys = ["{key}"]
"""
    )
    with _process([program], cwd=folder):
        yield _answering(f"http://127.0.0.1:{port}")


@contextmanager
def nginx(folder: Path, settings: str, locations: str) -> Iterator[str]:
    """Start nginx with ``settings`` in its ``http`` block and ``locations`` in its only server."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"""
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_buffering off;
  {settings}
  server {{
    listen 127.0.0.1:{port};
    {locations}
  }}
}}
"""
    )
    with _process([program, "-c", str(folder / "nginx.conf"), "-p", str(folder)]):
        yield _answering(f"http://127.0.0.1:{port}")


@contextmanager
def envoy(folder: Path, settings: str) -> Iterator[None]:
    """Start Envoy with ``settings``, and wait until it listens on the port that they have first."""
    path = folder / "envoy.yaml"
    path.write_text(settings)
    (port, *_) = re.findall(r"port_value: (\d+)", settings)
    with _process([_program("envoy"), "-c", str(path), "--disable-hot-restart", "--log-level", "error"]):
        _answering(f"http://127.0.0.1:{port}")
        yield


def server_program(name: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the servers' environment to its end."""
    return subprocess.run(
        [_program(name), *options], env=os.environ | variables, capture_output=True, text=True, check=False
    )


def _program(name: str) -> str:
    """Return the path of a program of the servers' environment. Skip the test without it."""
    path = SERVERS / ".venv" / "bin" / name
    if not path.exists():
        pytest.skip(f"needs {name} (make servers)")
    return str(path)


@contextmanager
def _process(command: list[str], cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _answering(url: str) -> str:
    """Return the address once something responds there (with a 404, which no limit counts)."""
    give_up_s = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{url}/nothing")
        except httpx.TransportError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.05)
        else:
            return url
