from __future__ import annotations

import subprocess
import sys

import pytest

import bltybench
from bltybench.cli import main
from bltybench.errors import UserError

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


@pytest.mark.parametrize(
    "arguments", [["--help"], ["check", "--help"], ["sandbox", "--help"], ["report", "--help"]]
)
def test_heavy_modules_are_imported_only_when_needed(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from bltybench.cli import main\n"
        f"sys.argv = ['bltybench', *{arguments!r}]\n"
        "assert main() == 0\n"
        f"sys.exit(', '.join(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("verb", ["check.run", "cli.run_line", "report"])
def test_commands_do_not_import_locust(verb: str) -> None:
    code = (
        f"import sys, bltybench.{verb}\n"
        "sys.exit(', '.join(name for name in ('locust', 'gevent') if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
