"""What happens in this process when Locust starts, stops and quits. Importing bltybench.load registers it."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from argparse import Namespace
from typing import Any

import gevent
from locust.env import Environment
from locust.event import Events
from locust.runners import STATE_RUNNING, STATE_SPAWNING, MasterRunner, Runner, WorkerRunner

from bltybench.errors import UserError
from bltybench.load.capacity.link import SearchLink
from bltybench.load.locust_plugin.console import announce, complain
from bltybench.load.locust_plugin.options import (
    DRAIN_S,
    SPARE_S,
    add_arguments,
    fill_defaults,
    formats_of,
    plan_of,
    resolve_options,
)
from bltybench.load.locust_plugin.panel import add_tab
from bltybench.load.locust_plugin.progress import Progress
from bltybench.load.locust_plugin.shutdown import dismiss_workers, interrupt, stop_soon
from bltybench.load.run import live
from bltybench.load.run import run_spec as jobs
from bltybench.load.run.context import Session
from bltybench.load.run.run import LEAD_ALONE_S, LEAD_WORKERS_S, Run, worker_name
from bltybench.sandbox.process import SandboxProcess, start_if_absent
from bltybench.scenario.file.resolve import Resolved
from bltybench.scenario.plan import Plan
from bltybench.scenario.prompts import tokens

logger = logging.getLogger("bltybench")

JOB_OPTION = "bltybench_job"
"""Parsed options travel from master to workers in Locust's spawn message; the order is one of them."""

BUDGET_MESSAGE = "bltybench_budget_spent"
DOING_MESSAGE = "bltybench_doing"

INTERRUPTED = 130


class Plugin:
    """Owns this process's session, and its run where it is the master or the only process."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.run: Run | None = None
        self._environment: Environment
        self._greenlets: list[gevent.Greenlet[..., Any]] = []
        self.key_names: set[str] = set()
        """Environment variables that hold keys besides the target's."""
        self._finishing: gevent.Greenlet[..., None] | None = None
        self._quitting = False
        self._spent: set[str] = set()
        self._sandbox: SandboxProcess | None = None
        self._link = SearchLink(lambda: self.session.part if self.session else None)
        self._planning_s = 0.0
        self._duration_s: float | None = None
        # What was filled in for people to see, and is no wish of theirs where it comes back unchanged.
        self._filled_run_time: int | None = None
        self._filled_host: str | None = None

    def register(self, events: Events) -> None:
        """Listen to Locust."""
        events.init_command_line_parser.add_listener(lambda parser, **_: add_arguments(parser))
        events.init.add_listener(self.on_init)
        events.test_start.add_listener(self.on_test_start)
        events.test_stopping.add_listener(self.on_test_stopping)
        events.test_stop.add_listener(self.on_test_stop)
        events.report_to_master.add_listener(self.on_report_to_master)
        events.worker_report.add_listener(self.on_worker_report)
        events.spawning_complete.add_listener(lambda **_: self._link.all_users_are_there())
        events.quitting.add_listener(self.on_quitting)
        events.quit.add_listener(self.on_quit)

    # Locust's events, in the order in which they come

    def on_init(self, environment: Environment, **_: Any) -> None:
        """Check everything that can be checked before a test is started."""
        self._environment = environment
        # Through the event loop: raised by Python itself, it would hit whatever user happens to run.
        gevent.signal_handler(signal.SIGINT, interrupt)
        tokens.load()
        self._link.register(environment.runner)
        if isinstance(environment.runner, WorkerRunner):
            return
        if isinstance(environment.runner, MasterRunner):
            environment.runner.register_message(BUDGET_MESSAGE, self._on_worker_spent)
            environment.runner.register_message(DOING_MESSAGE, self._on_worker_tells)
        options = _options(environment)
        try:
            self._duration_s = float(options.run_time) if options.run_time else None
            resolved = resolve_options(options, environment.user_classes, options.num_users, self._duration_s)
            resolved.target.api_key(resolved.target_name)
            self._plan(resolved)
            formats_of(options)
            if options.headless:
                self._ensure_sandbox(resolved)
        except UserError as error:
            code = complain(error)
            dismiss_workers(environment.runner, options.processes)
            sys.exit(code)
        fill_defaults(options, resolved, lead_s=self._lead_s(), ends_itself=self._ends_itself())
        self._filled_run_time = options.run_time
        if environment.host is None:
            environment.host = self._filled_host = resolved.target.base_url
        if not environment.stop_timeout:
            environment.stop_timeout = DRAIN_S
        if environment.web_ui is not None:
            add_tab(environment.web_ui, lambda: self.run)

    def on_test_start(self, environment: Environment, **_: Any) -> None:
        """Begin a run: make it where this process owns it, join it where this process makes load."""
        runner = environment.runner
        self.session = None
        self._spent.clear()
        try:
            if isinstance(runner, WorkerRunner):
                order = jobs.decode(getattr(environment.parsed_options, JOB_OPTION))
                index = order.place_of(runner.client_id)
                self._join(Session(order, environment, worker_name(index), index, len(order.workers)))
            else:
                self._own(environment)
        except UserError as error:
            code = complain(error)
            if _options(environment).headless or isinstance(runner, WorkerRunner):
                dismiss_workers(runner, _options(environment).processes)
                sys.exit(code)

    def on_test_stopping(self, **_: Any) -> None:
        """Send nothing new; what is in flight may finish."""
        if self.session is not None:
            self.session.stop()

    def on_test_stop(self, environment: Environment, **_: Any) -> None:
        """Close this process's records, and the run where this process owns it."""
        run = self.run
        reason = self._reason(run) if run is not None else ""
        if self.session is not None:
            self._second(never_sent=self.session.count_unclaimed())
            self.session.close()
            self.session = None
        if isinstance(environment.runner, WorkerRunner):
            # All its users have ended. Locust would have the worker wait this long once more before it
            # listened to its master again.
            environment.stop_timeout = 0.0
        gevent.killall(self._greenlets)
        if run is not None and self._finishing is None:
            self._finishing = gevent.spawn(self._finish, run, reason)

    def on_report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        """Send what was counted since the last report."""
        if self.session is not None:
            # This comes before Locust puts its rows into the report.
            self.session.later.settle()
            self.session.token_rows.flush()
            data["bltybench"] = live.encode_ticks([self.session.tick()])

    def on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        """Take in what a worker counted."""
        if self.run is not None and "bltybench" in data:
            self.run.live.add(client_id, live.decode_ticks(data["bltybench"]))

    def on_quitting(self, environment: Environment, **_: Any) -> None:
        """Wait for the report: Locust leaves when this returns."""
        self._quitting = True
        runner = environment.runner
        try:
            if runner is not None:
                stop_soon(environment, runner)
            if self._finishing is not None:
                self._finishing.join()
        except KeyboardInterrupt:
            # A second Ctrl-C: leave without the report. The records are on disk.
            environment.process_exit_code = INTERRUPTED
        if self._sandbox is not None:
            self._sandbox.stop()
        if self.run is not None and self.run.exit_code is not None:
            environment.process_exit_code = self.run.exit_code

    def on_quit(self, **_: Any) -> None:
        """Say last what was found and where it lies, below Locust's own tables."""
        if self.run is not None and self.run.closing_words:
            print(self.run.closing_words, end="", flush=True)

    # The parts

    def _own(self, environment: Environment) -> None:
        runner, options = environment.runner, _options(environment)
        options.host = None if environment.host == self._filled_host else environment.host
        if options.run_time != self._filled_run_time:
            # Changed in the web page: Locust will stop the run by it, so that much is left for the load.
            self._duration_s = max(1.0, options.run_time - self._lead_s()) if options.run_time else None
        users = runner.target_user_count if runner else None
        resolved = resolve_options(options, environment.user_classes, users, self._duration_s)
        resolved.target.api_key(resolved.target_name)
        plan = self._plan(resolved)
        self._ensure_sandbox(resolved)
        workers: list[str] = []
        if isinstance(runner, MasterRunner):
            # In the order in which Locust deals out users, so that the first of them have the first numbers.
            workers = sorted(client.id for client in runner.clients.all)
        self._finishing = None
        self.run = run = Run(resolved, options.reports, workers, self._lead_s(), formats_of(options))
        run.key_names |= self.key_names
        replays = any(getattr(cls, "replays", False) for cls in environment.user_classes)
        announce(run, plan if replays else None)
        order = run.job()
        if workers:
            setattr(options, JOB_OPTION, jobs.encode(order))
        else:
            session = Session(order, environment, "local", 0, 1)
            run.put_off(self._lead_s())
            session.begin(run.job())
            self._join(session)
        progress = Progress(run, resolved.scenario.duration_s)
        self._greenlets.append(gevent.spawn(progress.show_for_ever))
        if self._link.begin(run, runner) is not None:
            self._greenlets.append(gevent.spawn(self._search))
        if self._ends_itself():
            gevent.spawn(self._end_when_over, run)

    def _plan(self, resolved: Resolved) -> Plan:
        started_s = time.monotonic()
        plan = plan_of(resolved)
        self._planning_s = time.monotonic() - started_s
        return plan

    def _lead_s(self) -> float:
        """Return the time from the order to the zero of the run's axis.

        Each process then goes through the schedule as planning did: with a long trace that takes a while.
        """
        lead_s = LEAD_WORKERS_S if isinstance(self._environment.runner, MasterRunner) else LEAD_ALONE_S
        return lead_s + 2 * self._planning_s

    def _ends_itself(self) -> bool:
        """Whether a run is ended here and not by Locust's limit on its time.

        That limit counts from before the run has begun. And a headless master then gives its workers half a
        second and hears no more of them: what they count while calls in flight come to their end would be
        missing from Locust's tables.
        """
        return bool(_options(self._environment).headless)

    def _end_when_over(self, run: Run) -> None:
        gevent.sleep(max(0.0, run.resolved.scenario.duration_s + SPARE_S - run.now_s()))
        runner = self._environment.runner
        if runner is not None and self.run is run:
            self._end(runner)

    def _ensure_sandbox(self, resolved: Resolved) -> None:
        if self._sandbox is None:
            self._sandbox = start_if_absent(resolved.target)
            if self._sandbox is not None:
                logger.info("Started the sandbox at %s; it ends with this process", resolved.target.base_url)

    def _join(self, session: Session) -> None:
        self.session = session
        # What exists now lives as long as the run: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        session.audit.watch()
        self._greenlets = [
            gevent.spawn(self._each_second),
            gevent.spawn(session.stop_when_over),
        ]

    def _search(self) -> None:
        self._link.run()
        self._stop("the search is over")

    def _each_second(self) -> None:
        while True:
            gevent.sleep(1.0)
            self._second()

    def _second(self, never_sent: int = 0) -> None:
        session = self.session
        if session is None:
            return
        runner = self._environment.runner
        session.second(users=runner.user_count if runner else 0, never_sent=never_sent)
        if self.run is not None:
            self.run.live.add(session.worker, [session.tick()])
        if session.purse.exhausted:
            self._budget_spent()

    def _budget_spent(self) -> None:
        runner = self._environment.runner
        if isinstance(runner, WorkerRunner):
            runner.send_message(BUDGET_MESSAGE, {})
        elif not self._link.searches:  # a search ends by itself, as it cannot go on with a part of its load
            self._stop("the budget is spent")

    def _on_worker_spent(self, msg: Any, **_: Any) -> None:
        self._spent.add(msg.node_id)
        if self.run is not None and not self._link.searches and self._spent >= set(self.run.workers):
            self._stop("the budget is spent")

    def _on_worker_tells(self, msg: Any, **_: Any) -> None:
        self.tell(str(msg.data["what"]))

    def tell(self, what: str) -> None:
        """Let who watches know what the run is about just now."""
        runner = self._environment.runner
        if self.run is not None:
            self.run.doing = what
        elif isinstance(runner, WorkerRunner):
            runner.send_message(DOING_MESSAGE, {"what": what})

    def finish(self, session: Session) -> None:
        """End the run before its time: what it was for has been done."""
        session.finished = True
        self._stop("done")

    def _stop(self, why: str) -> None:
        runner = self._environment.runner
        if runner is None or runner.state not in {STATE_SPAWNING, STATE_RUNNING}:
            return
        logger.warning("Stopping: %s", why)
        gevent.spawn(self._end, runner)

    def _end(self, runner: Runner) -> None:
        """Stop the users and hear their last words; where nobody watches a page, quit then."""
        runner.stop()
        if _options(self._environment).headless:
            runner.quit()

    def _reason(self, run: Run) -> str:
        exhausted = self.session is not None and self.session.purse.exhausted
        if self._spent or exhausted or self._link.ended == "budget":
            return "budget"
        if self._link.ended is not None or (self.session is not None and self.session.finished):
            return "completed"
        return "completed" if run.now_s() >= run.resolved.scenario.duration_s - 1.0 else "interrupted"

    def _finish(self, run: Run, reason: str) -> None:
        run.finish(reason)
        if not self._quitting and not _options(self._environment).headless:
            logger.info("%s", run.closing_words.strip())


PLUGIN = Plugin()


def current_session() -> Session | None:
    """Return this process's part in the run that goes on, if one does."""
    return PLUGIN.session


def _options(environment: Environment) -> Namespace:
    """Return the parsed command line, which a run that Locust's command started always has."""
    options: Namespace | None = environment.parsed_options
    if options is None:
        raise RuntimeError("bltybench.load works with Locust's command line, not as a library")
    return options
