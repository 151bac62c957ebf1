"""A task in a copy of this process, on another core."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

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
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as other:
        yield other.submit(task).result
