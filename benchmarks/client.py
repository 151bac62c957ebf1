"""One client under test, in a process of its own on one core: ``python -m benchmarks.client NAME CORE``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks import bare
from benchmarks.work import Work, read_work

LOCUST = {"bltybench": "Ours", "FastHttpUser": "Fast", "HttpUser": "Plain"}
ASYNC = ("aiohttp", "httpx", "openai")
BARE = "bare epoll"
"""Reads and throws away: what the server can give."""
CLIENTS = (*LOCUST, *ASYNC, BARE)

SCENARIO = """
default_scenario = "bench"
[targets.server]
base_url = "{work.base_url}"
[scenarios.bench]
title = "Benchmark"
target = "server"
model = "deepseek-chat"
duration_s = 86400
users = {work.streams}
arrivals = {{ kind = "closed" }}
[[scenarios.bench.mix]]
name = "stream"
stream = true
max_tokens = {{ kind = "fixed", tokens = {work.tokens} }}
"""


def run_locust(user: str, work: Work) -> None:
    """Run Locust as its command does, in this process. It ends the process."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=Path(work.result).parent))
    (folder / "scenarios.toml").write_text(SCENARIO.format(work=work))
    users = Path(__file__).with_name("locust_users.py").resolve()
    os.chdir(folder)
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
    else:
        from benchmarks.async_clients import run  # noqa: PLC0415 - not where Locust runs

        run(name, work)


if __name__ == "__main__":
    main()
