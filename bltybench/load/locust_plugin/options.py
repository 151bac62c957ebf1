"""What bltybench adds to Locust's command line, and what it takes from it."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path

from locust.argument_parser import LocustArgumentParser
from locust.user.users import User

from bltybench.errors import UserError
from bltybench.load.run.former_run import with_former_run
from bltybench.runs.folder import REPORTS
from bltybench.runs.formats import FORMATS, read_formats
from bltybench.scenario.file.resolve import Resolved, require_budget, resolve
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.plan import Plan, make_plan

DRAIN_S = 30.0
"""How long calls in flight may go on when a run ends, where Locust's --stop-timeout says nothing else."""


def add_arguments(parser: LocustArgumentParser) -> None:
    """Add our options to Locust's."""
    parser.add_argument(
        "--scenario",
        env_var="BLTYBENCH_SCENARIO",
        default="",
        help="Scenario of scenarios.toml to replay. Default: the locustfile's own, else the file's default.",
    )
    parser.add_argument(
        "--target",
        env_var="BLTYBENCH_TARGET",
        default="",
        help="Target of scenarios.toml to send to. Default: the scenario's, which is the sandbox.",
    )
    parser.add_argument(
        "--scenario-file",
        env_var="BLTYBENCH_SCENARIO_FILE",
        default="",
        include_in_web_ui=False,
        help="The file to read instead of ./scenarios.toml.",
    )
    parser.add_argument(
        "--reports",
        env_var="BLTYBENCH_REPORTS",
        default=str(REPORTS),
        include_in_web_ui=False,
        help="Folder in which runs are stored. Default: reports",
    )
    parser.add_argument(
        REPORT_FORMAT,
        env_var="BLTYBENCH_REPORT_FORMAT",
        default="",
        include_in_web_ui=False,
        help=f"Make these only of a run's report, with commas between: {', '.join(FORMATS)}. "
        "Default: all but prom",
    )


REPORT_FORMAT = "--report-format"

SPARE_S = 1
"""Locust's own limit on the run's time lies this much behind ours, which is exact."""


def resolve_options(
    options: Namespace, user_classes: list[type[User]], users: int | None, duration_s: float | None
) -> Resolved:
    """Return scenario and target as the command line, the locustfile and scenarios.toml say, in this order.

    Raises UserError for every mistake in them.
    """
    file = Path(options.scenario_file) if options.scenario_file else None
    resolved = resolve(
        load_book(file),
        scenario=options.scenario or _own_scenario(user_classes),
        target=options.target or None,
        users=users,
        duration_s=duration_s,
        base_url=options.host or None,
    )
    require_budget(resolved.target_name, resolved.target)
    return with_former_run(resolved, Path(options.reports))


def formats_of(options: Namespace) -> frozenset[str]:
    """Return what a run's report is to be made as. Raises UserError for formats that there are not."""
    return read_formats(options.report_format or None, REPORT_FORMAT)


def plan_of(resolved: Resolved) -> Plan:
    """Return what the run will send. Raises UserError where its trace or its budget does not allow it."""
    return make_plan(resolved.scenario, resolved.target_name, resolved.target, resolved.base_dir)


def _own_scenario(user_classes: list[type[User]]) -> str | None:
    """Return the scenario that the locustfile's classes stand for."""
    names = {name for cls in user_classes if (name := getattr(cls, "scenario", None))}
    if len(names) > 1:
        raise UserError(
            f"the user classes stand for different scenarios: {', '.join(sorted(names))}",
            remedy="choose one with --scenario",
        )
    return next(iter(names), None)


def fill_defaults(options: Namespace, resolved: Resolved, *, lead_s: float, ends_itself: bool) -> None:
    """Give Locust the scenario's values where its own options say nothing.

    A run begins ``lead_s`` after Locust starts it, so Locust's limit on its time is set to come later; where
    the run ``ends_itself`` there is none.
    """
    scenario = resolved.scenario
    if options.num_users is None:
        options.num_users = scenario.users
    if options.spawn_rate is None:
        options.spawn_rate = scenario.spawn_rate or float(options.num_users)
    options.run_time = None if ends_itself else math.ceil(scenario.duration_s + lead_s) + SPARE_S
    if options.headless:
        # The progress line takes the place of a table every second; the table is still printed at the end.
        options.only_summary = True
