"""The command line as users start it, and targets for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from typer.testing import CliRunner

from bltybench.cli.app import app

OURS = (
    "BLTYAPI_KEY",
    "MINE_KEY",
    "MINE_KEY_RESTRICTED",
    "NO_COLOR",
    "FORCE_COLOR",
    "PY_COLORS",
    "GITHUB_ACTIONS",
)


def bltybench(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 90
) -> subprocess.CompletedProcess[str]:
    """Run ``bltybench`` in ``cwd`` and return its output and exit code."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    return subprocess.run(
        [sys.executable, "-m", "bltybench", *arguments],
        cwd=cwd,
        env={**clean, "COLUMNS": "200", **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def invoke(command: str, reports: Path, *arguments: str) -> tuple[int, str]:
    """Run a command in this process with the runs in ``reports``. Return its exit code and stdout."""
    result = CliRunner().invoke(app, [command, "--reports", str(reports), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def listens(port: int) -> bool:
    """Return whether a port of this machine accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def write_book(folder: Path, target: str) -> None:
    """Write a scenarios.toml with the target ``mine``, given as TOML, and one scenario for it."""
    (folder / "scenarios.toml").write_text(
        f"""
default_scenario = "short"

{target}

[scenarios.short]
title = "Short"
target = "mine"
model = "deepseek-chat"
duration_s = 1
users = 1
arrivals = {{ kind = "closed" }}

[[scenarios.short.mix]]
name = "chat"
"""
    )


def remote_target(base_url: str, more: str = "") -> str:
    """Return the TOML of an ordinary target at ``base_url`` that needs MINE_KEY."""
    return f'[targets.mine]\nbase_url = "{base_url}"\napi_key_env = "MINE_KEY"\n{more}\n'


def sandbox_target(port: int, *, limit: int = 12, period_s: float = 4.0) -> str:
    """Return the TOML of a fast sandbox on ``port``."""
    return f"""
[targets.mine]
base_url = "http://127.0.0.1:{port}/v1"

[targets.mine.sandbox]
ttft = {{ median_ms = 3, p95_ms = 5 }}
itl = {{ median_ms = 1, p95_ms = 2 }}

[targets.mine.sandbox.limits]
requests = {{ limit = {limit}, period_s = {period_s} }}
"""
