"""The records that arrive from workers, in the process that owns the run."""

import os
import time
from contextlib import ExitStack

from bltybench.load.distributed.messages import FilePart, Receipt
from bltybench.load.distributed.presence import FAILED, Presence
from bltybench.runs.folder import RunFolder


class Inbox:
    """The files of the workers whose records arrive over Locust's connection.

    Each file is always the beginning of the worker's own, so the worker, or a merge, can continue it.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.last_new_s = float("-inf")
        """When records last arrived, on the monotonic clock."""
        self.received_bytes = 0
        self._folder = folder
        self._presences: dict[str, Presence] = {}
        self._running: dict[str, ExitStack] = {}
        """Locks of the workers that have not finished."""
        self._open = ExitStack()
        self._fds: dict[str, int] = {}
        self._closed = False

    def __bool__(self) -> bool:
        """Return whether the run has such workers."""
        return bool(self._presences)

    def expect(self, worker: str) -> None:
        """Create the files of a worker, and hold its lock until it has finished. Raise OSError."""
        self._running[worker] = self._open.enter_context(ExitStack())
        self._presences[worker] = self._running[worker].enter_context(Presence(self._folder, worker))
        for name in self._folder.spool_files(worker):
            self._fd(name)

    def take(self, worker: str, batch: FilePart) -> Receipt:
        """Store a batch of a worker, unless it is already there, and return what is there now.

        Raise OSError if it can't be stored, and ValueError if no such worker can have sent it.
        """
        if self._closed or worker not in self._presences:
            return Receipt(run_id=batch.run_id, file=batch.file, size=None)
        last = self._folder.final_files(worker)
        if batch.file not in {*self._folder.spool_files(worker), *last}:
            raise ValueError(f"worker {worker} sent a part of {batch.file[:60]!r}, which is no file of it")
        part = batch.part()
        if batch.file == last[-1]:
            if worker in self._running:
                self._presences[worker].leave(failed=part == FAILED)
                self._running.pop(worker).close()
            return Receipt(run_id=batch.run_id, file=batch.file, size=len(part))
        fd = self._fd(batch.file)
        size = os.fstat(fd).st_size
        missing = part[size - batch.offset :] if batch.offset <= size else b""
        while missing:
            written = os.write(fd, missing)
            size, missing = size + written, missing[written:]
            self.received_bytes += written
            self.last_new_s = time.monotonic()
        return Receipt(run_id=batch.run_id, file=batch.file, size=size)

    def close(self) -> None:
        """Accept nothing more."""
        self._closed = True
        self._open.close()

    def _fd(self, name: str) -> int:
        if name not in self._fds:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fds[name] = fd = os.open(self._folder.path / name, flags, 0o644)
            self._open.callback(os.close, fd)
        return self._fds[name]
