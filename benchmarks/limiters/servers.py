"""Install the limiters, and run one of them on a free port of this machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
    requirements, node = HERE / "requirements.txt", cache / "node"
    if _changed(requirements, cache):
        subprocess.run([sys.executable, "-m", "venv", str(cache / "venv")], check=True)
        pip = [str(_python(cache)), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        # The constraints are those of this project, not of the limiters.
        subprocess.run(pip, check=True, env={**os.environ, "PIP_CONSTRAINT": ""})
        shutil.copy(requirements, cache)
    lock = HERE / "package-lock.json"
    if shutil.which("npm") and _changed(lock, cache):
        node.mkdir(parents=True, exist_ok=True)
        for file in (lock, HERE / "package.json"):
            shutil.copy(file, node)
        subprocess.run(["npm", "ci", "--silent", "--no-fund", "--no-audit"], cwd=node, check=True)  # noqa: S607
        shutil.copy(lock, cache)


def _changed(pins: Path, cache: Path) -> bool:
    """Return whether the cache was installed from other pins, or not at all."""
    installed = cache / pins.name
    return not installed.exists() or installed.read_bytes() != pins.read_bytes()


def missing(limiter: Limiter) -> str | None:
    """Return which programs a limiter lacks on this machine, or None."""
    needed = {"PyPI": (), "npm": ("node", "npm"), "Debian": (_program(limiter),)}[limiter.registry]
    lacking = [name for name in (*needed, *("redis-server",) * limiter.redis) if not find(name)]
    return " and ".join(lacking) or None


def _program(limiter: Limiter) -> str:
    return GATEWAYS[limiter.name].program if limiter.name in GATEWAYS else ""


@contextmanager
def serving(limiter: Limiter, setting: Setting, folder: Path, cache: Path) -> Iterator[str]:
    """Serve the chat API behind a limiter and yield its base address."""
    port, api_port, redis_port = _free_ports(3)
    numbers = (str(setting.limit), str(setting.period_s))
    python = [str(_python(cache)), "-m", MODULE]
    redis = f"redis://127.0.0.1:{redis_port}/0"
    environment = {**os.environ, "PYTHONPATH": str(REPO), "LIMITER_REDIS": redis}
    with ExitStack() as processes:

        def start(command: list[str], port: int) -> None:
            log = folder / f"{Path(command[0]).name}-{port}.log"
            processes.enter_context(_process(command, port, log, environment))

        if limiter.redis:
            options = ["--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
            start([_found("redis-server"), "--port", str(redis_port), *options], redis_port)
        if limiter.registry == "PyPI":
            start([*python, limiter.name, *numbers, str(port)], port)
        elif limiter.registry == "npm":
            # Node finds packages next to the program.
            program = str(shutil.copy(HERE / "node_limiters.mjs", cache / "node"))
            period_ms = str(1000 * setting.period_s)
            start([_found("node"), program, limiter.name, numbers[0], period_ms, str(port)], port)
        else:
            gateway = GATEWAYS[limiter.name]
            start([*python, "none", *numbers, str(api_port)], api_port)
            (folder / "config").write_text(gateway.config(*setting, port, api_port, folder))
            start(gateway.command(_found(gateway.program), folder, port), port)
        yield f"http://127.0.0.1:{port}/v1"


def _found(program: str) -> str:
    path = find(program)
    if path is None:
        raise RuntimeError(f"{program} is not installed")
    return path


def _python(cache: Path) -> Path:
    return cache / "venv" / "bin" / "python"


def _free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens. They are distinct, because all are open at the same time."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


@contextmanager
def _process(command: list[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[None]:
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
