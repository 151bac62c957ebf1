"""Shared by all tests."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

# Several tests run at a time: a pool of threads in each, for matrices of a few hundred, only costs time.
# Before the import of locust, which may import numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The processes that tests start find compiled what the ones before them read, as a user's do: half of a
# command's start goes into compiling otherwise.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Importing Locust patches the standard library. The tests' own process must stay as it is: servers, threads
# and other clients run in it. Locust itself runs in processes of its own, patched as usual.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
import locust  # noqa: E402, F401 - after the variable that it reads

del os.environ["LOCUST_SKIP_MONKEY_PATCH"]

# How long an example takes says what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SECOND_TRY = "--second-try"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `make test` does with tests that failed beside others."""
    parser.addoption(
        SECOND_TRY, action="store_true", help="run what failed last time, and say which of it passes now"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let a second try be of what failed the first time, and of nothing where nothing is known to have."""
    if config.getoption(SECOND_TRY):
        config.option.lf = True
        config.option.last_failed_no_failures = "none"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the tests that passed only at the second try, so that nobody overlooks them."""
    passed = terminalreporter.getreports("passed")
    if config.getoption(SECOND_TRY) and passed:
        terminalreporter.section("passed only at the second try", "!", red=True)
        for report in passed:
            terminalreporter.line(f"FLAKY {report.nodeid}")
