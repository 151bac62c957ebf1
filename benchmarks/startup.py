"""How long users wait: for a command, for the first request, and for the report of a run.

``python -m benchmarks.startup [N …]``

Each N is a run of N attempts of five kinds of calls on three models, with refusals, errors, and retries, that
goes through the store: spool files, then Parquet. Each command runs in its own process, several times. Prints
Markdown with the lowest times, which other work on the machine disturbs least.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.report import HOUR_NS, manifest_of
from bltybench.runs.attempt import Attempt, GeneratorSecond, Outcome, Stamp, TokensSource
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import package_versions
from bltybench.sandbox.process import SandboxProcess
from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.target import SANDBOX_KEY, Delay, SandboxLimits, SandboxSettings

SIZES = [100, 10_000, 1_000_000]
REPO = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
GAPS = 64
"""Gaps of a stream."""
CHUNK = 10_000
"""Attempts whose numbers are drawn in one batch."""
CALLS = ("plain", "text", "reasoning", "tools", "parts")
MODELS = ("deepseek-chat", "deepseek-reasoner", "small")
ERRORS: dict[Outcome, dict[str, Any]] = {
    Outcome.RATE_LIMITED: {"status": 429, "error_type": "rate_limit_error", "error_code": "requests"},
    Outcome.SERVER_ERROR: {"status": 503, "error_type": "server_error", "error_message": "Overloaded"},
    Outcome.CLIENT_ERROR: {"status": 400, "error_type": "invalid_request_error", "error_message": "Too long"},
    Outcome.TIMEOUT: {"error_message": "no response headers within 60 s"},
}
OUTCOMES, RATES = (Outcome.OK, *ERRORS), (0.66, 0.28, 0.03, 0.01, 0.02)
SCENARIO = """
default_scenario = "chat"
[targets.here]
base_url = "{base_url}"
api_key_env = "BLTYBENCH_STARTUP_KEY"
[scenarios.chat]
title = "For the measurement of startup"
model = "deepseek-chat"
target = "here"
duration_s = 5
users = 4
arrivals = {{ kind = "closed", think_s = 0.2 }}
[[scenarios.chat.mix]]
name = "streamed"
stream = true
"""


class Cost(NamedTuple):
    """What a command cost."""

    wall_s: float
    cpu_s: float
    """Of the process and those that it started."""
    peak_bytes: int
    """Peak resident memory of the largest of these processes."""


def make(path: Path, attempts: int) -> None:
    """Write an unsealed run of ``attempts`` attempts within an hour."""
    folder = RunFolder(path)
    folder.attempts_spool.mkdir(parents=True)
    folder.generator_spool.mkdir()
    folder.write_manifest(manifest_of(path.name))
    encode = msgspec.json.Encoder().encode
    with (folder.attempts_spool / "w0.jsonl").open("wb") as file:
        file.writelines(encode(record) + b"\n" for record in _records(attempts))
    seconds = (
        GeneratorSecond(
            worker="w0", at_ns=(second + 1) * 10**9, stall_us=900, cpu_share=0.4, steal_share=0.0,
            rss_bytes=10**8, users=50, in_flight=20, sent=attempts // 3600, events=0, coalesced_events=0,
            bytes_received=0, backlog=0,
        )
        for second in range(3600)
    )  # fmt: skip
    (folder.generator_spool / "w0.jsonl").write_bytes(b"".join(encode(record) + b"\n" for record in seconds))


def _records(attempts: int) -> Iterator[Attempt]:
    """Yield attempts in the order in which they are sent. A call is tried up to three times."""
    rng, call, tried = np.random.default_rng(1), 0, 0
    for first in range(0, attempts, CHUNK):
        rows = min(CHUNK, attempts - first)
        sent = np.sort(rng.integers(HOUR_NS * first // attempts, HOUR_NS * (first + rows) // attempts, rows))
        ttft = rng.lognormal(19, 0.5, rows).astype(np.int64)
        gaps = rng.lognormal(9.6, 0.5, (rows, GAPS)).astype(np.int64)
        outcomes = rng.choice(len(OUTCOMES), rows, p=RATES)
        numbers = rng.integers(0, 1000, (rows, 3))
        for row in range(rows):
            outcome = OUTCOMES[outcomes[row]]
            yield _record(
                f"w0-{call:09d}", tried, outcome, int(sent[row]), int(ttft[row]), gaps[row], numbers[row]
            )
            ended = outcome not in {Outcome.RATE_LIMITED, Outcome.SERVER_ERROR} or tried == 2
            call, tried = (call + 1, 0) if ended else (call, tried + 1)


def _record(  # noqa: PLR0917 - the numbers of an attempt
    call_id: str, tried: int, outcome: Outcome, sent: int, ttft: int, gaps: Any, numbers: Any
) -> Attempt:
    kind, model = CALLS[numbers[0] % len(CALLS)], MODELS[numbers[1] % len(MODELS)]
    stream = kind != "plain"
    number = int(numbers[2])
    fields: dict[str, Any] = {"end_ns": sent + 5_000_000, "bytes_received": 400}
    if outcome is Outcome.OK:
        last = sent + ttft + int(gaps.sum()) * 1000
        fields = {
            "headers_ns": sent + ttft - 1000, "end_ns": last + 100_000, "status": 200,
            "bytes_received": 18_000, "prompt_tokens": 10 + number, "completion_tokens": GAPS + 1,
            "tokens_source": TokensSource.USAGE, "finish_reason": "length" if number % 7 == 0 else "stop",
        }  # fmt: skip
        if stream:
            fields |= {
                "first_token_ns": sent + ttft, "last_token_ns": last, "gaps_us": gaps.tolist(),
                "first_output_ns": sent + ttft + (10**9 if kind == "reasoning" else 0), "coalesced_events": 0,
                "notes": "content_parts" if kind == "parts" else None,
            }  # fmt: skip
        if kind == "tools":
            fields |= {"tool_calls": 1, "json_valid": number % 9 > 0, "finish_reason": "tool_calls"}
    else:
        fields |= ERRORS[outcome]
        if outcome is Outcome.RATE_LIMITED:
            fields |= {"retry_after_s": float(number % 20 + 1), "waited_s": 1.0 if tried < 2 else None}
            fields["error_message"] = f"Rate limit reached for {model}: try again in {number % 60}.{number}s"
    return Attempt(
        worker="w0", user=number % 50, scenario="made", name=kind, call_id=call_id, attempt=tried,
        request_id=f"req-{call_id}-{tried}", due_ns=sent - 200_000, sent_ns=sent, outcome=outcome,
        endpoint="/chat/completions", model=model, stream=stream, wanted_prompt_tokens=10 + number,
        max_tokens=GAPS + 1, bytes_sent=640, limit_requests=60, remaining_requests=number % 60,
        stamp=Stamp.KERNEL, observer_lag_us=20 + number % 300, in_flight=1 + number % 40, **fields,
    )  # fmt: skip


def measure(command: Sequence[str], cwd: Path) -> Cost:
    """Run ``bltybench`` with the arguments in ``command``."""
    started = time.perf_counter()
    process = subprocess.Popen([BIN / "bltybench", *command], cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) > 1:
        raise RuntimeError(f"bltybench {' '.join(command)} failed")
    return Cost(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def measure_locust(cwd: Path) -> tuple[float, float, float]:
    """Run Locust for 5 s. Return the time to its first request, from the last answer, and of the CPU (s)."""
    cwd.mkdir()
    log = cwd / "truth.jsonl"
    quick = Delay(median_ms=5, p95_ms=8)
    settings = SandboxSettings(
        limits=SandboxLimits(requests=None, tokens=None, concurrency=None), ttft=quick, itl=quick
    )
    with SandboxProcess.start(settings, log_path=log) as sandbox:
        (cwd / "scenarios.toml").write_text(SCENARIO.format(base_url=sandbox.base_url))
        started = time.monotonic_ns()
        with (cwd / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                [BIN / "locust", "-f", REPO / "locustfiles" / "chat.py", "--headless"],
                cwd=cwd,
                env=os.environ | {"BLTYBENCH_STARTUP_KEY": SANDBOX_KEY},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        _, status, used = os.wait4(process.pid, 0)
        ended = time.monotonic_ns()
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError((cwd / "output.txt").read_text())
    rows = [msgspec.json.decode(line, type=TruthRow) for line in log.read_bytes().splitlines()]
    sent = [row for row in rows if row.path.endswith("/chat/completions")]
    first, last = min(row.received_ns for row in sent), max(row.end_ns or 0 for row in sent)
    return (first - started) / 1e9, (ended - last) / 1e9, used.ru_utime + used.ru_stime


def _row(command: str, costs: Sequence[Cost]) -> str:
    wall_s, cpu_s, peak = (min(values) for values in zip(*costs, strict=True))
    return f"| {command} | {wall_s:.2f} s | {cpu_s:.2f} s | {peak / 1e9:.2f} GB |"


def main() -> None:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="N")
    parser.add_argument("--runs", type=int, default=3, help="repetitions of each command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bltybench-") as place:
        folder, times = Path(place), range(options.runs)
        print("| command | time | CPU time | peak memory |\n|---|---:|---:|---:|")
        print(_row("`--version`", [measure(["--version"], folder) for _ in times]))
        for size in options.sizes:
            spooled, run = folder / "spooled" / f"run-{size}", folder / "reports" / f"run-{size}"
            make(spooled, size)
            unsealed: list[Cost] = []
            for _ in times:
                shutil.rmtree(run, ignore_errors=True)
                shutil.copytree(spooled, run)
                unsealed.append(measure(["report", str(run)], folder))
            shutil.rmtree(spooled)
            print(_row(f"`report` after a run of {size:,} attempts", unsealed), flush=True)
            for name in ("report", "limits"):
                costs = [measure([name, str(run)], folder) for _ in times]
                print(_row(f"`{name}`, {size:,} attempts", costs), flush=True)
        print(_row(f"`runs`, {len(options.sizes)} runs", [measure(["runs"], folder) for _ in times]))
        waits = zip(*(measure_locust(folder / f"locust-{number}") for number in times), strict=True)
        first, last, cpu_s = (min(values) for values in waits)
    print(
        f"\nA run of 5 s: {first:.2f} s from `locust` to the first request, {last:.2f} s from the last answer"
    )
    print(f"to the finished report and Locust's end, {cpu_s:.2f} s of CPU time in all.")
    print(f"\n{os.cpu_count()} CPUs, {', '.join(f'{k} {v}' for k, v in package_versions().items())}")


if __name__ == "__main__":
    main()
