"""The commands. Each imports heavy modules only when it runs."""

from typing import Annotated

import typer

import bltybench
from bltybench.cli.advise import advise
from bltybench.cli.check import check
from bltybench.cli.compare import compare
from bltybench.cli.import_logs import import_logs
from bltybench.cli.init import init
from bltybench.cli.limits import limits
from bltybench.cli.report import report
from bltybench.cli.runs import runs
from bltybench.cli.sandbox import sandbox
from bltybench.cli.simulate import simulate

app = typer.Typer(
    name="bltybench",
    help="Load tests and rate-limit measurements for OpenAI-compatible chat APIs.",
    epilog="Locust generates the load: `locust -f locustfiles/mixed.py --headless`. "
    "Exit codes: 0 success, 1 a check failed, 2 could not run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # A traceback with local variables would print keys.
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"bltybench {bltybench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version  # the callback prints the version


for verb in (check, sandbox, report, limits, advise, simulate, compare, runs, init):
    app.command()(verb)
app.command("import")(import_logs)
