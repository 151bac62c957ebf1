"""``bltybench runs``: list the runs, newest first."""

from pathlib import Path
from typing import Annotated

import typer

from bltybench.cli.run_line import RunLine, run_lines, to_json

MAX_WIDTH = 1000
"""Width at which a table is measured, in characters: more than any table needs."""


def runs(
    reports: Annotated[Path, typer.Option(help="Directory that contains the runs.")] = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Write only the list, as JSON, to stdout.")] = False,
) -> None:
    """List the runs, newest first."""
    lines = run_lines(reports)
    if as_json:
        print(to_json(lines))
    elif lines:
        _show(lines)
    else:
        print(f"No runs in {reports.absolute()}.")
        print("Start one: locust -f locustfiles/mixed.py --headless")


def _show(lines: list[RunLine]) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

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
    # Let a narrow terminal wrap the lines: shortened columns would cut the ids, which users copy.
    console.width = max(console.width, Console(width=MAX_WIDTH).measure(table).maximum)
    console.print(table)
