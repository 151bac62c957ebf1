"""The benchmark program as a whole, tiny: what it says of speed is not looked at here."""

from __future__ import annotations

import json
import os
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
def test_all_clients_do_the_work_and_are_held_against_the_server(tmp_path: Path) -> None:
    clients = ["bltybench", "FastHttpUser", "aiohttp", "openai", "bare epoll"]
    found = tmp_path / "found.json"
    options = ["--runs", "1", "--seconds", "0.5", "--streams", "4", "--rates", "0", "200"]
    files = ["--json", str(found), "--plot", str(tmp_path / "found.png")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.wire", *options, "--clients", *clients, *files],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(found.read_bytes())["outcomes"]
    assert {(row["client"], row["rate"]) for row in outcomes} == {
        (client, rate) for client in clients for rate in (0, 200)
    }, done.stderr
    for row in outcomes:
        assert row["streams_per_s"] > 0, row
        assert row["cpu_us_per_event"] > 0
        assert row["failed"] == 0
        if row["rate"] and row["client"] != "bare epoll":
            # A stamp before the write would mean that the two records do not speak of the same event.
            assert row["errors"]["arrival"][0] >= 0
            assert row["errors"]["coalesced_share"] <= 1
    assert "CPU µs/event" in done.stdout
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


@two_cores
def test_clients_are_measured_together(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    options = ["--runs", "1", "--seconds", "1", "--streams", "4", "--json", str(found)]
    done = subprocess.run(
        [
            sys.executable,
            *["-m", "benchmarks.wire", "--together", *options],
            *["--rates", "0", "50", "--clients", "bltybench", "aiohttp"],
        ],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pairs = json.loads(found.read_bytes())["pairs"]
    assert len(pairs) == 2
    for rate, pair in zip((0, 50), pairs, strict=True):
        assert [pair[which]["client"] for which in ("ours", "other")] == ["bltybench", "aiohttp"]
        for row in pair.values():
            assert row["rate"] == rate
            assert row["streams_per_s"] > 0
            assert row["cpu_us_per_event"] > 0
    assert "| 50 | 4 | aiohttp |" in done.stdout
    flooded = next(line for line in done.stdout.splitlines() if line.startswith("| flooded | 4 | aiohttp |"))
    assert "1 of 1 runs" in flooded
