"""Preparing a run in the process that owns it: options, plan, sandbox, and the run's directory."""

import logging
import math
import time
from pathlib import Path

from locust.env import Environment
from locust.runners import MasterRunner

from bltybench.load.locust_plugin.console import announce
from bltybench.load.locust_plugin.form import chosen
from bltybench.load.locust_plugin.options import (
    RUN_TIME_MARGIN_S,
    Role,
    parsed_options,
    report_formats,
    role_of,
    say_who_can_connect,
)
from bltybench.load.locust_plugin.user_classes import UserClasses
from bltybench.load.run.former_run import with_former_run
from bltybench.load.run.run import DRAIN_S, Run
from bltybench.runs.folder import make_reports
from bltybench.sandbox.process import SandboxProcess, start_if_absent
from bltybench.scenario.faults import SandboxFaults
from bltybench.scenario.file.own_load import closed_loop, own_scenario
from bltybench.scenario.file.resolve import Resolved, require_budget, resolve
from bltybench.scenario.file.scenario_file import Book, load_book
from bltybench.scenario.plan import Plan, make_plan
from bltybench.scenario.workload import NO_TIME_LIMIT_S

logger = logging.getLogger("bltybench")

LEAD_ALONE_S = 0.3
LEAD_WORKERS_S = 0.5
"""Seconds from when all processes are ready to the zero of the run's axis: time to wake their users."""
PREPARE_ALONE_S = 0.3
PREPARE_WORKERS_S = 2.0
"""Seconds that preparing usually takes, of the time limit in the web page."""


class Launcher:
    """Creates the runs of the master, or of the only process."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._options = parsed_options(environment)
        self._role = role_of(self._options)
        self._duration_s = float(self._options.run_time) if self._options.run_time else None
        self._planning_s = 0.0
        self._sandbox: SandboxProcess | None = None
        # Defaults shown in the web page's form. Unchanged, they are not the user's choice.
        self._default_run_time: int | None = None
        self._default_host: str | None = None

    @property
    def lead_s(self) -> float:
        """Seconds from the moment when all processes are ready to the zero of the run's axis."""
        return LEAD_WORKERS_S if self._role is Role.MASTER else LEAD_ALONE_S

    @property
    def prepare_s(self) -> float:
        """Seconds that Locust's own limit on the run's time includes for preparing."""
        usual_s = PREPARE_WORKERS_S if self._role is Role.MASTER else PREPARE_ALONE_S
        return usual_s + 2 * self._planning_s

    def check(self) -> None:
        """Check the options and the scenario, and fill in the scenario's values. Raises UserError."""
        environment, options = self._environment, self._options
        resolved, _ = self._resolve(options.num_users)
        report_formats(options)
        scenario = resolved.scenario
        if options.num_users is None:
            options.num_users = scenario.users
        if options.spawn_rate is None:
            options.spawn_rate = scenario.spawn_rate or float(options.num_users)
        if options.headless:
            self._ensure_sandbox(resolved)
            # The progress line replaces Locust's periodic table. The table is still printed at the end.
            options.only_summary = True
            if environment.shape_class is None:  # a load shape may read it
                options.run_time = None
                if scenario.has_time_limit:
                    logging.getLogger("locust.main").addFilter(_not_about_a_missing_limit)
        elif scenario.has_time_limit:
            options.run_time = math.ceil(scenario.duration_s + self.prepare_s) + RUN_TIME_MARGIN_S
        self._default_run_time = options.run_time
        # Locust gives this host to all classes, so it would replace that of an HttpUser.
        if environment.host is None and not any(cls.host for cls in self._classes().unrecorded):
            environment.host = self._default_host = resolved.target.base_url
        if not environment.stop_timeout:
            environment.stop_timeout = DRAIN_S
        say_who_can_connect(options)

    def create_run(self) -> Run:
        """Create a run from the current options, and log what it will send. Raises UserError."""
        environment, options, runner = self._environment, self._options, self._environment.runner
        workers: list[str] = []
        if isinstance(runner, MasterRunner):
            # Before anything lets a further worker connect. Locust distributes users in this order, so the
            # first users get the first numbers.
            clients = runner.clients
            workers = sorted(client.id for client in clients.ready + clients.spawning + clients.running)
        options.host = None if environment.host == self._default_host else environment.host
        if environment.shape_class is None and options.run_time != self._default_run_time:
            # Changed in the web page. Locust stops the run by it, so the load gets the rest of that time.
            self._duration_s = max(1.0, options.run_time - self.prepare_s) if options.run_time else None
        resolved, plan = self._resolve(runner.target_user_count if runner else None)
        self._ensure_sandbox(resolved)
        if not options.no_preflight:
            make_reports(Path(options.reports))
            self._test_target(resolved, plan)
        shape = environment.shape_class
        run = Run(
            resolved,
            options.reports,
            workers,
            self._planning_s,
            report_formats(options),
            strict=options.strict,
            unrecorded=[cls.__name__ for cls in self._classes().unrecorded],
            load_test_shape=None if shape is None else type(shape).__name__,
        )
        announce(run, plan)
        return run

    def stop_sandbox(self) -> None:
        """Stop the sandbox if it was started here."""
        if self._sandbox is not None:
            self._sandbox.stop()

    def load_book(self) -> Book:
        """Return the scenario file. Raises UserError."""
        return load_book(Path(self._options.scenario_file) if self._options.scenario_file else None)

    def _classes(self) -> UserClasses:
        """Return the user classes, which can change in the web page."""
        return UserClasses(self._environment.user_classes)

    def _resolve(self, users: int | None) -> tuple[Resolved, Plan | None]:
        """Return the scenario and its plan; None if the user classes decide what is sent."""
        options, classes, shape = self._options, self._classes(), self._environment.shape_class
        book = self.load_book()
        target, named = chosen(options.target), chosen(options.scenario) or classes.scenario
        if classes.replays:
            name = named or book.default_scenario
            scenario = book.scenario(name)
        else:
            name, scenario = own_scenario(book, named, target, classes.docstrings)
        duration_s = self._duration_s
        if shape is not None:
            # It decides how many users there are, and when the run ends.
            scenario, duration_s = closed_loop(scenario), NO_TIME_LIMIT_S
        resolved = resolve(
            book.model_copy(update={"scenarios": book.scenarios | {name: scenario}}),
            scenario=name,
            target=target,
            users=users,
            duration_s=duration_s,
            base_url=options.host or classes.host,
        )
        require_budget(resolved.target_name, resolved.target)
        resolved = with_former_run(resolved, Path(options.reports))
        resolved.target.access(resolved.target_name)
        if not classes.replays:
            return resolved, None
        started_s = time.monotonic()
        plan = make_plan(
            resolved.name, resolved.scenario, resolved.target_name, resolved.target, resolved.base_dir
        )
        # The first plan takes the longest: it reads files, and each worker does that too.
        self._planning_s = max(self._planning_s, time.monotonic() - started_s)
        return resolved, plan

    def _test_target(self, resolved: Resolved, plan: Plan | None) -> None:
        """Send the preflight, which can need one answer if the plan leaves room for it in the budget.

        Raise UserError if the load would fail.
        """
        # httpx takes 0.2 s to import, and workers don't need it.
        from bltybench.load.preflight import Subject, answer_tokens, preflight  # noqa: PLC0415

        if resolved.target.sandbox is not None and resolved.target.sandbox.faults != SandboxFaults():
            return  # it fails on purpose
        target, model = resolved.target, resolved.scenario.model if plan is not None else None
        can_answer = plan is not None and plan.leaves(target, requests=1, tokens=answer_tokens(target))
        subject = Subject(
            name=resolved.target_name,
            target=target,
            model=model,
            can_request=not self._classes().measure_limits,
            can_answer=can_answer,
        )
        logger.info("Preflight: %s", preflight(subject))

    def _ensure_sandbox(self, resolved: Resolved) -> None:
        if self._sandbox is None:
            self._sandbox = start_if_absent(resolved.target)
            if self._sandbox is not None:
                logger.info("Started the sandbox at %s; it ends with this process", resolved.target.base_url)


def _not_about_a_missing_limit(entry: logging.LogRecord) -> bool:
    """Drop Locust's message that a run has no time limit, because bltybench ends it instead."""
    return not entry.getMessage().startswith("No run time limit set")
