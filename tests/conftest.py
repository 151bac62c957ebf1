"""Setup shared by all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Several tests run at a time. A thread pool in each, for matrices of a few hundred rows, only costs time.
# Set before locust is imported, because it may import numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Let the processes that tests start write and reuse bytecode, as a user's do. Compiling is half of a
# command's start-up time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Importing Locust patches the standard library. The tests' own process must stay unpatched, because servers,
# threads, and other clients run in it. Locust itself runs in its own processes, patched as usual.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
import locust  # noqa: E402, F401 - after the variable that it reads

del os.environ["LOCUST_SKIP_MONKEY_PATCH"]

# The duration of an example depends on what else the machine does. CI draws the same examples each time, so
# that its result depends on the change alone; a developer's run explores new ones.
settings.register_profile("untimed", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "untimed")

SECOND_TRY = "--second-try"
MAX_SECOND_TRIES = 2
"""Failed tests that may be tried again. More failures are not flakiness."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which `make test` repeats failed tests, and one to write golden files."""
    parser.addoption(
        SECOND_TRY,
        action="store_true",
        help=f"run the tests that failed last time, if there were at most {MAX_SECOND_TRIES}",
    )
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files of the tests that run"
    )


@pytest.fixture(scope="session", autouse=True)
def signals_reach_started_processes() -> Iterator[None]:
    """Let processes that tests start react to signals that these tests ignore, under ``nohup`` for example.

    A process inherits that a signal is ignored, but not a handler. With a handler that does nothing, the
    tests themselves still ignore the signal.
    """
    ignored = [
        number for number in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Select only the tests that failed last time."""
    if config.getoption(SECOND_TRY):
        config.option.lf = True
        config.option.last_failed_no_failures = "none"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to try too many tests again."""
    if config.getoption(SECOND_TRY) and len(items) > MAX_SECOND_TRIES:
        pytest.exit(f"{len(items)} tests failed; at most {MAX_SECOND_TRIES} are tried again", returncode=1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List the tests that passed only at the second try."""
    passed = terminalreporter.getreports("passed")
    if config.getoption(SECOND_TRY) and passed:
        terminalreporter.section("passed only at the second try", "!", red=True)
        for report in passed:
            terminalreporter.line(f"FLAKY {report.nodeid}")
