"""The options that bltybench adds to Locust's command line, and those it reads from it."""

import logging
from argparse import Namespace
from enum import Enum, auto

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from bltybench.runs.folder import REPORTS
from bltybench.runs.formats import FORMATS, read_formats

logger = logging.getLogger("bltybench")

REPORT_FORMAT = "--report-format"
LOOPBACK = "127.0.0.1"
"""Default address of Locust's web page, and of its master for workers. Locust's own are all interfaces, but
these processes hold the API key, and neither asks for a password."""
RUN_TIME_MARGIN_S = 1
"""Seconds by which Locust's own limit on the run's time, which is inexact, exceeds ours."""


class Role(Enum):
    """A process's part in runs, which never changes."""

    STANDALONE = auto()
    MASTER = auto()
    WORKER = auto()


def role_of(options: Namespace) -> Role:
    """Return the role that the process was started for.

    Locust sets these options for --processes, too. Its ``environment.runner`` is no substitute: while a
    worker connects, there is none, but the worker can already receive a run.
    """
    if options.worker:
        return Role.WORKER
    return Role.MASTER if options.master else Role.STANDALONE


def add_arguments(parser: LocustArgumentParser) -> None:
    """Add bltybench's options to Locust's. Each can also be set in the environment, as BLTYBENCH_NAME."""

    def add(name: str, help_text: str, default: str = "") -> None:
        parser.add_argument(
            name,
            env_var="BLTYBENCH_" + name.removeprefix("--").replace("-", "_").upper(),
            default=default,
            include_in_web_ui=name in {"--scenario", "--target"},
            help=help_text,
        )

    formats = ", ".join(FORMATS)
    add(
        "--scenario", "Scenario in scenarios.toml to run. Default: the locustfile's, else the file's default."
    )
    add("--target", "Target in scenarios.toml to send to. Default: the scenario's, else the sandbox.")
    add("--scenario-file", "Scenario file to read. Default: ./scenarios.toml")
    add("--label", "Name of the run in comparisons. Default: what differs between the runs")
    add("--reports", "Directory for run output. Default: reports", default=str(REPORTS))
    # Locust's default is 1. Without the option, only the scenario's checks decide (``Plugin.on_init``).
    parser.set_defaults(exit_code_on_error=None)
    parser.set_defaults(web_host=LOOPBACK, master_bind_host=LOOPBACK)
    parser.add_argument(
        "--strict",
        action="store_true",
        env_var="BLTYBENCH_STRICT",
        include_in_web_ui=False,
        help="Exit with 1 if a check is not decided or the run is INVALID",
    )
    parser.add_argument(
        "--no-preflight",
        action="store_true",
        env_var="BLTYBENCH_NO_PREFLIGHT",
        include_in_web_ui=False,
        help="Send the load without testing the target's address, key, and model first",
    )
    add(REPORT_FORMAT, f"Comma-separated report formats to write: {formats}. Default: all but prom")


def parsed_options(environment: Environment) -> Namespace:
    """Return the parsed command line, which every run that Locust's command starts has."""
    options: Namespace | None = environment.parsed_options
    if options is None:
        raise RuntimeError("bltybench.load works with Locust's command line, not as a library")
    return options


def say_who_can_connect(options: Namespace) -> None:
    """Log how to reach the web page or the master from other machines, if they listen on this one only."""
    if options.web_host == LOOPBACK and not options.headless:
        logger.info("The web page accepts this machine only; --web-host='*' opens it to the network")
    # The workers of --processes are on this machine.
    if options.master_bind_host == LOOPBACK and options.master and not options.processes:
        logger.info("The master accepts workers of this machine only; --master-bind-host='*' accepts others")


def report_formats(options: Namespace) -> frozenset[str]:
    """Return the report formats to write. Raises UserError for unknown formats."""
    return read_formats(options.report_format or None, REPORT_FORMAT)
