"""A task in a copy of this process, on another core."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import TypeVar

from bltybench.errors import UserError

T = TypeVar("T")


@contextmanager
def in_subprocess(task: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Start a task in a forked process and yield a function that returns its result or raises its error.

    Forking avoids importing everything twice. It is safe on Linux only; elsewhere the task runs in this
    process when its result is requested.
    """
    if sys.platform != "linux":
        yield task
        return
    with ProcessPoolExecutor(1, mp_context=get_context("fork"), initializer=_end_with_parent) as other:
        future = other.submit(task)

        def result() -> T:
            try:
                return future.result()
            except BrokenProcessPool:
                raise UserError(
                    "a process that computes the report was killed",
                    remedy="check the memory of this machine and try again; the records are safe",
                ) from None

        yield result


def _end_with_parent() -> None:
    """End this process when its parent is killed. It would wait for the next task indefinitely."""
    parent = parent_process()
    if parent is None:
        raise RuntimeError("this is no child process")
    sentinel = parent.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
