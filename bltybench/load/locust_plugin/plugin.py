"""The plugin's reactions to Locust's events. Importing bltybench.load registers it."""

import logging
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from locust import log
from locust.env import Environment
from locust.event import Events
from locust.rpc import Message
from locust.runners import Runner

from bltybench.errors import UserError
from bltybench.load.locust_plugin.console import COULD_NOT_RUN, print_error, print_summary, show_progress
from bltybench.load.locust_plugin.launcher import Launcher
from bltybench.load.locust_plugin.options import Role, add_arguments, parsed_options, role_of
from bltybench.load.locust_plugin.output_files import OutputFiles, check_paths
from bltybench.load.locust_plugin.panel import add_tab
from bltybench.load.locust_plugin.participant import BUDGET_MESSAGE, Participant
from bltybench.load.locust_plugin.shutdown import (
    INTERRUPTED,
    end_at_signals,
    end_when_over,
    ended_as_planned,
    exit_with,
    let_anyone_end,
    stop_on_quit,
    stop_run,
)
from bltybench.load.locust_plugin.supervisor import Supervisor
from bltybench.load.locust_plugin.user_classes import UserClasses, hold_shape
from bltybench.load.run.context import ABORT_MESSAGE, RunContext, open_context
from bltybench.load.run.live import Tick
from bltybench.load.run.run import Run
from bltybench.load.trials.link import TrialLink
from bltybench.load.trials.owner import TrialOwner

logger = logging.getLogger("bltybench")

SPEC_OPTION = "bltybench_run_spec"
"""Locust's spawn message carries the parsed options to the workers. The specification is one of them."""
TICK_KEY = "bltybench"
"""Key of the live counts in a worker's report."""
FAILED_KEY = "bltybench_failed"
"""Key in a worker's report that says that it did not handle an exception."""
ACTIVITY_MESSAGE = "bltybench_activity"
"""Message to the process that owns the run. A single process sends it to itself."""
EVENTS = (
    *("test_stopping", "test_stop", "report_to_master", "worker_report"),
    *("spawning_complete", "quitting", "quit"),
)
"""Events of Locust to which the plugin listens from ``init`` on."""


class Plugin:
    """This process's part in the run, and the run itself if the process owns it."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.key_names: set[str] = set()
        """Environment variables that hold keys, other than the target's."""
        self._runner: Runner
        self._launcher: Launcher | None = None
        self._link = TrialLink(lambda: self.context.trial_worker if self.context else None)
        self._participant = Participant(self._take_tick)
        self._supervisor = Supervisor(self._abort, self._link.lose_worker)
        self._greenlets: list[gevent.Greenlet[..., Any]] = []
        self._leaving: gevent.Greenlet[..., None] | None = None
        self._finishing: gevent.Greenlet[..., None] | None = None
        self._finished = Event()
        self._quitting = False
        self._exhausted_workers: set[str] = set()
        self._failure: UserError | None = None
        """Why the last run could not start."""
        self._error_code: int | None = None
        """Exit code after errors, if ``--exit-code-on-error`` was given."""
        self._aborted = self._worker_failed = False

    @property
    def context(self) -> RunContext | None:
        """What the users of this process share in the current run."""
        return self._participant.context

    def register(self, events: Events) -> None:
        """Listen to Locust's events before a run."""
        events.init_command_line_parser.add_listener(lambda parser, **_: add_arguments(parser))
        events.init_command_line_parser.add_listener(lambda parser, **_: check_paths(parser))
        events.init.add_listener(self.on_init)
        # A worker can receive a run before ``init``.
        events.test_start.add_listener(self.on_test_start)

    # Called by user classes

    def report_activity(self, activity: str) -> None:
        """Show what the run is doing in the progress line and the web tab."""
        self._runner.send_message(ACTIVITY_MESSAGE, {"activity": activity})

    def finish(self) -> None:
        """End the run before its time because its work is done."""
        self._finished.set()
        stop_run(self._runner, "done")

    # Locust's events, in the order in which they occur

    def on_init(self, environment: Environment, runner: Runner, **_: Any) -> None:
        """Check everything that can be checked before a run, and listen to the events of runs.

        A locustfile without a class whose calls are recorded is left to Locust.
        """
        options = parsed_options(environment)
        self._error_code = options.exit_code_on_error
        if self._error_code is None:
            options.exit_code_on_error = 1
        if not UserClasses(environment.user_classes).recorded:
            return
        self._runner = runner
        OutputFiles(environment)
        for name in EVENTS:
            getattr(environment.events, name).add_listener(getattr(self, f"on_{name}"))
        end_at_signals(environment.events)
        let_anyone_end(runner, self._finished.set)
        self._link.register(runner)
        self._participant.register(runner)
        if role_of(options) is Role.WORKER:
            return
        self._supervisor.register(runner)
        runner.register_message(BUDGET_MESSAGE, self._on_budget_exhausted)
        runner.register_message(ACTIVITY_MESSAGE, self._on_activity)
        runner.register_message(ABORT_MESSAGE, lambda msg, **_: self._abort(UserError(msg.data["error"])))
        self._launcher = Launcher(environment)
        try:
            self._launcher.check()
        except (UserError, KeyboardInterrupt) as error:
            exit_with(error, runner)
        if environment.web_ui is not None:
            add_tab(environment.web_ui, self._launcher.form_lists(), lambda: self._failure or self.run)

    def on_test_start(self, environment: Environment, **_: Any) -> None:
        """Create the run if this process owns it, and join it if this process generates load."""
        options = parsed_options(environment)
        if role_of(options) is Role.WORKER:
            if UserClasses(environment.user_classes).recorded:
                self._participant.join_as_worker(getattr(options, SPEC_OPTION, None))
            return
        self._finished.clear()
        self._aborted = False
        self._exhausted_workers.clear()
        self.run = self._failure = None
        try:
            if self._launcher is not None:
                self._start_run(self._launcher)
        except UserError as error:
            if options.headless:
                exit_with(error, self._runner)
            print_error(error)
            self._failure = error
            # Locust starts no users, and its page shows the form again.
            raise gevent.GreenletExit from None

    def on_spawning_complete(self, **_: Any) -> None:
        """Let trials start."""
        if self._link.owner is not None:
            self._link.owner.ready.set()

    def on_test_stopping(self, **_: Any) -> None:
        """Send nothing new. Requests in flight can finish."""
        if self.context is not None:
            self.context.stop()
        if self._launcher is not None:
            self._supervisor.close()

    def on_test_stop(self, environment: Environment, **_: Any) -> None:
        """Close this process's records, and the run if this process owns it."""
        run = self.run
        reason = self._end_reason(run) if run is not None else ""
        # If a signal ends a worker now, Locust kills the greenlet that calls this.
        self._leaving = gevent.spawn(self._participant.leave)
        self._leaving.get()
        if role_of(parsed_options(environment)) is Role.WORKER:
            # All its users have ended. Otherwise Locust would let the worker wait for this time again before
            # it listens to its master.
            environment.stop_timeout = 0.0
        gevent.killall(self._greenlets)
        if run is not None and self._finishing is None:
            self._finishing = gevent.spawn(self._finish_run, run, reason)

    def on_report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        """Add live counts to the worker's report, before Locust adds its rows."""
        context = self.context
        if context is not None:
            context.sink.settle()  # lets other greenlets run, and they can end the run
            data[TICK_KEY] = msgspec.to_builtins(context.sink.take_tick())
        if log.unhandled_greenlet_exception:
            data[FAILED_KEY] = True

    def on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        """Add a worker's live counts."""
        self._worker_failed |= data.get(FAILED_KEY, False)
        if TICK_KEY in data:
            self._take_tick(client_id, msgspec.convert(data[TICK_KEY], Tick))

    def on_quitting(self, environment: Environment, **_: Any) -> None:
        """Wait for the report, because Locust exits when this returns."""
        self._quitting = True
        try:
            stop_on_quit(self._runner)
            gevent.joinall([greenlet for greenlet in (self._leaving, self._finishing) if greenlet])
            self._participant.hand_over()
        except KeyboardInterrupt:
            # A second Ctrl-C: exit without the report. The records are on disk.
            environment.process_exit_code = INTERRUPTED
        if self._launcher is not None:
            self._launcher.stop_sandbox()
        if self._failure is not None:
            environment.process_exit_code = COULD_NOT_RUN
        elif self.run is not None and self.run.exit_code is not None:
            environment.process_exit_code = self._exit_code(self.run, self.run.exit_code)

    def on_quit(self, **_: Any) -> None:
        """Print the report's summary below Locust's own tables."""
        environment = self._runner.environment
        empty = self._aborted and not environment.stats.total.num_requests
        if self.run is not None and not empty:
            print_summary(self.run.closing_text, json=parsed_options(environment).json)

    # In the process that owns the run

    def _exit_code(self, run: Run, code: int) -> int:
        """Return the exit code of a run whose report exited with ``code``.

        ``--exit-code-on-error`` applies to errors, which refusals are not, unless a check of the scenario
        has failed or a worker was lost. An unhandled exception in any process, for example in an event
        listener or while recording an attempt, gives 2, as in Locust.
        """
        unhandled = log.unhandled_greenlet_exception or self._worker_failed or run.worker_failed
        if self._aborted or (code == 0 and unhandled):
            return COULD_NOT_RUN
        errors = self._runner.errors or self._runner.exceptions
        check_failed = code == 1 and (run.resolved.scenario.checks or run.lost_workers or run.strict)
        if self._error_code is None or not errors or check_failed or code not in {0, 1}:
            return code
        return self._error_code

    def _start_run(self, launcher: Launcher) -> None:
        environment = self._runner.environment
        self.run = run = launcher.create_run()
        self._finishing = None
        run.key_names |= self.key_names
        if run.workers:
            setattr(parsed_options(environment), SPEC_OPTION, msgspec.to_builtins(run.spec()))
        else:
            self._participant.join(open_context(run.spec(), environment, "local"))
        self._greenlets = [gevent.spawn(show_progress, run)]
        self._supervisor.begin(run, launcher.lead_s)
        if environment.shape_class is not None:
            self._greenlets.append(gevent.spawn(hold_shape, environment.shape_class, run.now_s))
        trials = self._link.begin(
            run.resolved, max(1, len(run.workers)), run.folder, now_s=run.now_s, show=run.live.show
        )
        if trials is not None:
            self._greenlets.append(gevent.spawn(self._make_trials, run, trials))
        if run.duration_s is not None:
            # Locust's own limit on the time includes the time before the load begins. Moreover, a headless
            # master then gives its workers half a second, so its tables would miss the last responses.
            self._greenlets.append(gevent.spawn(end_when_over, self._runner, run, run.duration_s))

    def _make_trials(self, run: Run, trials: TrialOwner) -> None:
        run.started.wait()
        try:
            trials.run()
        except UserError as error:
            self._abort(error)
        else:
            stop_run(self._runner, "all trials are over")

    def _abort(self, error: UserError) -> None:
        if not self._aborted:
            self._aborted = True
            print_error(error)
            stop_run(self._runner, "it can't be completed")

    def _on_activity(self, msg: Message, **_: Any) -> None:
        if self.run is not None:
            self.run.live.show(msg.data["activity"])

    def _on_budget_exhausted(self, msg: Message, **_: Any) -> None:
        self._exhausted_workers.add(msg.node_id)
        all_exhausted = self.run is not None and self._exhausted_workers >= set(self.run.workers)
        # Trials end by themselves if the load of one can't be sent.
        if all_exhausted and self._link.owner is None:
            stop_run(self._runner, "the budget is exhausted")

    def _end_reason(self, run: Run) -> str:
        exhausted = self.context is not None and self.context.budget_exhausted
        trials_ended = self._link.owner.ended if self._link.owner else None
        if self._exhausted_workers or exhausted or trials_ended == "budget":
            return "budget"
        over = ended_as_planned(self._runner, run.now_s(), run.duration_s)
        return "completed" if over or self._finished.is_set() or trials_ended else "interrupted"

    def _finish_run(self, run: Run, reason: str) -> None:
        self._supervisor.settle()
        run.finish("worker lost" if run.started.is_set() and run.lost_workers else reason)
        if self._quitting:
            return
        if parsed_options(self._runner.environment).headless:
            # Locust stops a run whose last worker has left, and then waits.
            self._runner.quit()
        else:
            logger.info("%s", run.closing_text.strip())

    def _take_tick(self, worker: str, tick: Tick) -> None:
        if self.run is not None:
            self.run.live.add(worker, tick)


PLUGIN = Plugin()
