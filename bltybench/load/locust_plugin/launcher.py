"""Preparing a run in the process that owns it: options, plan, sandbox, and the run's directory."""

import logging
import math
import time
from pathlib import Path

from locust.env import Environment
from locust.runners import MasterRunner

from bltybench.load.client_policy import limits_to_keep
from bltybench.load.locust_plugin.console import announce
from bltybench.load.locust_plugin.form import DEFAULT, FormLists, FormValues, chosen, label
from bltybench.load.locust_plugin.options import (
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
from bltybench.scenario.file.resolve import Resolved, for_probe, require_budget, resolve
from bltybench.scenario.file.scenario_file import Book, load_book
from bltybench.scenario.plan import Plans, make_plans
from bltybench.scenario.workload import NO_TIME_LIMIT_S, Scenario

logger = logging.getLogger("bltybench")

LEAD_ALONE_S = 0.3
LEAD_WORKERS_S = 0.5
"""Seconds from when all processes are ready to the zero of the run's axis: time to wake their users."""
AUTOSTART_MARGIN_S = 10
"""Seconds by which Locust's own time limit exceeds ours with --autostart. It includes preparing."""


class Launcher:
    """Creates the runs of the master, or of the only process."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._options = parsed_options(environment)
        self._role = role_of(self._options)
        self._users: int | None = self._options.num_users
        self._spawn_rate: float | None = self._options.spawn_rate
        self._duration_s: float | None = self._options.run_time
        self._planning_s = 0.0
        self._sandboxes: list[SandboxProcess] = []
        # Values that were not entered in the web page's form, so they are not the user's choice.
        self._autostart_run_time: int | None = None
        self._default_host: str | None = None

    @property
    def lead_s(self) -> float:
        """Seconds from the moment when all processes are ready to the zero of the run's axis."""
        return LEAD_WORKERS_S if self._role is Role.MASTER else LEAD_ALONE_S

    def check(self) -> None:
        """Check the options and the scenario, and fill in the scenario's values. Raises UserError."""
        environment, options = self._environment, self._options
        resolved, _ = self._resolve(options.num_users)
        report_formats(options)
        values = self._form_values(resolved.scenario, resolved.target.base_url)
        options.num_users, options.spawn_rate = values.user_count, values.spawn_rate
        if options.headless:
            self._ensure_sandbox(resolved)
            # The progress line replaces Locust's periodic table. The table is still printed at the end.
            options.only_summary = True
            if environment.shape_class is None:  # a load shape may read it
                options.run_time = None
                if resolved.scenario.has_time_limit:
                    logging.getLogger("locust.main").addFilter(_not_about_a_missing_limit)
        else:
            options.run_time = values.run_time
            if options.autostart and options.run_time is not None:
                options.run_time = self._autostart_run_time = options.run_time + AUTOSTART_MARGIN_S
        # Locust gives this host to all classes, so it would replace that of an HttpUser.
        if environment.host is None and not any(cls.host for cls in self._classes().unrecorded):
            environment.host = self._default_host = resolved.target.base_url
        if not environment.stop_timeout:
            environment.stop_timeout = DRAIN_S
        say_who_can_connect(options)

    def form_lists(self) -> FormLists:
        """Return what the form of Locust's page offers. The command line's values hold for every scenario."""
        book, default = self.load_book(), self._classes().scenario
        # Another scenario file need not have the locustfile's scenario.
        defaults = (None,) if default is None or default in book.scenarios else ()
        scenarios = {}
        for choice in (*defaults, *book.scenarios):
            name, scenario = self._scenario(book, choice or default, None)
            text = label(name, scenario.title) if choice else label(DEFAULT, f"{name}, {scenario.title}")
            scenarios[text] = self._form_values(scenario, book.target(scenario.target).base_url)
        targets = {label(name, target.base_url): target.base_url for name, target in book.targets.items()}
        return FormLists(scenarios, {label(DEFAULT, "that of the scenario"): ""} | targets)

    def _form_values(self, scenario: Scenario, base_url: str) -> FormValues:
        users = self._users or scenario.users
        limited = self._duration_s is not None or scenario.has_time_limit
        return FormValues(
            user_count=users,
            spawn_rate=self._spawn_rate or scenario.spawn_rate or float(users),
            run_time=math.ceil(self._duration_s or scenario.duration_s) if limited else None,
            host="" if any(cls.host for cls in self._classes().unrecorded) else base_url,
        )

    def create_run(self) -> Run:
        """Create a run from the current options, and log what it will send. Raises UserError."""
        environment, options, runner = self._environment, self._options, self._environment.runner
        self._classes().require_tasks()
        workers: list[str] = []
        if isinstance(runner, MasterRunner):
            # Before anything lets a further worker connect. Locust distributes users in this order, so the
            # first users get the first numbers.
            clients = runner.clients
            workers = sorted(client.id for client in clients.ready + clients.spawning + clients.running)
        options.host = None if environment.host == self._default_host else environment.host
        resolved, plans = self._resolve(runner.target_user_count if runner else None)
        self._ensure_sandbox(resolved)
        if not options.no_preflight:
            make_reports(Path(options.reports))
            self._test_targets(resolved, plans)
        shape = environment.shape_class
        run = Run(
            resolved,
            options.reports,
            workers,
            self._planning_s,
            report_formats(options),
            strict=options.strict,
            label=options.label,
            unrecorded=[cls.__name__ for cls in self._classes().unrecorded],
            load_test_shape=None if shape is None else type(shape).__name__,
        )
        announce(run, plans)
        return run

    def stop_sandbox(self) -> None:
        """Stop the sandboxes that were started here."""
        for sandbox in self._sandboxes:
            sandbox.stop()

    def load_book(self) -> Book:
        """Return the scenario file. Raises UserError."""
        return load_book(Path(self._options.scenario_file) if self._options.scenario_file else None)

    def _classes(self) -> UserClasses:
        """Return the user classes, which can change in the web page."""
        return UserClasses(self._environment.user_classes)

    def _scenario(self, book: Book, named: str | None, target: str | None) -> tuple[str, Scenario]:
        """Return the scenario that is ``named``, or the default, for the locustfile's classes."""
        classes = self._classes()
        if not classes.replays:
            return own_scenario(book, named, target, classes.docstrings)
        name = named or book.default_scenario
        return name, book.scenario(name)

    def _resolve(self, users: int | None) -> tuple[Resolved, Plans | None]:
        """Return the scenario and its plan by target; None if the user classes decide what is sent."""
        options, classes, shape = self._options, self._classes(), self._environment.shape_class
        book = self.load_book()
        target, named = chosen(options.target), chosen(options.scenario) or classes.scenario
        name, scenario = self._scenario(book, named, target)
        duration_s = self._duration_s
        if shape is not None:
            # It decides how many users there are, and when the run ends.
            scenario, duration_s = closed_loop(scenario), NO_TIME_LIMIT_S
        elif not options.headless and options.run_time not in {
            self._form_values(scenario, "").run_time,
            self._autostart_run_time,
        }:
            duration_s = options.run_time
        resolved = resolve(
            book.model_copy(update={"scenarios": book.scenarios | {name: scenario}}),
            scenario=name,
            target=target,
            users=users,
            duration_s=duration_s,
            base_url=options.host or classes.host,
        )
        for target_name, api in resolved.targets.items():
            require_budget(target_name, api)
        resolved = with_former_run(resolved, Path(options.reports))
        if classes.measure_limits:
            resolved = for_probe(resolved)
        for target_name, api in resolved.targets.items():
            api.access(target_name)
        limits_to_keep(resolved.scenario, resolved.targets, resolved.base_dir)
        if not classes.replays:
            return resolved, None
        started_s = time.monotonic()
        plan = make_plans(resolved.name, resolved.scenario, resolved.targets, resolved.base_dir)
        # The first plan takes the longest: it reads files, and each worker does that too.
        self._planning_s = max(self._planning_s, time.monotonic() - started_s)
        return resolved, plan

    def _test_targets(self, resolved: Resolved, plans: Plans | None) -> None:
        """Send the preflight to each target, with at most one answer if the plan leaves room in its budget.

        Raise UserError if the load would fail.
        """
        # httpx takes 0.2 s to import, and workers don't need it.
        from bltybench.load.preflight import Subject, answer_tokens, preflight  # noqa: PLC0415

        for name, target in resolved.targets.items():
            if target.sandbox is not None and target.sandbox.faults != SandboxFaults():
                continue  # it fails on purpose
            plan = None if plans is None else plans[name]
            chosen = () if plans is None else resolved.scenario.models_on(name)
            models = [target.model_name(model) for model in chosen]
            count = max(1, len(models)) * max(1, len(target.key_names))
            can_answer = plan is not None and plan.leaves(
                target, requests=count, tokens=count * answer_tokens(target)
            )
            subject = Subject(
                name=name,
                target=target,
                models=models,
                can_request=not self._classes().measure_limits,
                can_answer=can_answer,
            )
            about = f" of target '{name}'" if resolved.others else ""
            logger.info("Preflight%s: %s", about, preflight(subject))

    def _ensure_sandbox(self, resolved: Resolved) -> None:
        for target in resolved.targets.values():
            sandbox = start_if_absent(target)
            if sandbox is not None:
                self._sandboxes.append(sandbox)
                logger.info("Started the sandbox at %s; it ends with this process", target.base_url)


def _not_about_a_missing_limit(entry: logging.LogRecord) -> bool:
    """Drop Locust's message that a run has no time limit, because bltybench ends it instead."""
    return not entry.getMessage().startswith("No run time limit set")
