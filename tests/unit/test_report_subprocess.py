"""Tasks of a report in a copy of its process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest

from bltybench.errors import UserError
from bltybench.report.subprocess_task import in_subprocess

ORPHAN = """
import os, time
from bltybench.report.subprocess_task import in_subprocess
def task():
    print(os.getpid(), flush=True)
    time.sleep(60)
with in_subprocess(task) as result:
    result()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the task runs in this process")


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_copy_ends_when_the_report_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        copy = int(process.stdout.readline())
        assert is_running(copy)
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + 10
        while is_running(copy):
            assert time.monotonic() < deadline, "the copy still runs"
            time.sleep(0.05)


def test_killed_copy_gives_an_error_with_the_remedy() -> None:
    with in_subprocess(partial(os._exit, 9)) as result, pytest.raises(UserError, match="was killed"):
        result()
