"""A process's part in a run, as a file that shows the other processes whether it is alive.

The process holds a lock on the file. The kernel releases it when the process ends, even by a kill. When the
part is over, the process writes how it ended.
"""

import fcntl
import os
from enum import Enum, auto
from pathlib import Path
from typing import Self

from bltybench.runs.folder import RunFolder

FINISHED = b"finished\n"
FAILED = b"failed\n"


class PartState(Enum):
    """State of a process's part in a run."""

    RUNNING = auto()
    FINISHED = auto()
    FAILED = auto()
    """Finished, but an exception was not handled."""
    UNKNOWN = auto()
    """The process does not hold the lock and has not said how its part ended. Either it was killed, or it has
    not begun, or its lock is not visible from here."""


class Presence:
    """The lock on the file of ``worker``, until the block ends."""

    def __init__(self, folder: RunFolder, worker: str) -> None:
        """Create and lock the file. Raise OSError if that fails: each worker takes part once."""
        self._fd = os.open(_path(folder, worker), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise

    def leave(self, *, failed: bool) -> None:
        """Say how the part ended. Raise OSError if that can't be written."""
        os.write(self._fd, FAILED if failed else FINISHED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def part_of(folder: RunFolder, worker: str) -> PartState:
    """Return the state of a worker's part."""
    try:
        fd = os.open(_path(folder, worker), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return PartState.UNKNOWN
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return {FINISHED: PartState.FINISHED, FAILED: PartState.FAILED}.get(
            os.read(fd, 16), PartState.UNKNOWN
        )
    except BlockingIOError:
        return PartState.RUNNING
    finally:
        os.close(fd)


def _path(folder: RunFolder, worker: str) -> Path:
    return folder.path / folder.final_files(worker)[-1]
