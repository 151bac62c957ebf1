"""Chat APIs behind limiters that are not ours, each a process of its own on a free port."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from support_cli import free_port
from support_sandbox import running_sandbox

EXPRESS = Path(__file__).parent / "interop" / "express"

ANSWER = {
    "id": "made",
    "object": "chat.completion",
    "created": 0,
    "model": "deepseek-chat",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}

STRATEGY_APP = """
import sys
import uvicorn
from limits import RateLimitItemPerSecond, storage, strategies
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

strategy, limit, period, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
limiter = getattr(strategies, strategy)(storage.MemoryStorage())
item = RateLimitItemPerSecond(limit, period)

async def chat(request):
    if limiter.hit(item, "key"):
        return JSONResponse(ANSWER)
    return JSONResponse({"error": {"message": "Rate limit exceeded"}}, status_code=429)

app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical")
"""


@contextmanager
def limits_package(strategy: str, limit: int, period_s: int) -> Iterator[str]:
    """A server that asks the Python package ``limits``, by the name of one of its strategies."""
    port = free_port()
    program = f"ANSWER = {json.dumps(ANSWER)}\n{STRATEGY_APP}"
    command = [sys.executable, "-c", program, strategy, str(limit), str(period_s), str(port)]
    with _process(command):
        yield _answering(f"http://127.0.0.1:{port}/v1")


@contextmanager
def express(limit: int, period_s: float, headers: str) -> Iterator[str]:
    """A server with express-rate-limit; ``headers`` is one of its drafts, or legacy."""
    node = shutil.which("node")
    if node is None or not (EXPRESS / "node_modules").is_dir():
        pytest.skip("needs node, and `npm ci` in tests/interop/express")
    command = [node, str(EXPRESS / "server.js"), str(limit), str(round(period_s * 1000)), headers]
    with _process(command, cwd=EXPRESS) as process:
        pipe = process.stdout
        assert pipe is not None
        yield f"http://127.0.0.1:{int(pipe.readline())}/v1"


@contextmanager
def nginx(folder: Path, zone: str, rule: str) -> Iterator[str]:
    """Put nginx in front of a sandbox without limits; ``zone`` and ``rule`` go into its configuration."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    port = free_port()
    with running_sandbox() as sandbox:
        behind = urlsplit(sandbox.base_url)
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
  {zone}
  server {{
    listen 127.0.0.1:{port};
    location / {{ {rule} proxy_pass http://{behind.netloc}; }}
  }}
}}
"""
        )
        with _process([program, "-c", str(folder / "nginx.conf"), "-p", str(folder)]):
            yield _answering(f"http://127.0.0.1:{port}/v1")


@contextmanager
def _process(command: list[str], cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _answering(base_url: str) -> str:
    """Return the address once something answers there (a GET is no chat, and costs nothing that matters)."""
    give_up_s = time.monotonic() + 30
    while True:
        try:
            httpx.get(base_url)
        except httpx.TransportError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.05)
        else:
            return base_url
