"""The additional work of a worker that shares no disk, or no clock, with the master."""

from __future__ import annotations

from typing import Protocol

import gevent
import msgspec

from bltybench.errors import UserError, reason
from bltybench.load.distributed.clock_exchange import ASK_MESSAGE, ClockAnswer, MasterClock
from bltybench.load.distributed.courier import Courier
from bltybench.load.distributed.messages import BATCH_MESSAGE, Receipt
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Clock, boot_id


class Sender(Protocol):
    """Sends a message to the master."""

    def __call__(self, message: str, data: dict[str, object], /) -> None:
        """Send ``data`` as a message of this type. Raise RPCError if the connection is broken."""


class RemotePart:
    """The clock of the master, and the delivery of records to it, in one run."""

    def __init__(self, folder: RunFolder, worker: str, clock: Clock, run_path: str, send: Sender) -> None:
        """``folder`` has this worker's records, ``run_path`` those of the run. Raise UserError."""
        self._courier: Courier | None = None
        self._clock: MasterClock | None = None
        self._following: gevent.Greenlet[..., None] | None = None
        if str(folder.path) != run_path:
            self._courier = Courier(
                folder, worker, lambda batch: send(BATCH_MESSAGE, msgspec.structs.asdict(batch)), run_path
            )
        if clock.boot_id is None or clock.boot_id != boot_id():
            try:
                self._clock = MasterClock(
                    folder, worker, lambda question: send(ASK_MESSAGE, msgspec.structs.asdict(question))
                )
            except OSError as error:
                raise UserError(
                    f"records can't be written: {reason(error)}", where=str(folder.path)
                ) from None

    @property
    def is_remote(self) -> bool:
        """Whether this worker sends its records to the master."""
        return self._courier is not None

    def prepare(self) -> None:
        """Measure the master's clock. Raise UserError if it is too different."""
        if self._clock is not None:
            self._clock.measure_first()

    def begin(self) -> None:
        """Deliver records from now on."""
        if self._courier is not None:
            self._courier.begin()

    def start(self, clock: Clock) -> Clock:
        """Return the anchor of the run's axis on this machine's clock. Follow the master's from now on."""
        if self._clock is None:
            return clock
        self._following = gevent.spawn(self._clock.follow)
        return self._clock.translated(clock)

    def take_answer(self, answer: ClockAnswer) -> None:
        """Note the master's answer to a question for the time."""
        if self._clock is not None:
            self._clock.take(answer)

    def take_receipt(self, receipt: Receipt) -> None:
        """Note how much the master has received."""
        if self._courier is not None:
            self._courier.take(receipt)

    def finish(self) -> None:
        """Deliver the rest: the records are complete."""
        if self._following is not None:
            self._following.kill()
        gevent.spawn(self._finish)

    def _finish(self) -> None:
        if self._clock is not None:
            if self._courier is not None:
                # If the directory is shared, the master may already make the report.
                self._clock.measure()
            self._clock.close()
        if self._courier is not None:
            self._courier.finish()

    def wait(self) -> bool:
        """Return whether the rest is delivered. Wait for it as long as the master responds."""
        return self._courier is None or self._courier.wait()
