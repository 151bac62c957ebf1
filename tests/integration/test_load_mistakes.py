"""A user's errors: each gives a clear message and the right exit code, without a traceback or a request."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from support_locust import LOCUSTFILES, WITH_PAGE, run_locust, write_scenarios
from support_sandbox import running_sandbox

from bltybench.scenario.target import SANDBOX_KEY

KEY = "sk-not-to-be-seen-0123456789"


def refused(tmp_path: Path, *args: str, **changes: str) -> str:
    """Run Locust, check that the run was refused before anything was sent, and return the output."""
    done = run_locust(LOCUSTFILES / "mixed.py", *args, cwd=tmp_path, **changes)
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    assert KEY not in done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("bltybench: ")]
    assert not (tmp_path / "reports").is_dir() or not any((tmp_path / "reports").iterdir())
    return done.output[done.output.index(line) :]


@pytest.fixture
def scenarios(tmp_path: Path) -> Path:
    """A scenarios.toml whose target does not exist, because no test here may send anything."""
    return write_scenarios(tmp_path, "http://127.0.0.1:9/v1")


@pytest.mark.usefixtures("scenarios")
class TestBeforeTheRun:
    def test_missing_key(self, tmp_path: Path) -> None:
        assert "BLTYBENCH_TEST_KEY is not set" in refused(tmp_path)

    def test_key_that_cannot_be_sent(self, tmp_path: Path) -> None:
        # Each call raised an error. unit/test_scenario_file has other keys.
        output = refused(tmp_path, BLTYBENCH_TEST_KEY="sk-ключ")
        assert "BLTYBENCH_TEST_KEY: the key can't be sent: character 4 of 7 is not ASCII" in output

    def test_unknown_scenario(self, tmp_path: Path) -> None:
        output = refused(tmp_path, "--scenario", "quikstart", BLTYBENCH_TEST_KEY=KEY)
        assert "quikstart" in output
        assert "quickstart" in output

    def test_workers_exit_with_their_master(self, tmp_path: Path) -> None:
        # The output ends when the last process that writes to it exits.
        assert "nope" in refused(tmp_path, "--processes", "2", "--scenario", "nope", BLTYBENCH_TEST_KEY=KEY)

    def test_unknown_target(self, tmp_path: Path) -> None:
        assert 'no such target: "her"' in refused(tmp_path, "--target", "her", BLTYBENCH_TEST_KEY=KEY)

    def test_key_is_not_sent_to_another_address(self, tmp_path: Path) -> None:
        output = refused(tmp_path, "--host", "https://elsewhere.example/v1", BLTYBENCH_TEST_KEY=KEY)
        assert "elsewhere.example" in output

    def test_reports_directory_that_cannot_be_created(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        output = refused(tmp_path, "--reports", str(tmp_path / "file" / "x"), BLTYBENCH_TEST_KEY=KEY)
        assert "cannot store a run here" in output

    @pytest.mark.parametrize("option", ["--users", "--run-time"])
    def test_zero(self, tmp_path: Path, option: str) -> None:
        assert f"{option} 0: must be greater than 0" in refused(tmp_path, option, "0", BLTYBENCH_TEST_KEY=KEY)

    def test_tags_that_no_task_has(self, tmp_path: Path) -> None:
        assert "Mixed: no tasks" in refused(tmp_path, "--tags", "nope", BLTYBENCH_TEST_KEY=KEY)


def test_broken_toml(tmp_path: Path) -> None:
    (tmp_path / "scenarios.toml").write_text("[scenarios\n")
    assert "scenarios.toml: line 1, column 11" in refused(tmp_path)


def test_wrong_value(tmp_path: Path) -> None:
    write_scenarios(tmp_path, "http://127.0.0.1:9/v1", checks='"ttft.p59" = "< 3 s"')
    output = refused(tmp_path, BLTYBENCH_TEST_KEY=KEY)
    assert "ttft.p59" in output
    assert "did you mean" in output


def test_remote_target_without_a_budget(tmp_path: Path) -> None:
    write_scenarios(tmp_path, "https://api.example.com/v1")
    assert "has no budget" in refused(tmp_path, BLTYBENCH_TEST_KEY=KEY)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_reports_directory_without_permission(tmp_path: Path) -> None:
    write_scenarios(tmp_path, "http://127.0.0.1:9/v1")
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot store a run here" in refused(
        tmp_path, "--reports", str(tmp_path / "closed" / "x"), BLTYBENCH_TEST_KEY=KEY
    )


def test_sandbox_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        write_scenarios(tmp_path, f"http://127.0.0.1:{port}/v1", target="[targets.here.sandbox]")
        output = refused(tmp_path, BLTYBENCH_TEST_KEY=KEY)
    assert f"127.0.0.1:{port}" in output


class TestDuringTheRun:
    """Errors of the server without a preflight: the run finishes, and its checks fail with the reason."""

    def run(self, tmp_path: Path, base_url: str, key: str, **changes: str) -> str:
        path = write_scenarios(tmp_path, base_url, checks='"errors.count" = "== 0"')
        for old, new in changes.items():
            path.write_text(path.read_text().replace(old, new))
        done = run_locust(
            LOCUSTFILES / "chat.py",
            *("-t", "2s", "--no-preflight"),
            cwd=tmp_path,
            BLTYBENCH_TEST_KEY=key,
            **WITH_PAGE,
        )
        assert done.code == 1, done.output
        assert "Traceback" not in done.output
        assert done.run.report_html.is_file()
        assert {row["outcome"] for row in done.attempts} <= {"client_error", "transport_error"}
        for path in done.run.path.rglob("*"):
            assert not path.is_file() or key.encode() not in path.read_bytes(), path
        return done.output

    def test_wrong_key(self, tmp_path: Path) -> None:
        with running_sandbox() as sandbox:
            output = self.run(tmp_path, sandbox.base_url, KEY)
        assert "client_error 401 invalid_api_key" in output

    def test_unknown_model(self, tmp_path: Path) -> None:
        with running_sandbox() as sandbox:
            output = self.run(tmp_path, sandbox.base_url, SANDBOX_KEY, **{"deepseek-chat": "deepseek-cat"})
        assert "client_error 404 model_not_found" in output

    def test_nothing_listens(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert "transport_error" in self.run(tmp_path, f"http://127.0.0.1:{port}/v1", KEY)
