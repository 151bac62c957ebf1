"""Locust's own output files (--csv, --html, --json-file), written in its place.

If Locust can't write them, for example because the disk is full, it shows a traceback and can exit before
the run has its report.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import gevent
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.html import get_html_report, process_html_filename
from locust.stats import PERCENTILES_TO_REPORT, StatsCSVFileWriter, save_stats_json

from bltybench.errors import CANNOT_RUN, UserError, reason
from bltybench.load.locust_plugin.console import print_error
from bltybench.load.locust_plugin.options import Role, parsed_options, role_of

ENDINGS = {
    "csv_prefix": ("_stats.csv", "_stats_history.csv", "_failures.csv", "_exceptions.csv"),
    "html_file": ("",),
    "json_file": (".json",),
}
"""Locust's options that name files, and what Locust appends to their values."""


def check_paths(parser: LocustArgumentParser) -> None:
    """Let the command line refuse files that can't be written, because Locust opens some before ``init``."""
    for action in parser._actions:
        if action.dest in ENDINGS:
            action.type = _checked(action.option_strings[-1], ENDINGS[action.dest])


def _checked(option: str, endings: tuple[str, ...]) -> Callable[[str], str]:
    def check(value: str) -> str:
        try:
            for path in [Path(value + ending).absolute() for ending in endings if value]:
                if path.exists():
                    path.open("ab").close()
                # Missing directories are created later.
                folder = next(parent for parent in path.parents if parent.exists())
                TemporaryFile(dir=folder).close()
        except OSError as error:
            problem = UserError(
                f"can't be written: {reason(error)}",
                where=f"{option} {value}",
                remedy="name a file in a directory to which you have write access",
            )
            sys.exit(print_error(problem))
        return value

    return check


class OutputFiles:
    """The files that the command line requests of Locust.

    An error is one message. The run continues, and the process then exits with 2 instead of 0.
    """

    def __init__(self, environment: Environment) -> None:
        """Take the files over from Locust.

        Create this before other listeners to ``quitting``: the last listener is called first, and the files
        are to contain the end of the run.
        """
        self._environment = environment
        self._failed: set[str] = set()
        self._at_the_end: dict[str, Callable[[], None]] = {}
        """What to write when the process ends, by option and value."""
        options = self._options = parsed_options(environment)
        self._run_time = options.run_time  # the plugin removes it, because Locust would end the run
        self._csv_writer: gevent.Greenlet[..., None] | None = None
        if options.csv_prefix:
            name, history = f"--csv {options.csv_prefix}", options.stats_history_enabled
            csv = StatsCSVFileWriter(environment, PERCENTILES_TO_REPORT, options.csv_prefix, history)
            self._csv_writer = gevent.spawn(self._attempt, name, csv.stats_writer)
            self._at_the_end[name] = partial(_close, csv)
        if options.html_file:
            self._at_the_end[f"--html {options.html_file}"] = partial(self._write_html, options.html_file)
        # Forked workers inherit this option from their master, and would replace its file.
        if options.json_file and role_of(options) is not Role.WORKER:
            self._at_the_end[f"--json-file {options.json_file}"] = partial(
                self._write_json, options.json_file
            )
        options.csv_prefix = options.html_file = options.json_file = None
        environment.events.quitting.add_listener(self._finish)

    def _finish(self, **_: Any) -> None:
        if self._csv_writer is not None:
            self._csv_writer.kill()
        for name, write in self._at_the_end.items():
            self._attempt(name, write)
        if self._failed and not self._environment.process_exit_code:
            self._environment.process_exit_code = CANNOT_RUN

    def _attempt(self, name: str, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if name not in self._failed:
                self._failed.add(name)
                remedy = "its content is lost; the run's records and report are other files"
                print_error(UserError(f"can't be written: {reason(error)}", where=name, remedy=remedy))

    def _write_html(self, file: str) -> None:
        text = get_html_report(self._environment, show_download_link=False)
        options = vars(self._options) | {"html_file": file, "run_time": self._run_time}
        process_html_filename(named := Namespace(**options))
        path = Path(named.html_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _write_json(self, file: str) -> None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        save_stats_json(self._environment.stats, file)


def _close(csv: StatsCSVFileWriter) -> None:
    """Close all four files, whichever of them fails."""
    with ExitStack() as files:
        files.callback(csv.requests_csv_filehandle.close)
        files.callback(csv.stats_history_csv_filehandle.close)
        files.callback(csv.failures_csv_filehandle.close)
        files.callback(csv.exceptions_csv_filehandle.close)
