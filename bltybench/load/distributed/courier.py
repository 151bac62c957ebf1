"""Delivery of a worker's records to the process that owns the run, over Locust's connection.

The worker appends its records to files on its own disk. The courier sends what has been added, waits for the
receipt, and sends again what was not received. The files are removed when everything has been received.
"""

import logging
import os
import shlex
import time
from collections.abc import Callable
from contextlib import suppress

import gevent
from gevent.event import Event
from locust.exception import RPCError

from bltybench.load.distributed.messages import MAX_BATCH_BYTES, FilePart, Receipt
from bltybench.runs.folder import RunFolder, remove_spill

logger = logging.getLogger("bltybench")

INTERVAL_S = 1.0
"""Interval at which new records are sent, in seconds: they are written to disk once per second."""
RESEND_S = 5.0
"""Time after which a batch without a receipt is sent again, in seconds."""
MAX_SILENCE_S = 20.0
"""Time without a receipt after which a worker that ends gives up, in seconds. It tries at least once more."""


class Courier:
    """Sends the records of one worker in one run."""

    def __init__(
        self, folder: RunFolder, worker: str, send: Callable[[FilePart], None], run_path: str
    ) -> None:
        """``folder`` is on this machine. The run's directory is ``run_path`` on another one."""
        self.done = Event()
        """Set when everything has been received, or the run takes no more records."""
        self._folder, self._worker, self._send, self._run_path = folder, worker, send, run_path
        self._finished = self._gave_up = False
        self._received: dict[str, int] = {}
        """Bytes of each file that have been received."""
        self._receipt = Event()
        self._last_receipt_s = time.monotonic()
        self._work = Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def begin(self) -> None:
        """Send what is written from now on. The run expects it."""
        self._greenlet = gevent.spawn(self._run)

    def take(self, receipt: Receipt) -> None:
        """Note what has been received."""
        self._last_receipt_s = time.monotonic()
        if receipt.size is None:
            self._give_up("the run takes no more records")
            return
        self._received[receipt.file] = receipt.size
        self._receipt.set()

    def finish(self) -> None:
        """Deliver the rest: nothing more is written."""
        self._finished = True
        self._work.set()
        if self._greenlet is None:  # the run has not begun
            remove_spill(self._folder)
            self.done.set()

    def wait(self) -> bool:
        """Return whether everything is received before there has been no receipt for some time."""
        once_more_s = time.monotonic() + RESEND_S + INTERVAL_S
        while not self.done.wait(INTERVAL_S):
            if time.monotonic() > max(once_more_s, self._last_receipt_s + MAX_SILENCE_S):
                self._give_up("the master does not respond")
        return not self._gave_up

    def _run(self) -> None:
        while not self._finished:
            self._work.wait(INTERVAL_S)
            self._deliver(self._folder.spool_files(self._worker))
        # Once more: the last records can have been written during the last delivery.
        self._deliver(self._folder.spool_files(self._worker))
        self._deliver(self._folder.final_files(self._worker))
        if self._run_has_more():
            self._give_up("it has other records of this worker")
        remove_spill(self._folder)
        self.done.set()

    def _deliver(self, names: list[str]) -> None:
        for name in names:
            path = self._folder.path / name
            if not path.exists():
                continue
            with path.open("rb") as file:
                while part := self._next_part(file.fileno(), name):
                    self._receipt.clear()
                    # The queue of a broken connection can be full. The batch is then sent again later.
                    with suppress(RPCError):
                        self._send(
                            FilePart.of(self._folder.path.name, name, self._received.get(name, 0), part)
                        )
                    self._receipt.wait(RESEND_S)

    def _run_has_more(self) -> bool:
        return any(size > (self._folder.path / name).stat().st_size for name, size in self._received.items())

    def _next_part(self, fd: int, name: str) -> bytes:
        return os.pread(fd, MAX_BATCH_BYTES, self._received.get(name, 0))

    def _give_up(self, why: str) -> None:
        self._gave_up = True
        self.done.set()
        logger.warning(
            "Records of worker %s have not reached the run: %s. Copy %s to the master's machine, and run "
            "there: bltybench report %s --merge DIRECTORY",
            self._worker, why, self._folder.path.absolute(), shlex.quote(self._run_path),
        )  # fmt: skip
        if self._greenlet is not None:
            self._greenlet.kill()
