"""Probe limiters that others wrote, and judge every answer by their source or documentation.

python -m benchmarks.limiters --results FOLDER                 all limiters; the same command resumes
python -m benchmarks.limiters --results FOLDER --only nginx    those whose name contains a word
python -m benchmarks.limiters --results FOLDER --show          prints what is wrong, and runs nothing
python -m benchmarks.limiters --results FOLDER --write         docs/limits-live.md, if all have been probed

Each limiter is probed at two settings. At the first, the probe knows nothing, and is not asked about tokens.
At the second, it is given the period, as the documentation would give it, and is asked everything:
without a period, it would wait two minutes before each experiment on tokens.

Needs node and npm, and from Debian nginx-light, haproxy, varnish, varnish-modules, and redis-server. Limiters
whose program is missing are skipped and named. Python and npm packages are installed into --cache. The folder
keeps the run of each probe.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench import REPO
from benchmarks.limiters import page, servers
from benchmarks.limiters.api import KEYS, MODELS
from benchmarks.limiters.catalog import LIMITERS
from benchmarks.limiters.judge import judge, replay_passed
from benchmarks.limiters.page import Probed
from benchmarks.limiters.truth import Limiter, Setting
from bltybench.limits.findings.model import FindingsRecord, decode
from bltybench.runs.folder import list_runs
from bltybench.runs.store import read_attempts

CACHE = Path.home() / ".cache" / "bltybench-limiters"
TIMEOUT_S = 900.0
"""Time for one probe, in seconds."""
MAX_REQUESTS = 1500
ASKED = ("requests,concurrency,charges,401", "requests,concurrency,tokens,charges,401")
"""What the probe is asked at each setting."""
SCENARIO = """
default_scenario = "limits"
[targets.limiter]
base_url = "{url}"
api_key_env = "LIMITER_KEY"
[scenarios.limits]
title = "A limiter that others wrote"
model = "{model}"
target = "limiter"
duration_s = 600
users = 1
arrivals = {{ kind = "closed", think_s = 0 }}
[[scenarios.limits.mix]]
name = "probe"
max_tokens = {{ kind = "fixed", tokens = 1 }}
"""


class Case(NamedTuple):
    """One limiter at one of its settings."""

    limiter: Limiter
    number: int

    @property
    def setting(self) -> Setting:
        """The limit and its period."""
        return self.limiter.settings[self.number]

    @property
    def name(self) -> str:
        """Name of the case's directory."""
        words = "".join(char if char.isalnum() else " " for char in self.limiter.name).split()
        return "-".join([*words, str(self.number + 1)])


def main() -> int:
    """Probe what has not been probed, and print, show, or write the result."""
    options = _parser().parse_args()
    folder, cache = options.results.resolve(), options.cache.resolve()
    chosen = [limiter for limiter in LIMITERS if not options.only or options.only in limiter.name]
    skipped = {limiter.name: lacks for limiter in chosen if (lacks := servers.missing(limiter))}
    cases = [Case(limiter, number) for number in (0, 1) for limiter in chosen if limiter.name not in skipped]
    open_cases = [case for case in cases if not (folder / case.name / "done.json").exists()]
    if open_cases and not options.show:
        servers.install(cache)
        _probe_all(open_cases, folder, cache, options)
    results = [probed for case in cases if (probed := _load(case, folder))]
    for name, lacks in skipped.items():
        print(f"skipped {name}: this machine has no {lacks}")
    print(page.summary(results))
    print(page.details(results))
    complete = len(results) == 2 * len(LIMITERS)
    if options.write and complete:
        page.PAGE.write_text(page.page(results), encoding="utf-8")
    elif options.write:
        print(f"{len(results)} of {2 * len(LIMITERS)} probes are done: the page needs all of them")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of the runs and results")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"folder of packages. Default: {CACHE}")
    parser.add_argument("--only", default="", help="probe limiters whose name contains this")
    parser.add_argument(
        "--jobs", type=int, default=3, help="concurrent probes, which mostly wait. Default: 3"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no probe after this time")
    parser.add_argument("--show", action="store_true", help="print what is not right, and run nothing")
    parser.add_argument("--write", action="store_true", help=f"write {page.PAGE.name}")
    return parser


def _probe_all(cases: list[Case], folder: Path, cache: Path, options: argparse.Namespace) -> None:
    end_s = time.monotonic() + options.seconds

    def run(case: Case) -> str:
        return "not started" if time.monotonic() >= end_s else _probe(case, folder / case.name, cache)

    pool = ThreadPoolExecutor(options.jobs)
    try:
        running = {pool.submit(run, case): case for case in cases}
        for done, future in enumerate(as_completed(running), 1):
            print(f"{done} of {len(cases)}: {running[future].name}: {future.result()}", flush=True)
    finally:
        # After Ctrl-C, which reaches the running probes too, start no others.
        pool.shutdown(cancel_futures=True)


def _probe(case: Case, folder: Path, cache: Path) -> str:
    """Probe one case. Return what to print about it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with servers.serving(case.limiter, case.setting, folder, cache) as url:
        (folder / "scenarios.toml").write_text(SCENARIO.format(url=url, model=MODELS[0]))
        began_s = time.monotonic()
        code = _locust(case, folder)
        seconds = time.monotonic() - began_s
    if code != 0:
        return f"the probe ended with {code}: {folder / 'output.txt'}"
    (folder / "done.json").write_text(json.dumps({"seconds": round(seconds, 1)}) + "\n")
    probed = _load(case, folder.parent)
    counts = "no result" if probed is None else page.counts([probed])
    return f"{seconds:.0f} s, {counts}"


def _locust(case: Case, folder: Path) -> int | None:
    """Run the probe. Return its exit code, or None if it took too long."""
    command = ["-m", "locust", "-f", str(REPO / "locustfiles" / "limits.py"), "--headless"]
    options = ["--probe-ask", ASKED[case.number], "--probe-budget", str(MAX_REQUESTS)]
    options += ["--probe-second-key-env", "LIMITER_SECOND_KEY"]
    if case.number == 1:
        options += ["--probe-period", str(case.setting.period_s)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "BLTY"))},
        "PYTHONPATH": str(REPO),
        "LOCUST_MASTER_BIND_PORT": port,
        "LOCUST_MASTER_NODE_PORT": port,
        "LIMITER_KEY": KEYS[0],
        "LIMITER_SECOND_KEY": KEYS[1],
        # Figures would take longer than the analysis, on a machine that measures times.
        "BLTYBENCH_REPORT_FORMAT": "json",
    }
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command, *options],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            return process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None


def _load(case: Case, folder: Path) -> Probed | None:
    """Return the judged result of a case, or None if it has not been probed."""
    done = folder / case.name / "done.json"
    if not done.exists():
        return None
    (run,) = list_runs(folder / case.name / "reports")
    found: FindingsRecord = decode((run.path / "limits.json").read_bytes())
    sent = read_attempts(run, without=["gaps_us"]).column("sent_ns")
    return Probed(
        limiter=case.limiter,
        setting=case.setting,
        judged=tuple(judge(found, case.limiter, case.setting)),
        requests=len(sent) - sent.null_count,
        seconds=json.loads(done.read_text())["seconds"],
        replayed=found.replayed,
        replay_passed=replay_passed(found),
        stopped=found.stopped or None,
    )


if __name__ == "__main__":
    sys.exit(main())
