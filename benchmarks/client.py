"""One client under test, in its own process on one core: ``python -m benchmarks.client NAME CORE``."""

import os
import sys
import tempfile
from pathlib import Path

from benchmarks import bare, cref
from benchmarks.work import CLOSED_LOOP, SCENARIO, Work, read_work

OURS = "bltybench"
LOCUST = {OURS: "Ours", "FastHttpUser": "Fast", "HttpUser": "Plain"}
ASYNC = ("aiohttp", "httpx", "openai")
BARE = "bare epoll"
"""Reads and discards: the server's capacity."""
C_EPOLL = "C epoll"
"""Reads and timestamps, in C: what the reads cost without Python."""
CLIENTS = (*LOCUST, *ASYNC, BARE, C_EPOLL)
DAY_S = 86_400


def run_locust(user: str, work: Work) -> None:
    """Run Locust as its command does, in this process. It ends the process."""
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=Path(work.result).parent))
    scenario = SCENARIO.format(
        url=work.base_url,
        seconds=DAY_S,
        users=work.streams,
        spawn_rate=work.streams,
        arrivals=CLOSED_LOOP,
        tokens=work.tokens,
    )
    (directory / "scenarios.toml").write_text(scenario)
    users = Path(__file__).with_name("locust_users.py").resolve()
    os.chdir(directory)
    sys.argv = ["locust", "-f", str(users), user, "--headless", "--only-summary", "-L", "WARNING"]
    sys.argv += ["-u", str(work.streams), "-r", str(work.streams), "--scenario", "bench"]
    from locust.main import main as locust_main  # noqa: PLC0415 - it patches the standard library

    locust_main()


def main() -> None:
    """Pin this process, then do the work."""
    name, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    work = read_work()
    if name in LOCUST:
        run_locust(LOCUST[name], work)
    elif name == BARE:
        bare.run(work)
    elif name == C_EPOLL:
        cref.run(work)
    else:
        from benchmarks.async_clients import run  # noqa: PLC0415 - not in a Locust process

        run(name, work)


if __name__ == "__main__":
    main()
