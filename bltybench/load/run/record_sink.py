"""Where the records of one process go, and what it counts until they are written."""

import shlex
from collections.abc import Callable
from contextlib import ExitStack

from locust import log
from locust.stats import RequestStats

from bltybench.errors import UserError, reason
from bltybench.load.deferred import DeferredRecorder
from bltybench.load.distributed.presence import Presence
from bltybench.load.first_calls import FirstCalls
from bltybench.load.run.audit import Audit
from bltybench.load.run.clock import RunClock
from bltybench.load.run.live import Tick
from bltybench.load.run.stats_rows import TokenRows
from bltybench.runs.folder import RunFolder
from bltybench.runs.ownership import WriterLock
from bltybench.runs.spool import Spool
from bltybench.wire.scheduling.reader import Reader


class RecordSink:
    """The spools, the audit, the live counts, and the rows in Locust's table of ``worker``."""

    def __init__(
        self,
        folder: RunFolder,
        worker: str,
        clock: RunClock,
        reader: Reader,
        stats: RequestStats,
        *,
        end_run: Callable[[UserError], None],
        first_calls: FirstCalls | None = None,
    ) -> None:
        """``end_run`` ends the run if records can't be written. Raise UserError if files can't be created."""
        self.first_calls = first_calls
        self._folder = folder
        self._end_run = end_run
        self._clock = clock
        self._reader = reader
        with ExitStack() as opened:
            try:
                self._presence = opened.enter_context(Presence(folder, worker))
                opened.callback(WriterLock(folder.path).release)
                self.attempts = opened.enter_context(Spool(folder.attempts_spool / f"{worker}.jsonl"))
                self.generator = opened.enter_context(Spool(folder.generator_spool / f"{worker}.jsonl"))
            except OSError as error:
                raise UserError(
                    f"records can't be written: {reason(error)}",
                    where=str(folder.path),
                    remedy="give this process write access to the run's directory",
                ) from None
            self._open_files = opened.pop_all()
        self.audit = Audit(worker)
        self.tick = Tick()
        """Counts since the last tick."""
        self.token_rows = TokenRows(stats)
        self.deferred = DeferredRecorder(reader)
        self.open_attempts = 0
        """Attempts sent whose users still wait for them."""

    @property
    def in_flight(self) -> int:
        """Attempts sent whose responses have not ended."""
        return self.open_attempts - self._reader.unread

    def take_tick(self) -> Tick:
        """Return the counts since the last tick, and start a new one."""
        tick, self.tick = self.tick, Tick()
        tick.at_s, tick.in_flight = self._clock.now_s(), self.in_flight
        return tick

    def settle(self) -> None:
        """Record everything that was deferred, and update Locust's table."""
        self.deferred.settle()
        self.token_rows.flush()

    def write(self) -> None:
        """Write the records so far to disk."""
        self.settle()
        try:
            self.attempts.flush()
        except OSError as error:
            self._fail(error)

    def end_second(self, *, users: int, never_sent: int = 0, paced: int = 0) -> None:
        """Write the audit of the last second to disk."""
        self.generator.append(
            self.audit.second(
                self._clock.now_ns(),
                users=users,
                in_flight=self.in_flight,
                backlog=self._reader.backlog,
                never_sent=never_sent,
                paced=paced,
            )
        )
        try:
            self.generator.flush()
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Write the remaining records, say that this process has finished, and release the run folder."""
        try:
            with self._open_files:
                self.deferred.settle()
                self.audit.close()
                self.attempts.flush()
                self.generator.flush()
                self._presence.leave(failed=log.unhandled_greenlet_exception)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """End the run: load without records is wasted. Pending records stay in memory for the next try."""
        path = self._folder.path
        self._end_run(
            UserError(
                f"records can't be written: {reason(error)}",
                where=str(path),
                remedy=f"solve this, then run `bltybench report {shlex.quote(str(path))}`: "
                "everything already written is kept",
            )
        )
