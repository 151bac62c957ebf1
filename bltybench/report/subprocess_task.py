"""Work that goes on beside other work, on another core."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Begin ``work``, which must not need what is made meanwhile; what is given returns its result.

    A copy of this process does it, so that nothing is imported twice. Where processes cannot be copied safely
    (elsewhere than on Linux), it is done when its result is asked for. What ``work`` raises, the result does.
    """
    if sys.platform != "linux":
        yield work
        return
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as other:
        yield other.submit(work).result
