"""``bltybench report``: make the report of a run, and say by the exit code whether it passed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bltybench.report import Summary
    from bltybench.runs.folder import RunFolder


def report(
    run: Annotated[
        str | None,
        typer.Argument(help="A run's folder, its id or the beginning of it.", show_default="newest"),
    ] = None,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="Execute the notebooks too.")] = False,
    reports: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("reports"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Write summary.json, and nothing else, to stdout.")
    ] = False,
) -> None:
    """Make the report of a run: report.html, summary.json, junit.xml and the figures' data.

    Exits with 1 where a check of the scenario failed, with 2 where the report could not be made.
    """
    from bltybench.report import build  # noqa: PLC0415 - pandas and matplotlib are slow to import
    from bltybench.runs.folder import find_run  # noqa: PLC0415

    folder = find_run(run, reports)
    summary = build(folder, notebooks=notebooks)
    if as_json:
        sys.stdout.write(summary.to_json().decode())
    else:
        _show(summary, folder, notebooks=notebooks)
    if not summary.passed:
        raise typer.Exit(1)


def _show(summary: Summary, folder: RunFolder, *, notebooks: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.text import Text  # noqa: PLC0415

    from bltybench.report.text import with_unit  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    if summary.valid:
        console.print(Text("VALID", style="bold green"), "the generator kept up")
    else:
        console.print(Text("INVALID", style="bold red"), "do not take these numbers for the server's")
        for reason in summary.invalid_reasons:
            console.print(Text(f"  {reason}"))
    if summary.checks:
        style = "bold green" if summary.passed else "bold red"
        console.print(
            Text("PASS" if summary.passed else "FAIL", style=style), f"{len(summary.checks)} checks"
        )
    for check in summary.checks:
        mark = Text("  ✓" if check.passed else "  ✕", style="green" if check.passed else "red")
        note = f" ({check.note})" if check.note else ""
        was = with_unit(check.actual, check.unit)
        console.print(mark, Text(f"{check.metric} {check.target}, was {was}{note}"))
    if notebooks:
        console.print(Text(f"Notebooks {_near(folder.path / 'notebooks')}"))
    console.print(Text(f"Report {_near(folder.report_html)}"))


def _near(path: Path) -> str:
    """Return the path as seen from here, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
