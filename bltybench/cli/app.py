"""The commands. A command's module is imported only if the command runs or its help is shown."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import bltybench

MODULES = {
    name: name
    for name in ("check", "sandbox", "report", "limits", "advise", "simulate", "compare", "runs", "init")
} | {"import": "import_logs"}
"""The module of each command, which has a function of the same name, in the order of the help."""
MARKUP: Final = "markdown"
"""How help texts are written."""


class _Commands(Mapping[str, Any]):
    """The commands by name."""

    def __getitem__(self, name: str) -> Any:
        module = MODULES[name]
        command = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
        command.command(name)(getattr(import_module(f"bltybench.cli.{module}"), module))
        return typer.main.get_command(command)

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


class _Group(TyperGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands()  # type: ignore[assignment]  # nothing adds commands to it


app = typer.Typer(
    name="bltybench",
    cls=_Group,
    help="Load tests and rate-limit measurements for OpenAI-compatible chat APIs.",
    epilog="Locust generates the load: `locust -f locustfiles/mixed.py --headless`. "
    "Exit codes: 0 success, 1 a check failed, 2 could not run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=MARKUP,
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
