"""``bltybench report``: write the report of a run; the exit code says whether its checks passed."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bltybench.errors import UserError
from bltybench.report.text import bounded, count, with_unit
from bltybench.runs.folder import find_run, write_atomically
from bltybench.runs.formats import read_formats

if TYPE_CHECKING:
    from rich.console import Console

    from bltybench.metrics.policy_choice import TournamentResult
    from bltybench.report.summary import Summary
    from bltybench.runs.folder import RunFolder


def report(  # noqa: PLR0917 - typer makes options of them
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]…",
            help="Directories or ids of runs, or starts of ids. Several runs also get an index page.",
            show_default="newest",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT,…",
            help="Formats to write: html, csv, json, junit, md, parquet, prom.",
            show_default="all but prom",
        ),
    ] = None,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="Also execute the notebooks.")] = False,
    reports: Annotated[Path, typer.Option(help="Directory that contains the runs.")] = Path("reports"),
    strict: Annotated[
        bool, typer.Option("--strict", help="Let a run fail that is INVALID or not decided.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write only summary.json to stdout.")] = False,
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Add the records that a worker kept because its master was gone. Can be repeated.",
        ),
    ] = None,
) -> None:
    """Write the report of a run: report.html, summary.json, summary.md, junit.xml, and the figures' data.

    Exits with 1 if a check of the scenario failed, if nothing succeeded, or if the run lost a worker. A run
    that is not decided or INVALID exits with 0, with --strict with 1. Exits with 2 if the report can't be
    written.
    """
    from bltybench.report.build import build  # noqa: PLC0415 - pandas takes 1 s to import

    chosen = read_formats(formats, "--format")
    folders = [find_run(run, reports) for run in runs] if runs else [find_run(None, reports)]
    if as_json and len(folders) > 1:
        raise UserError("--json supports one run only", remedy="pass one run, or omit --json")
    if merge:
        _merge(folders, merge)
    built: list[tuple[RunFolder, Summary]] = []
    for folder in folders:
        summary = build(folder, notebooks=notebooks, formats=chosen, strict=strict)
        built.append((folder, summary))
        if "md" in chosen:
            _add_step_summary(summary)
        if as_json:
            sys.stdout.write(summary.to_json().decode())
        else:
            _show(summary, folder, chosen, notebooks=notebooks)
    if len(built) > 1 and "html" in chosen:
        _write_index(built, reports)
    if any(summary.failed for _, summary in built):
        raise typer.Exit(1)


def _merge(folders: list[RunFolder], directories: list[Path]) -> None:
    from bltybench.runs.sealing.merge import merge  # noqa: PLC0415 - as above

    if len(folders) > 1:
        raise UserError("--merge supports one run only", remedy="name one run")
    for directory in directories:
        done = merge(folders[0], directory)
        print(f"Merged worker {done.worker}: {done.added:,} attempts added", file=sys.stderr)


MAX_SHOWN_MESSAGES = 3
"""Messages of refusals, and of errors, that the terminal shows."""


def _add_step_summary(summary: Summary) -> None:
    """Append the Markdown summary to that of the CI job, if this is GitHub Actions."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    from bltybench.report.export.markdown import markdown  # noqa: PLC0415 - as above

    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown(summary) + "\n")
    except OSError as error:
        # The report is complete, so a missing step summary must not fail the job.
        print(f"bltybench: can't write the step summary: {error.strerror}", file=sys.stderr)


def _write_index(built: list[tuple[RunFolder, Summary]], reports: Path) -> None:
    from bltybench.report.page.index import index  # noqa: PLC0415 - imports matplotlib, for several runs only

    path = reports / "index.html"
    write_atomically(path, index(built, reports).encode())
    print(f"Index {_short(path)}")


def _show(summary: Summary, folder: RunFolder, formats: Collection[str], *, notebooks: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.text import Text  # noqa: PLC0415 - as above

    from bltybench.metrics.verdict import ALL_CUT_OFF, RunVerdict  # noqa: PLC0415 - as above

    console = Console(highlight=False, soft_wrap=True)
    _show_validity(console, summary)
    if summary.failure:
        console.print(Text("NOTHING SUCCEEDED", style="bold red"), Text(bounded(summary.failure, 400)))
    if summary.result is not None and summary.result is not RunVerdict.NOTHING_SUCCEEDED:
        style = {RunVerdict.PASS: "bold green", RunVerdict.FAIL: "bold red"}.get(
            summary.result, "bold yellow"
        )
        about = ALL_CUT_OFF if summary.result is RunVerdict.NOT_DECIDED else ""
        about = count(len(summary.checks), "check") if summary.checks else about
        console.print(Text(summary.result.upper(), style=style), about)
    for check in summary.checks:
        sign, color = {RunVerdict.PASS: ("✓", "green"), RunVerdict.FAIL: ("✕", "red")}.get(
            check.verdict, ("?", "yellow")
        )
        mark = Text(f"  {sign}", style=color)
        note = f" ({check.note})" if check.note else ""
        was = with_unit(check.actual, check.unit)
        console.print(mark, Text(f"{check.metric} {check.target}, was {was}{note}"))
    if summary.tournament is not None:
        _show_standings(console, summary.tournament)
    for title, rows in (("refused", summary.refusal_messages), ("errors", summary.errors)):
        for row in rows[:MAX_SHOWN_MESSAGES]:
            kind = " ".join(str(row[key]) for key in ("status", "error_type", "error_code") if row[key])
            console.print(
                Text(bounded(f"  {title}: {row['count']:,} × {kind}: {row['sample'] or row['outcome']}"))
            )
    if notebooks:
        console.print(Text(f"Notebooks {_short(folder.path / 'notebooks')}"))
    if "html" in formats:
        console.print(Text(f"Report {_short(folder.report_html)}"))
    else:
        console.print(Text(f"Written to {_short(folder.path)}"))


def _show_standings(console: Console, result: TournamentResult) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    from bltybench.report.standings import STANDING_COLUMNS, standing_rows  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False)
    for column in STANDING_COLUMNS:
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for row in standing_rows(result):
        table.add_row(*row)
    # Let a narrow terminal wrap the lines: shortened cells would hide what the numbers are about.
    wide = Console(highlight=False, width=max(console.width, Console(width=1000).measure(table).maximum))
    wide.print(table)
    console.print(Text(result.recommendation, style="bold"))


def _show_validity(console: Console, summary: Summary) -> None:
    from rich.text import Text  # noqa: PLC0415 - not needed for --json

    from bltybench.metrics import grading  # noqa: PLC0415 - as above

    source = summary.imported
    if not summary.valid:
        wrong = grading.affected(summary.audit)
        console.print(Text(grading.stamp(wrong), style="bold red"), grading.sentence(wrong))
        for reason in summary.invalid_reasons:
            console.print(Text(f"  {reason}"))
    elif source is None:
        console.print(Text("VALID", style="bold green"), "the load generator was not the bottleneck")
    if source is not None:
        console.print(Text("IMPORTED", style="bold"), f"{count(source.rows, 'request')} of a log. It lacks:")
        for line in source.lacks:
            console.print(Text(f"  {bounded(line, 400)}"))


def _short(path: Path) -> str:
    """Return the path, relative to the current directory if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
