"""``bltybench runs``: what has been run, newest first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bltybench.cli.run_line import RunLine

MAX_WIDTH = 1000


def runs(
    reports: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("reports"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the list as JSON, and nothing else, to stdout.")
    ] = False,
) -> None:
    """List the runs, newest first."""
    from bltybench.cli.run_line import run_lines, to_json  # noqa: PLC0415 - reads manifests: only where needed

    lines = run_lines(reports)
    if as_json:
        print(to_json(lines))
    elif lines:
        _show(lines)
    else:
        print(f"No runs in {reports.absolute()}.")
        print("Make one: locust -f locustfiles/mixed.py --headless")


def _show(lines: list[RunLine]) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in ("run", "scenario", "target", "started (UTC)"):
        table.add_column(column, no_wrap=True)
    for column in ("duration", "attempts", "accepted", "refused"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for line in lines:
        cells: list[str | int | None] = [line.run, line.scenario, line.target, line.started_text()]
        cells += [line.duration_text(), line.attempts, line.accepted, line.refused]
        result = Text(line.problem, style="red") if line.problem else Text(line.result_text())
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in cells), result)
    console = Console(highlight=False)
    # A narrow terminal folds the lines; cutting the columns would hide the ids, which are there to be copied.
    console.width = max(console.width, Console(width=MAX_WIDTH).measure(table).maximum)
    console.print(table)
