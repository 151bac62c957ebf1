"""Install the limiters, and run one of them on a free port of this machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import REPO
from benchmarks.limiters.gateways import GATEWAYS, find
from benchmarks.limiters.truth import Limiter, Setting

HERE = Path(__file__).parent
MODULE = "benchmarks.limiters.python_limiters"
START_S = 60.0
"""Time for a server to start, in seconds. Varnish compiles its configuration first."""


def install(cache: Path) -> None:
    """Set up the environment and the packages of node in the cache directory, unless they are there."""
    requirements, done = HERE / "requirements.txt", cache / "installed.txt"
    if not done.exists() or done.read_bytes() != requirements.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", str(cache / "venv")], check=True)
        pip = [str(_python(cache)), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        # The constraints are those of this project, not of the limiters.
        subprocess.run(pip, check=True, env={**os.environ, "PIP_CONSTRAINT": ""})
        shutil.copy(requirements, done)
    lock, node = HERE / "package-lock.json", cache / "node"
    if shutil.which("npm") and not (node / "done").exists():
        node.mkdir(parents=True, exist_ok=True)
        for file in (lock, HERE / "package.json"):
            shutil.copy(file, node)
        subprocess.run(["npm", "ci", "--silent", "--no-fund", "--no-audit"], cwd=node, check=True)  # noqa: S607
        (node / "done").touch()


def missing(limiter: Limiter) -> str | None:
    """Return which program a limiter lacks on this machine, or None."""
    if limiter.registry == "npm":
        return None if shutil.which("node") and shutil.which("npm") else "node and npm"
    if limiter.registry == "Debian":
        program = GATEWAYS[limiter.name].program
        return None if find(program) else f"{program} (Debian: {limiter.package})"
    return None


@contextmanager
def serving(limiter: Limiter, setting: Setting, folder: Path, cache: Path) -> Iterator[str]:
    """Serve the chat API behind a limiter and yield its base address."""
    port = _free_port()
    arguments = [str(setting.limit), str(setting.period_s)]
    if limiter.registry == "PyPI":
        command = [str(_python(cache)), "-m", MODULE, limiter.name, *arguments, str(port)]
        with _process(command, port, folder / "limiter.log"):
            yield f"http://127.0.0.1:{port}/v1"
    elif limiter.registry == "npm":
        # Node finds packages next to the program.
        program = str(shutil.copy(HERE / "node_limiters.mjs", cache / "node"))
        period_ms = str(1000 * setting.period_s)
        command = ["node", program, limiter.name, arguments[0], period_ms, str(port)]
        with _process(command, port, folder / "limiter.log"):
            yield f"http://127.0.0.1:{port}/v1"
    else:
        gateway, api_port = GATEWAYS[limiter.name], _free_port()
        program_path = find(gateway.program)
        if program_path is None:
            raise RuntimeError(f"{gateway.program} is not installed")
        (folder / "config").write_text(gateway.config(*setting, port, api_port, folder))
        api = [str(_python(cache)), "-m", MODULE, "none", *arguments, str(api_port)]
        with (
            _process(api, api_port, folder / "api.log"),
            _process(gateway.command(program_path, folder, port), port, folder / "limiter.log"),
        ):
            yield f"http://127.0.0.1:{port}/v1"


def _python(cache: Path) -> Path:
    return cache / "venv" / "bin" / "python"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def _process(command: list[str], port: int, log: Path) -> Iterator[None]:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            _wait(process, port, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until the port accepts a connection. A request could count against the limit."""
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not start: {log.read_text()[-2000:]}")
