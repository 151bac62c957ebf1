"""This process's part in generating the load of a run: alone, or as a worker."""

import os
import platform
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from locust.rpc import Message
from locust.runners import STATE_RUNNING, Runner, WorkerRunner

from bltybench.errors import UserError
from bltybench.load.distributed.clock_exchange import ASK_MESSAGE, ClockAnswer
from bltybench.load.distributed.messages import RECEIPT_MESSAGE, Receipt
from bltybench.load.distributed.remote_part import RemotePart
from bltybench.load.locust_plugin.console import COULD_NOT_RUN, print_error
from bltybench.load.locust_plugin.crew import (
    DECLINE_MESSAGE,
    HELLO_MESSAGE,
    HURRY_MESSAGE,
    READY_MESSAGE,
    REFUSE_MESSAGE,
    START_MESSAGE,
)
from bltybench.load.locust_plugin.options import LOOPBACK, parsed_options
from bltybench.load.locust_plugin.shutdown import INTERRUPT_DRAIN_S
from bltybench.load.run.context import RunContext, open_context
from bltybench.load.run.garbage import rare_collections
from bltybench.load.run.live import Tick
from bltybench.load.run.run import worker_name
from bltybench.load.run.run_spec import TOO_LATE, RunSpec
from bltybench.runs.folder import Spill, create_spill, remove_spill
from bltybench.runs.manifest import Clock

BUDGET_MESSAGE = "bltybench_budget_exhausted"
"""Message to the process that owns the run: this process has spent its share of the budget."""
MAX_IDLE_WAIT_S = 2.0
"""Maximum time for the users to begin waiting for the load, in seconds. Users of other classes may never."""
POLL_S = 0.01
WRITE_INTERVAL_S = 0.5
"""Pause between two writes, in seconds. Records reach the disk within a second, also if it is overslept."""


class Participant:
    """The context of the current run, and the greenlets that keep its records."""

    def __init__(self, take_tick: Callable[[str, Tick], None]) -> None:
        """``take_tick`` receives the name and the counts of a process that runs alone, each second."""
        self.context: RunContext | None = None
        self._take_tick = take_tick
        self._runner: Runner
        self._registered = Event()
        self._greenlets: list[gevent.Greenlet[..., Any]] = []
        self._garbage = ExitStack()
        self._client_id = ""
        """Locust's id of this worker."""
        self._last_run = ""
        self._reports = Path()
        self._scenario_file: Path | None = None
        self._remote: RemotePart | None = None
        """What this worker does in addition in the current run."""
        self._remote_parts: dict[str, RemotePart] = {}
        """The same for all runs, by their ids: the end of a delivery can outlast its run."""

    def register(self, runner: Runner) -> None:
        """Listen to the process that owns the runs."""
        self._runner = runner
        # A run replaces the options of this process by those of its master.
        options = parsed_options(runner.environment)
        self._reports = Path(options.reports)
        self._scenario_file = Path(options.scenario_file) if options.scenario_file else None
        runner.register_message(START_MESSAGE, self._on_start)
        if isinstance(runner, WorkerRunner):
            self._client_id = runner.client_id
            runner.register_message(REFUSE_MESSAGE, self._on_refuse)
            runner.register_message(HURRY_MESSAGE, self._on_hurry)
            runner.register_message(RECEIPT_MESSAGE, self._on_receipt)
            runner.register_message(ASK_MESSAGE, self._on_answer)
            runner.send_message(HELLO_MESSAGE, {"process": f"pid {os.getpid()} on {platform.node()}"})
        self._registered.set()

    def join_as_worker(self, spec_message: object) -> None:
        """Join the run that the master describes, or tell the master why that fails."""
        # Locust's master can start a run while Locust still connects this worker to it.
        self._registered.wait()
        try:
            spec = RunSpec.received(spec_message)
            if spec.run_path == self._last_run:
                # Locust's master was still spawning users when the run ended.
                return
            index = spec.index_of(self._client_id)
            self._last_run = spec.run_path
            base_dir = str(spec.files.find(self._scenario_file))
            spec = msgspec.structs.replace(spec, files=msgspec.structs.replace(spec.files, base_dir=base_dir))
            environment, workers, name = self._runner.environment, len(spec.workers), worker_name(index)
            run_path, run_id = spec.run_path, spec.folder.path.name
            with ExitStack() as failed:
                if not spec.sees_folder:
                    spill = create_spill(self._reports, Spill(run_id=run_id, worker=name))
                    failed.callback(remove_spill, spill)
                    spec = msgspec.structs.replace(spec, run_path=str(spill.path.absolute()))
                remote = RemotePart(spec.folder, name, spec.clock, run_path, self._runner.send_message)
                self.join(open_context(spec, environment, name, index, workers), remote)
                failed.pop_all()
            self._remote_parts[run_id] = remote
        except UserError as error:
            self._decline(error)
        except Exception as error:
            self._decline(UserError(f"{type(error).__name__}: {error}", remedy="see the worker's output"))
            raise

    def join(self, context: RunContext, remote: RemotePart | None = None) -> None:
        """Take part in a run. The load begins when all its processes are ready."""
        self.context, self._remote = context, remote
        self._garbage.enter_context(rare_collections())
        self._greenlets = [
            gevent.spawn(self._report_ready, remote),
            gevent.spawn(self._write_records, context),
            gevent.spawn(self._end_seconds, context),
            gevent.spawn(context.clock.run_out),
        ]

    def leave(self) -> None:
        """Close this process's records. All its users have ended."""
        gevent.killall(self._greenlets)
        if self.context is not None:
            if self.context.clock.is_known:
                self.context.sink.write()
                unclaimed, held = self.context.source.count_unclaimed(), self.context.policy.holding
                self._end_second(
                    self.context, never_sent=0 if held else unclaimed, paced=unclaimed if held else 0
                )
            self._garbage.close()
            self.context.sink.close()
            if self._remote is not None:
                self._remote.finish()
            self.context = self._remote = None

    def hand_over(self) -> None:
        """Wait until the master has the records of this worker, because this process ends."""
        runner = self._runner
        parts = [part for part in self._remote_parts.values() if part.is_remote]
        if isinstance(runner, WorkerRunner) and parts:
            # Locust has stopped listening.
            listener = gevent.spawn(self._listen, runner)
            delivered = [part.wait() for part in parts]
            listener.kill()
            if not all(delivered):
                runner.environment.process_exit_code = COULD_NOT_RUN

    def _listen(self, runner: WorkerRunner) -> None:
        reactions = {RECEIPT_MESSAGE: self._on_receipt, ASK_MESSAGE: self._on_answer}
        while True:
            msg = runner.client.recv()
            if msg.type in reactions:
                reactions[msg.type](msg)

    def _on_receipt(self, msg: Message, **_: Any) -> None:
        receipt = msgspec.convert(msg.data, Receipt)
        if part := self._remote_parts.get(receipt.run_id):
            part.take_receipt(receipt)

    def _on_answer(self, msg: Message, **_: Any) -> None:
        answer = msgspec.convert(msg.data, ClockAnswer)
        for part in self._remote_parts.values():
            part.take_answer(answer)

    def _report_ready(self, remote: RemotePart | None) -> None:
        runner = self._runner
        while runner.state != STATE_RUNNING and not runner.user_count:
            gevent.sleep(POLL_S)
        with gevent.Timeout(MAX_IDLE_WAIT_S, False):
            gevent.idle()
        if remote is not None:
            try:
                remote.prepare()
            except UserError as error:
                self._decline(error)
                return
        runner.send_message(READY_MESSAGE, {"is_remote": remote is not None and remote.is_remote})
        if remote is not None:
            remote.begin()

    def _on_start(self, msg: Message, **_: Any) -> None:
        if self.context is not None:
            self.context.sink.audit.watch()
            clock = msgspec.convert(msg.data, Clock)
            self.context.clock.begin(clock if self._remote is None else self._remote.start(clock))

    def _on_hurry(self, **_: Any) -> None:
        self._runner.environment.stop_timeout = INTERRUPT_DRAIN_S

    def _on_refuse(self, **_: Any) -> None:
        environment = self._runner.environment
        environment.process_exit_code = print_error(
            UserError(TOO_LATE, remedy="start all workers before starting the run")
        )
        self._runner.quit()

    def _decline(self, error: UserError) -> None:
        environment = self._runner.environment
        self._runner.send_message(DECLINE_MESSAGE, {"error": str(error)})
        environment.process_exit_code = COULD_NOT_RUN
        options = parsed_options(environment)
        if not options.processes or options.master_host != LOOPBACK:
            # The master of --processes prints it on the same terminal.
            print(f"bltybench: this worker can't take part: {error}", file=sys.stderr, flush=True)

    def _write_records(self, context: RunContext) -> None:
        context.clock.wait_until_known()
        while True:
            gevent.sleep(WRITE_INTERVAL_S)
            context.sink.write()

    def _end_seconds(self, context: RunContext) -> None:
        # Apart from writing, which takes many seconds if listeners are expensive: the audit must show them.
        context.clock.wait_until_known()
        while True:
            gevent.sleep(1)
            self._end_second(context)

    def _end_second(self, context: RunContext, never_sent: int = 0, paced: int = 0) -> None:
        context.sink.end_second(users=self._runner.user_count, never_sent=never_sent, paced=paced)
        if not isinstance(self._runner, WorkerRunner):
            self._take_tick(context.worker, context.sink.take_tick())
        if context.budget_exhausted:
            self._runner.send_message(BUDGET_MESSAGE)
