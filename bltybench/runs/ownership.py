"""Ownership of a run folder: its writers share a lock, and only one process at a time may seal or report it.

The lock is ``flock`` on the file ``.lock`` in the folder. The kernel releases it when the process ends, even
by a kill. The file itself means nothing and is never deleted.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path

from bltybench.errors import UserError, reason

logger = logging.getLogger("bltybench")

LOCK = ".lock"
"""Name of the file that is locked."""
MAX_TRIES = 10
"""Tries before a shared lock counts as that of a writer. Others hold it for microseconds, to test it."""
RETRY_S = 0.02
"""Pause between two tries, in seconds."""
NOTICE_S = 1.0
"""Time to wait for another owner before saying so, in seconds."""

_held: set[int] = set()


def _close_in_child() -> None:
    for fd in _held:
        os.close(fd)
    _held.clear()


# A forked child would keep the lock if its parent is killed.
os.register_at_fork(after_in_child=_close_in_child)


class _Claim(Enum):
    """Result of a try to become the owner."""

    MINE = auto()
    WRITTEN = auto()
    """Processes that write records hold the lock."""
    OWNED = auto()
    """Another process seals or reports the run."""


class WriterLock:
    """The part in a run of one process that writes to its folder, until ``release`` or the process's end."""

    def __init__(self, run: Path) -> None:
        """Join the writers. Raise UserError if the run is being sealed, or its folder can't be locked."""
        self._fd = _open(run)
        for _ in range(MAX_TRIES):
            if _locked(self._fd, fcntl.LOCK_SH, run):
                return
            time.sleep(RETRY_S)
        self.release()
        raise UserError(
            "this run has ended and is being reported",
            where=str(run),
            remedy="start all workers before starting the run",
        )

    def release(self) -> None:
        """Leave the writers. Further calls do nothing."""
        if self._fd in _held:
            _close(self._fd)


@contextmanager
def sole_owner(run: Path) -> Iterator[None]:
    """Own a run that no process writes. Wait for another owner. Raise UserError if the run is active."""
    fd = _open(run)
    try:
        notice_at_s = time.monotonic() + NOTICE_S
        while (claim := _claim(fd, run)) is not _Claim.MINE:
            if claim is _Claim.WRITTEN:
                raise UserError(
                    "the run is still active: a process is writing to it",
                    where=str(run),
                    remedy="try again when it has ended",
                )
            if time.monotonic() > notice_at_s:
                logger.warning("bltybench: waiting for another command that uses %s", run)
                notice_at_s = float("inf")
            time.sleep(RETRY_S)
        yield
    finally:
        _close(fd)


def is_active(run: Path) -> bool:
    """Return whether a process writes to the run. False if its lock can't be read."""
    try:
        fd = os.open(run / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _claim(fd, run) is _Claim.WRITTEN
    finally:
        os.close(fd)


def _open(run: Path) -> int:
    try:
        fd = os.open(run / LOCK, os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise UserError(f"can't be locked: {reason(error)}", where=str(run)) from None
    _held.add(fd)
    return fd


def _close(fd: int) -> None:
    _held.discard(fd)
    os.close(fd)


def _claim(fd: int, run: Path) -> _Claim:
    for _ in range(MAX_TRIES):
        if _locked(fd, fcntl.LOCK_EX, run):
            return _Claim.MINE
        if not _locked(fd, fcntl.LOCK_SH, run):
            return _Claim.OWNED
        fcntl.flock(fd, fcntl.LOCK_UN)
        time.sleep(RETRY_S)
    return _Claim.WRITTEN


def _locked(fd: int, kind: int, run: Path) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(f"can't be locked: {reason(error)}", where=str(run)) from None
    return True
