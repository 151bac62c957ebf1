"""The start of a run when all its processes are ready, and its end when one of its workers is lost."""

import logging
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import msgspec
import psutil
from gevent.event import Event
from locust.rpc import Message
from locust.runners import MasterRunner, Runner

from bltybench.errors import UserError, reason
from bltybench.load.distributed.clock_exchange import ASK_MESSAGE, ClockAnswer, Question
from bltybench.load.distributed.messages import BATCH_MESSAGE, RECEIPT_MESSAGE, FilePart, Receipt
from bltybench.load.first_calls import MAX_ALIKE
from bltybench.load.locust_plugin.crew import (
    DECLINE_MESSAGE,
    HELLO_MESSAGE,
    HURRY_MESSAGE,
    LEAVE_GRACE_S,
    LEFT,
    READY_MESSAGE,
    REFUSE_MESSAGE,
    START_MESSAGE,
    WATCH_INTERVAL_S,
    Crew,
    FixedWorkers,
    tolerate_cuts,
)
from bltybench.load.locust_plugin.options import parsed_options
from bltybench.load.locust_plugin.shutdown import exit_with, forked_workers, stop_run
from bltybench.load.run.context import FAILING_MESSAGE
from bltybench.load.run.run import Run

logger = logging.getLogger("bltybench")


class Supervisor:
    """Follows the processes of the current run, in the process that owns the runs."""

    def __init__(self, abort: Callable[[UserError], None], on_lost: Callable[[], None]) -> None:
        """``abort`` ends a run that can't be completed. ``on_lost`` is called if a worker's loss ends it."""
        self._abort = abort
        self._on_lost = on_lost
        self._runner: Runner
        self._crew: Crew | None = None
        self._starting: gevent.Greenlet[..., Any] | None = None
        self._signaled = Event()
        """Set when a signal ends this process, and probably its workers."""
        self._run: Run | None = None
        self._failing: dict[str, str] = {}
        """How the first calls of each process failed, if they did so alike."""
        self._crews: dict[str, tuple[Run, Crew]] = {}
        """Runs whose records can still arrive, by their ids."""
        self._processes: dict[str, str] = {}
        """Descriptions of the workers' processes, by Locust's id."""

    def register(self, runner: Runner) -> None:
        """Listen to the other processes."""
        self._runner = runner
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, self._signaled.set)
        if isinstance(runner, MasterRunner):
            tolerate_cuts()
            setattr(runner, "quit", partial(self._gather_and_quit, runner.quit))  # noqa: B010 - mypy
            runner.environment.dispatcher_class = FixedWorkers
            if processes := parsed_options(runner.environment).processes:
                gevent.spawn(self._await_workers, runner, processes)
        runner.register_message(HELLO_MESSAGE, self._on_hello)
        runner.register_message(READY_MESSAGE, self._on_ready)
        runner.register_message(BATCH_MESSAGE, self._on_batch)
        runner.register_message(ASK_MESSAGE, self._on_question)
        runner.register_message(DECLINE_MESSAGE, self._on_decline)
        runner.register_message(FAILING_MESSAGE, self._on_failing)

    def begin(self, run: Run, lead_s: float) -> None:
        """Follow a run. Call it in the greenlet in which Locust starts the run."""
        self._starting = gevent.getcurrent()
        self._crew = Crew(self._runner, run, self._processes)
        self._failing, self._run = {}, run
        self._crews = {key: value for key, value in self._crews.items() if not value[0].gathered.is_set()}
        self._crews[run.folder.path.name] = (run, self._crew)
        gevent.spawn(self._supervise, run, self._crew, lead_s)

    def close(self) -> None:
        """Let the workers leave, because the run stops."""
        if self._crew is not None:
            self._crew.close()
        runner, starting = self._runner, self._starting
        if (
            isinstance(runner, MasterRunner)
            and not runner.spawning_completed
            and starting not in {None, gevent.getcurrent()}
        ):
            # Otherwise Locust would continue to spawn users after the end.
            starting.kill()

    def settle(self) -> None:
        """Decide about workers that left before the run stopped: unless a signal ended all, they are lost."""
        crew = self._crew
        if crew is not None and crew.left_early and not self._signaled.wait(LEAVE_GRACE_S):
            for client_id in crew.left_early:
                crew.lose(client_id, LEFT)

    def _await_workers(self, runner: MasterRunner, processes: int) -> None:
        """Exit if a worker that Locust forked ends before the run. Locust would wait for it indefinitely.

        With the web page, Locust waits for nothing once all are connected.
        """
        environment = runner.environment
        options = parsed_options(environment)
        waits = options.headless or options.autostart
        while self._starting is None and (waits or len(runner.clients) < processes):
            gevent.sleep(WATCH_INTERVAL_S)
            alive = len(forked_workers())
            # A signal to all processes, or an error before the run, ends workers, too.
            ending = alive == processes or self._signaled.wait(LEAVE_GRACE_S)
            if ending or self._starting is not None or environment.process_exit_code is not None:
                continue
            missing = f"{processes - alive} of {processes} worker processes ended before the run"
            exit_with(UserError(missing, remedy="see their output, and start the run again"), runner)

    def _supervise(self, run: Run, crew: Crew, lead_s: float) -> None:
        if lost := crew.wait_until_ready():
            self._abort(UserError(lost, remedy="see the output of the worker, and start the run again"))
            return
        if crew.closed.is_set():
            return
        try:
            run.start(lead_s)
        except UserError as error:
            self._abort(error)
            return
        self._runner.send_message(START_MESSAGE, msgspec.to_builtins(run.clock))
        if run.workers and (lost := crew.watch()):
            self._on_lost()
            _kill_stopped_workers()
            self._runner.send_message(HURRY_MESSAGE)
            stop_run(self._runner, lost)
        if run.inbox:
            crew.closed.wait()
            crew.watch_end()

    def _on_hello(self, msg: Message, **_: Any) -> None:
        self._processes[msg.node_id] = msg.data["process"]
        crew = self._crew
        if crew is None or crew.closed.is_set() or msg.node_id in crew:
            return
        logger.warning("%s connected after the run had started and takes no part", crew.describe(msg.node_id))
        if parsed_options(self._runner.environment).headless:
            self._runner.send_message(REFUSE_MESSAGE, client_id=msg.node_id)

    def _on_ready(self, msg: Message, **_: Any) -> None:
        if self._crew is None or self._run is None:
            return
        is_remote: bool = msg.data["is_remote"]
        if is_remote:
            try:
                self._run.inbox.expect(self._crew.name_of(msg.node_id))
            except OSError as error:
                self._abort(_unwritable(self._run, error))
                return
        self._crew.take_ready(msg.node_id, is_remote=is_remote)

    def _on_batch(self, msg: Message, **_: Any) -> None:
        batch = msgspec.convert(msg.data, FilePart)
        receipt = Receipt(run_id=batch.run_id, file=batch.file, size=None)
        if batch.run_id in self._crews:
            run, crew = self._crews[batch.run_id]
            try:
                receipt = run.inbox.take(crew.name_of(msg.node_id), batch)
            except OSError as error:
                self._abort(_unwritable(run, error))
                return
        self._runner.send_message(RECEIPT_MESSAGE, msgspec.structs.asdict(receipt), client_id=msg.node_id)

    def _on_question(self, msg: Message, **_: Any) -> None:
        answer = ClockAnswer.to(msgspec.convert(msg.data, Question))
        self._runner.send_message(ASK_MESSAGE, msgspec.structs.asdict(answer), client_id=msg.node_id)

    def _gather_and_quit(self, quit_now: Callable[[], None]) -> None:
        """Quit when the records of all workers have arrived: afterwards, Locust receives no messages."""
        run = self._run
        if run is not None and run.inbox:
            self._runner.stop()
            run.gathered.wait()
        quit_now()

    def _on_failing(self, msg: Message, **_: Any) -> None:
        self._failing[msg.node_id] = msg.data["kind"]
        kinds = {*self._failing.values()}
        if self._run is not None and self._failing.keys() >= {*self._run.workers} and len(kinds) == 1:
            self._run.first_calls_failed = True
            stop_run(self._runner, f"the first {MAX_ALIKE} calls all failed alike: {kinds.pop()}")

    def _on_decline(self, msg: Message, **_: Any) -> None:
        if self._crew is not None:
            self._abort(UserError(self._crew.lose(msg.node_id, f"can't take part: {msg.data['error']}")))


def _unwritable(run: Run, error: OSError) -> UserError:
    return UserError(
        f"records of a worker can't be written: {reason(error)}",
        where=str(run.folder.path),
        remedy="solve this; what the workers keep can be added with `bltybench report RUN --merge DIRECTORY`",
    )


def _kill_stopped_workers() -> None:
    """Kill the workers that Locust forked and that a signal has stopped.

    They would hold the run's folder, and Locust waits for their end.
    """
    for worker in forked_workers():
        if worker.status() == psutil.STATUS_STOPPED:
            worker.kill()
