"""Tiny runs of the whole benchmark program. Its speed figures are not checked here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="the benchmark pins the client to one core and the server to another",
)


@two_cores
def test_all_clients_do_the_work_and_are_compared_with_the_server(tmp_path: Path) -> None:
    clients = ["bltybench", "FastHttpUser", "openai"]
    figures = tmp_path / "figures.json"
    options = [
        "--runs",
        "1",
        "--seconds",
        "0.5",
        "--streams",
        "4",
        "--rates",
        "200",
        "--formats",
        "tool_calls",
    ]
    files = ["--json", str(figures), "--plot", str(tmp_path / "figures.png")]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.wire", *options, "--clients", *clients, *files],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    outcomes = json.loads(figures.read_bytes())["outcomes"]
    assert [row["client"] for row in outcomes] == clients, process.stderr
    for row in outcomes:
        assert row["streams_per_s"] > 0, row
        assert row["cpu_us_per_event"] > 0
        assert row["failed"] == 0
        # A timestamp before the write would mean that the two records are not of the same event.
        assert row["errors"]["arrival"][0] >= 0
        assert row["errors"]["coalesced_share"] <= 1
    assert "CPU µs/event" in process.stdout
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


@two_cores
@pytest.mark.skipif(shutil.which("cc") is None, reason="the client in C needs a compiler")
def test_together_compares_clients_on_one_core(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--runs", "1", "--seconds", "0.5", "--streams", "4", "--json", str(figures)]
    process = subprocess.run(
        [
            sys.executable,
            *["-m", "benchmarks.wire", "--together", *options],
            *["--rates", "0", "200", "--clients", "bltybench", "C epoll", "--formats", "obfuscation"],
        ],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    pairs = json.loads(figures.read_bytes())["pairs"]
    assert len(pairs) == 2
    for rate, pair in zip((0, 200), pairs, strict=True):
        assert [pair[which]["client"] for which in ("ours", "other")] == ["bltybench", "C epoll"]
        for row in pair.values():
            assert (row["rate"], row["format"]) == (rate, "obfuscation")
            assert row["streams_per_s"] > 0
            assert row["cpu_us_per_event"] > 0
    assert "| 200 | 4 | obfuscation | C epoll |" in process.stdout
    start = "| unpaced | 4 | obfuscation | C epoll |"
    unpaced = next(line for line in process.stdout.splitlines() if line.startswith(start))
    assert "1 of 1 runs" in unpaced
