"""``bltybench report``: make the report of a run, and say by the exit code whether it passed."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bltybench.errors import UserError
from bltybench.runs.formats import read_formats

if TYPE_CHECKING:
    from bltybench.report import Summary
    from bltybench.runs.folder import RunFolder


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]…",
            help="Runs' folders, their ids or the beginnings of them. Several get an index page too.",
            show_default="newest",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT,…",
            help="Write these only: html, csv, json, junit, md, parquet, prom.",
            show_default="all but prom",
        ),
    ] = None,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="Execute the notebooks too.")] = False,
    reports: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("reports"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Write summary.json, and nothing else, to stdout.")
    ] = False,
) -> None:
    """Make the report of a run: report.html, summary.json, summary.md, junit.xml and the figures' data.

    Exits with 1 where a check of the scenario failed, with 2 where the report could not be made.
    """
    # Little of what is imported and made here is ever let go: looking for it at every turn only costs time.
    gc.set_threshold(100_000, 20, 100)
    from bltybench.report import build  # noqa: PLC0415 - pandas and matplotlib are slow to import
    from bltybench.runs.folder import find_run  # noqa: PLC0415

    chosen = read_formats(formats, "--format")
    folders = [find_run(run, reports) for run in runs] if runs else [find_run(None, reports)]
    if as_json and len(folders) > 1:
        raise UserError("--json is of one run", remedy="name one run, or leave --json out")
    made: list[tuple[RunFolder, Summary]] = []
    for folder in folders:
        summary = build(folder, notebooks=notebooks, formats=chosen)
        made.append((folder, summary))
        if "md" in chosen:
            _tell_github(summary)
        if as_json:
            sys.stdout.write(summary.to_json().decode())
        else:
            _show(summary, folder, chosen, notebooks=notebooks)
    if len(made) > 1 and "html" in chosen:
        _write_index(made, reports)
    if not all(summary.passed for _, summary in made):
        raise typer.Exit(1)


def _tell_github(summary: Summary) -> None:
    """Add the Markdown summary to that of the CI job, where GitHub Actions asks for one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    from bltybench.report.export.markdown import markdown  # noqa: PLC0415

    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown(summary) + "\n")
    except OSError as error:
        # The report is made; that a job's page lacks it must not fail the job.
        print(f"bltybench: the step summary cannot be written: {error.strerror}", file=sys.stderr)


def _write_index(made: list[tuple[RunFolder, Summary]], reports: Path) -> None:
    from bltybench.report.page.index import index  # noqa: PLC0415
    from bltybench.runs.folder import write_atomically  # noqa: PLC0415

    path = reports / "index.html"
    try:
        write_atomically(path, index(made, reports).encode())
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from None
    print(f"Index {_near(path)}")


def _show(summary: Summary, folder: RunFolder, formats: Collection[str], *, notebooks: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.text import Text  # noqa: PLC0415

    from bltybench.report.text import count, with_unit  # noqa: PLC0415

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
            Text("PASS" if summary.passed else "FAIL", style=style), count(len(summary.checks), "check")
        )
    for check in summary.checks:
        mark = Text("  ✓" if check.passed else "  ✕", style="green" if check.passed else "red")
        note = f" ({check.note})" if check.note else ""
        was = with_unit(check.actual, check.unit)
        console.print(mark, Text(f"{check.metric} {check.target}, was {was}{note}"))
    if notebooks:
        console.print(Text(f"Notebooks {_near(folder.path / 'notebooks')}"))
    if "html" in formats:
        console.print(Text(f"Report {_near(folder.report_html)}"))
    else:
        console.print(Text(f"Written to {_near(folder.path)}"))


def _near(path: Path) -> str:
    """Return the path as seen from here, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
