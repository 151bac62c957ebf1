"""Start and stop of the sandbox: by the library, under gevent, by the command; and error cases."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from support_locust import REPO
from support_sandbox import bearer, chat_body, quick_settings, read_truth, running_sandbox

from bltybench.errors import UserError
from bltybench.sandbox.process import SandboxProcess

VERB = [sys.executable, "-m", "bltybench", "sandbox"]

UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from bltybench.sandbox.process import SandboxProcess
from bltybench.scenario.target import SandboxSettings
beats = 0
def beat():
    global beats
    while True:
        gevent.sleep(0.01)
        beats += 1
gevent.spawn(beat)
with SandboxProcess.start(SandboxSettings()) as sandbox:
    assert beats > 3, beats
    print(sandbox.base_url, sandbox.pid, flush=True)
    if sys.argv[1] == "wait":
        gevent.sleep(60)
"""


def gone(pid: int, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_sandbox_responds_after_start_and_is_gone_after_stop() -> None:
    with SandboxProcess.start(quick_settings()) as sandbox:
        assert httpx.get(f"{sandbox.base_url}/models", headers=bearer()).status_code == 200
        pid = sandbox.pid
    assert gone(pid, 0.5)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{sandbox.base_url}/models")
    sandbox.stop()


def test_requested_port_is_used_and_released_immediately() -> None:
    port = free_port()
    for _ in range(2):
        with SandboxProcess.start(quick_settings(), port=port) as sandbox:
            assert sandbox.base_url == f"http://127.0.0.1:{port}/v1"


def test_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use"):
            SandboxProcess.start(quick_settings(), port=port)


def test_unwritable_log_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exited with code 2"):
        SandboxProcess.start(quick_settings(), log_path=tmp_path)


def test_stop_during_a_stream_leaves_a_complete_log(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    with (
        SandboxProcess.start(quick_settings(), log_path=log) as sandbox,
        httpx.Client(base_url=sandbox.base_url, headers=bearer()) as client,
    ):
        body = chat_body(stream=True, max_tokens=100_000)
        with client.stream("POST", "/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            for _ in range(10):
                next(lines)
            sandbox.stop()
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
    (row,) = [row for row in read_truth(log) if row.stream]
    assert row.disconnected
    assert row.end_ns is not None
    assert row.completion_tokens == len(row.event_ns) > 0


def test_keys_are_not_in_arguments_or_environment() -> None:
    with SandboxProcess.start(quick_settings()) as sandbox:
        process = psutil.Process(sandbox.pid)
        seen = [*process.cmdline(), *process.environ().values()]
    assert not [text for text in seen if "sk-sandbox" in text]


def test_start_under_gevent_does_not_block_the_hub() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNDER_GEVENT, "leave"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert gone(int(done.stdout.split()[1]), 0.5)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_sandbox_exits_when_its_parent_dies(how: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", UNDER_GEVENT, "wait"], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        base_url, pid = parent.stdout.readline().split()
        assert httpx.get(base_url.removesuffix("/v1")).status_code == 200
        parent.send_signal(how)
    assert gone(int(pid))


def test_terminal_ctrl_c_reaches_only_the_parent() -> None:
    with SandboxProcess.start(quick_settings()) as sandbox:
        assert os.getpgid(sandbox.pid) != os.getpgid(0)


def test_command_runs_until_ctrl_c(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    process = subprocess.Popen(
        [*VERB, "--port", "0", "--log", str(log), "--requests", "1", "--tokens", "0", "--period-s", "3600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    with process:
        try:
            assert process.stdout is not None
            greeting = ""
            while "Ctrl-C" not in greeting:
                line = process.stdout.readline()
                assert line, greeting
                greeting += line
            base_url = greeting.split()[2]
            assert "1 requests per 3600 s (first-hit fixed window)" in greeting
            assert "tokens per" not in greeting
            with httpx.Client(base_url=base_url, headers=bearer(), timeout=30) as client:
                statuses = [client.post("/chat/completions", json=chat_body()).status_code for _ in range(2)]
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=20)
        finally:
            process.kill()  # otherwise a failure above would wait indefinitely
    assert statuses == [200, 429]
    assert (process.returncode, stderr.strip()) == (0, "Stopped.")
    assert len(read_truth(log)) == 2


def test_command_listens_at_base_url_and_its_printed_curl_command_works(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        base_url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    settings = (REPO / "scenarios.toml").read_text().replace("http://127.0.0.1:8910/v1", base_url)
    (tmp_path / "scenarios.toml").write_text(settings)
    process = subprocess.Popen(VERB, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.split() == ["Base", "URL", base_url]
        while not line.strip().startswith("curl"):
            line = process.stdout.readline()
            assert line
        pasted = subprocess.run(
            ["/bin/sh", "-c", line], capture_output=True, text=True, timeout=30, check=True
        )
        process.send_signal(signal.SIGINT)
    assert pasted.stdout.startswith("data: ")
    assert pasted.stdout.endswith("data: [DONE]\n\n")


def test_command_reports_a_port_in_use_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*VERB, "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"127.0.0.1:{port}: port {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_command_rejects_a_target_that_is_not_a_sandbox(tmp_path: Path) -> None:
    done = subprocess.run(
        [*VERB, "--target", "blty"], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "'blty' is not a sandbox" in done.stderr


def test_internal_module_names_the_command_to_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bltybench.sandbox"],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "bltybench sandbox" in done.stderr


def test_sandboxes_that_tests_fork_at_the_same_time_get_their_own_processes() -> None:
    def owns_its_port(_: int) -> bool:
        with running_sandbox() as sandbox:
            port = int(sandbox.base_url.rpartition(":")[2].removesuffix("/v1"))
            connections = psutil.Process(sandbox.pid).net_connections()
        return port in {connection.laddr.port for connection in connections if connection.status == "LISTEN"}

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(owns_its_port, range(16)))


def test_locustfile_named_like_a_module_of_python_does_not_replace_it() -> None:
    """Locust registers a locustfile http.py under this name before the locustfile imports bltybench."""
    code = (
        "import sys, types, urllib.request; sys.modules['http'] = types.ModuleType('http')\n"
        "from bltybench.sandbox.process import _front_page\n"
        "_front_page('http://127.0.0.1:1/v1', 1.0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ConnectionRefusedError")
