from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support_runs import S, attempt, write_run

import bltybench
from bltybench.cli import main
from bltybench.errors import UserError
from bltybench.runs.attempt import Outcome
from bltybench.runs.sealing.seal import seal

HEAVY = ("locust", "gevent", "pandas", "matplotlib", "pyarrow", "starlette", "uvicorn", "httpx")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capfd)


class Run:
    """Runs main with arguments and returns exit code, stdout, and stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["bltybench", *arguments])
        code = main()
        out, err = self._capfd.readouterr()
        return code, out, err

    def with_runs_raising(self, error: BaseException) -> tuple[int, str, str]:
        def fail(*_: object) -> None:
            raise error

        self._monkeypatch.setattr("bltybench.cli.runs.run_lines", fail)
        return self("runs")


def test_version_is_printed(run: Run) -> None:
    assert run("--version") == (0, f"bltybench {bltybench.__version__}\n", "")


def test_help_lists_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for verb in ("check", "sandbox", "report", "runs", "init"):
        assert f"│ {verb} " in out


@pytest.mark.parametrize(
    "arguments", [("bogus",), ("runs", "--bogus"), ("runs", "too", "many"), ("report", "--reports"), ()]
)
def test_wrong_usage_exits_with_2_and_an_error(run: Run, arguments: tuple[str, ...]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "Usage: bltybench" in err or "Error" in err or not arguments


def test_user_error_is_shown_without_traceback(run: Run) -> None:
    code, out, err = run.with_runs_raising(UserError("is broken", where="a.toml", remedy="fix it"))
    assert (code, out) == (2, "")
    assert err == "bltybench: a.toml: is broken\n  → fix it\n"


def test_user_error_is_printed_without_control_characters(run: Run) -> None:
    _, _, err = run.with_runs_raising(UserError("\x1b[2Jno\x07"))
    assert err == "bltybench: \\x1b[2Jno\\x07\n"


def test_interrupt_prints_one_line_and_exits_with_130(run: Run) -> None:
    assert run.with_runs_raising(KeyboardInterrupt()) == (130, "", "bltybench: interrupted\n")


def test_internal_error_is_not_hidden(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        run.with_runs_raising(ZeroDivisionError())


def imported_by(script: str, names: tuple[str, ...]) -> str:
    """Return which modules a process that runs commands has imported."""
    code = (
        "import sys\n"
        "from bltybench.cli import main\n"
        "def command(*arguments):\n"
        "    sys.argv = ['bltybench', *arguments]\n"
        "    assert main() == 0\n"
        f"{script}\n"
        f"sys.exit(', '.join(name for name in {names!r} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def test_version_imports_no_command() -> None:
    assert imported_by("command('--version')", (*HEAVY, "pydantic", "numpy", "msgspec")) == ""


def test_help_imports_nothing_heavy() -> None:
    script = "command('--help')\nfor verb in ('check', 'sandbox', 'report'): command(verb, '--help')"
    assert imported_by(script, HEAVY) == ""


def test_runs_and_limits_do_not_import_pandas(tmp_path: Path) -> None:
    # Some columns with and some without nulls, and refusals.
    refused = {"outcome": Outcome.RATE_LIMITED, "status": 429, "retry_after_s": 1.0}
    rows = [attempt(sent_ns=at * S, **(refused if at % 3 == 0 else {})) for at in range(1, 40)]
    run = write_run(tmp_path / "run", rows)
    seal(run)
    script = f"command('runs', '--reports', {str(tmp_path)!r})\ncommand('limits', {str(run.path)!r})"
    assert imported_by(script, ("pandas", "matplotlib", "locust")) == ""


@pytest.mark.parametrize("verb", ["check.run", "cli.run_line", "report"])
def test_commands_do_not_import_locust(verb: str) -> None:
    code = (
        f"import sys, bltybench.{verb}\n"
        "sys.exit(', '.join(name for name in ('locust', 'gevent') if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
