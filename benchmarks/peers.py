"""The same streams with published load-testing tools, each in its usual setup, and with this one.

python -m benchmarks.peers --install           an environment for each tool, below --environments (gigabytes)
python -m benchmarks.peers --json peers.json

Each tool gets one core for all its processes; the server has the other one. A tool that is not installed, or
does not do the work, is reported with the reason. No model hub is contacted: the tools count with a tokenizer
of one word per token, created here. CPU time is that of all their processes, reports included.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.bench import CORES, REPO, ServerProcess, now, stolen
from benchmarks.client import OURS
from benchmarks.peer_tools import TOKENS, TOOLS, ToolRun
from benchmarks.stream_formats import FORMATS, USUAL
from benchmarks.work import CLOSED_LOOP, SCENARIO
from bltybench.metrics.frame import attempts_frame
from bltybench.runs.folder import list_runs
from bltybench.runs.store import read_attempts

ENVIRONMENTS = Path.home() / ".cache" / "bltybench-peers"
TIMEOUT_S = 300.0


def _ours(run: ToolRun) -> list[str]:
    text = SCENARIO.format(
        url=run.url,
        seconds=run.seconds,
        users=run.streams,
        spawn_rate=run.streams,
        arrivals=CLOSED_LOOP,
        tokens=TOKENS,
    )
    (run.folder / "scenarios.toml").write_text(text)
    file = str(REPO / "locustfiles/stream.py")
    return [sys.executable, "-m", "locust", "-f", file, "--headless", "--scenario", "bench"]


def _our_ttft(folder: Path) -> float | None:
    (run,) = list_runs(folder / "reports")
    ttft_ms = attempts_frame(read_attempts(run, without=["gaps_us"]))["ttft_ms"].dropna()
    return float(ttft_ms.median()) if len(ttft_ms) else None


class Memory(threading.Thread):
    """Watches the memory of a session's processes. ``max_mb`` is its maximum."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._group, self._over = pid, threading.Event()
        self.max_mb = 0.0

    def run(self) -> None:
        """Sample twice per second."""
        while not self._over.wait(0.5):
            self.max_mb = max(self.max_mb, _group_mb(self._group))

    def stop(self) -> None:
        """Stop sampling."""
        self._over.set()
        self.join()


def _group_mb(group: int) -> float:
    """Return the memory of a session's processes. Shared pages count once."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[3]) == group:
                rollup = stat.with_name("smaps_rollup").read_text()
                total += int(rollup.split("\nPss:", 1)[1].split()[0]) / 1000
        except (OSError, IndexError, ValueError):
            continue  # it has just ended
    return total


def measure(
    name: str, run: ToolRun, kind: tuple[float, str], server: ServerProcess, environments: Path
) -> dict[str, Any]:
    """Run a tool once and return its figures, from the server's record, or the reason in ``skipped``.

    ``kind`` is the rate of events and the format of the streams.
    """
    rate, form = kind
    tool = TOOLS.get(name)
    command = _ours(run) if tool is None else tool.command(run)
    if tool is not None:
        program = environments / name / "bin" / command[0]
        if not program.exists():
            return {"tool": name, "rate": rate, "format": form, "skipped": "not installed (--install)"}
        command[0] = str(program)
    server.record()
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    # Offline, aiperf mistakes a path for the name of a model.
    offline = {} if name == "aiperf" else {"HF_HUB_OFFLINE": "1"}
    log = run.folder / "output.txt"
    with stolen() as steal, log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=run.folder,
            env=os.environ | offline | {"HOME": str(run.folder), "GUIDELLM__LOGGING__DISABLED": "true"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.sched_setaffinity(process.pid, {CORES[0]})
        memory = Memory(process.pid)
        memory.start()
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        memory.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = server.record()
    if not record["answers"]:
        last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        return {"tool": name, "rate": rate, "format": form, "skipped": f"sent nothing: {''.join(last)[:200]}"}
    true_ms = [(times[0] - arrived) / 1e6 for arrived, times in record["streams"].values() if times]
    return {
        "tool": name,
        "rate": rate,
        "format": form,
        "answers": record["answers"],
        "requests_per_s": record["answers"] / max(record["asked_s"], 1e-9),
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_s": time.monotonic() - began_s,
        "memory_mb": memory.max_mb,
        "ttft_ms": _our_ttft(run.folder) if tool is None else tool.ttft_ms(run.folder),
        "true_ttft_ms": statistics.median(true_ms) if true_ms else None,
        "steal_share": steal[0],
    }


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| tool | work | format | requests/s | CPU ms per request | memory MB | TTFT p50 reported / true, ms "
        "| steal |"
    ]
    lines.append("|" + "---|" * 8)
    for row in rows:
        if "skipped" in row:
            lines.append(f"| {row['tool']} | skipped: {row['skipped']} | {row['format']} | | | | | |")
            continue
        work = f"paced, {row['rate']:g}/s" if row["rate"] else "unpaced"
        reported, true = row["ttft_ms"], row["true_ttft_ms"]
        ttft = "–" if reported is None or true is None else f"{reported:.1f} / {true:.1f}"
        cells = [row["tool"], work, row["format"], f"{row['requests_per_s']:,.0f}"]
        cells += [f"{row['cpu_s'] * 1000 / row['answers']:.1f}", f"{row['memory_mb']:,.0f}", ttft]
        lines.append("| " + " | ".join([*cells, f"{row['steal_share']:.0%}"]) + " |")
    return "\n".join(lines)


def make_tokenizer(folder: Path) -> Path:
    """Write a tokenizer of one word per token in Hugging Face's format."""
    words = {"[UNK]": 0} | {f"w{number}": number for number in range(1, 4096)}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 100_000}))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    return folder


def install(names: Iterable[str], environments: Path) -> None:
    """Create an environment for each tool that has none. Report tools that cannot be installed."""
    for name in names:
        place = environments / name
        if (place / "bin" / name).exists():
            continue
        print(f"installing {name} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "pip"), "install", "--quiet", TOOLS[name].package]
        if subprocess.run(pip, check=False).returncode:
            shutil.rmtree(place)
            print(f"{name} could not be installed; see above", file=sys.stderr)


def versions(environments: Path) -> dict[str, str]:
    """Return the version of each installed tool."""
    installed = {}
    for name in TOOLS:
        pattern = f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"
        for path in (environments / name).glob(pattern):
            installed[name] = path.name.removesuffix(".dist-info").rsplit("-", 1)[1]
    return installed


def main() -> None:
    """Install the tools, or measure them and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help="install the tools with pip, then exit")
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="directory of their environments"
    )
    parser.add_argument("--tools", nargs="+", choices=[OURS, *TOOLS], default=[OURS, *TOOLS])
    parser.add_argument("--streams", type=int, default=200, help="concurrent streams (default: 200)")
    parser.add_argument("--requests", type=int, default=1500, help="requests per tool (default: 1500)")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.0, 50.0], help="events per second; 0: unpaced"
    )
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=[USUAL], help=f"stream formats (default: {USUAL})"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="duration for this tool (default: 10)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.install:
        install([name for name in options.tools if name != OURS], options.environments)
        return
    if len(CORES) < 2:
        sys.exit("two cores are needed: one for the tool, one for the server")
    rows = []
    with ServerProcess() as server, tempfile.TemporaryDirectory(prefix="bltybench-peers-") as folder:
        tokenizer = make_tokenizer(Path(folder) / "tokenizer")
        for kind in product(options.rates, options.formats):
            for name in options.tools:
                directory = Path(tempfile.mkdtemp(dir=folder))
                url = server.url(TOKENS, kind[0], name=kind[1])
                run = ToolRun(url, options.streams, options.requests, options.seconds, tokenizer, directory)
                rows.append(measure(name, run, kind, server, options.environments))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    known = versions(options.environments)
    print(table(rows))
    print(f"\n{now()}; {options.streams} streams; " + ", ".join(f"{name} {known[name]}" for name in known))
    if options.json:
        options.json.write_text(
            json.dumps({"when": now(), "versions": known, "tools": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
