"""``bltybench compare``: whether a candidate is better than, worse than, or the same as a base."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bltybench.errors import UserError
from bltybench.report.text import bounded, signed
from bltybench.runs.folder import RunFolder, find_run, write_atomically

if TYPE_CHECKING:
    from bltybench.metrics.outline import Outline
    from bltybench.report.comparison.model import ComparedSide, Comparison

PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
STYLES = {"worse": "bold red", "better": "green", "same": "", "not decided": "dim", "invalid": "yellow"}


def compare(  # noqa: PLR0917 - typer makes options of them
    base: Annotated[str, typer.Argument(help="A run, or comma-separated repeats of it.")],
    candidates: Annotated[
        list[str],
        typer.Argument(metavar="CANDIDATE…", help="Runs to compare with the base, in the same form."),
    ],
    tolerance: Annotated[
        str, typer.Option(help='Largest change in times and rates that counts as "same".')
    ] = "5%",
    tolerance_share: Annotated[
        str, typer.Option(help='Largest change in fractions that counts as "same", in percentage points.')
    ] = "1%",
    vary: Annotated[
        str,
        typer.Option(
            metavar="KEY,…",
            help="Keys of the scenario in which the runs must differ, and in nothing else: retry, model, …",
            show_default="target, model, seed, and duration_s may differ",
        ),
    ] = "",
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label", help="Name of a side, in their order. Give one per side.", show_default="what differs"
        ),
    ] = None,
    allow_invalid: Annotated[
        bool, typer.Option("--allow-invalid", help="Also judge what the load generator affected.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Let a comparison fail that is not decided or INVALID.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as a page to this file.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML to this file.")] = None,
    reports: Annotated[Path, typer.Option(help="Directory that contains the runs.")] = Path("reports"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Write only the comparison, as JSON, to stdout.")
    ] = False,
) -> None:
    """Compare runs: differences with intervals, and a verdict for each metric.

    Exits with 1 if a candidate is worse beyond the tolerance, and with 2 if the runs had different loads. If
    nothing is decided or a run is INVALID, exits with 0, with --strict with 1.
    """
    from bltybench.metrics.compare import Tolerance  # noqa: PLC0415 - pandas takes 1 s to import
    from bltybench.metrics.likeness import read_vary  # noqa: PLC0415 - as above
    from bltybench.report.comparison.labels import name_sides  # noqa: PLC0415 - as above
    from bltybench.report.comparison.model import compare_sides  # noqa: PLC0415 - as above

    bounds = Tolerance(_percent(tolerance, "--tolerance"), _percent(tolerance_share, "--tolerance-share"))
    varied = read_vary(vary)
    chosen = [_folders(side, reports) for side in (base, *candidates)]
    reference, *others = name_sides([_outlines(folders) for folders in chosen], labels)
    result = compare_sides(reference, others, bounds, vary=varied, allow_invalid=allow_invalid, strict=strict)
    _write(result, [reference, *others], [folders[0] for folders in chosen], html, junit)
    if as_json:
        sys.stdout.write(result.to_json().decode())
    else:
        _show(result, html)
    for candidate in result.candidates:
        if candidate.unlike:
            raise UserError(f"these runs can't be compared: {candidate.unlike}", remedy=candidate.remedy)
    if result.failed:
        raise typer.Exit(1)


def _write(
    result: Comparison,
    sides: Sequence[ComparedSide],
    first: Sequence[RunFolder],
    html: Path | None,
    junit: Path | None,
) -> None:
    """Write the files that were asked for. ``first`` has the first run of each side."""
    from bltybench.report.comparison.junit import junit as junit_xml  # noqa: PLC0415 - as above

    path = html
    try:
        if html is not None:
            from bltybench.report.comparison.page import write_page  # noqa: PLC0415 - imports matplotlib
            from bltybench.report.page.answer import answer_of  # noqa: PLC0415 - as above

            write_page(html, result, sides, [answer_of(folder).says for folder in first])
        if junit is not None:
            path = junit
            write_atomically(junit, junit_xml(result))
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(path)) from None


def _folders(argument: str, reports: Path) -> list[RunFolder]:
    folders = [find_run(ref, reports) for ref in argument.split(",") if ref]
    if not folders:
        raise UserError("no such run", where=repr(argument), remedy="list the runs with `bltybench runs`")
    return folders


def _outlines(folders: Sequence[RunFolder]) -> list[Outline]:
    from bltybench.metrics.analysis import load  # noqa: PLC0415 - as above
    from bltybench.metrics.outline import outline  # noqa: PLC0415 - as above

    # One after another, to keep only the outline of each run in memory.
    return [outline(load(folder)) for folder in folders]


def _percent(given: str, option: str) -> float:
    match = PERCENT.fullmatch(given.strip())
    if match is None:
        raise UserError("must be a percentage, such as 5%", where=f"{option} {given}")
    return float(match[1]) / 100


def _show(result: Comparison, html: Path | None) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    from bltybench.metrics.verdict import RunVerdict  # noqa: PLC0415 - as above
    from bltybench.report.comparison.model import value_of  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    for candidate in result.candidates:
        console.print(Text(result.title(candidate)))
        table = Table(box=None, pad_edge=False)
        table.add_column("metric", no_wrap=True)
        for column in ("base", "candidate", "change", "95% interval"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("verdict")
        for row in candidate.measured:
            low, high = signed(row.low, row.kind), signed(row.high, row.kind)
            table.add_row(
                row.metric,
                value_of(row.base, row.kind),
                value_of(row.candidate, row.kind),
                signed(row.change, row.kind),
                low if row.low is None else f"{low} … {high}",
                Text("not judged") if candidate.unlike else Text(row.verdict, style=STYLES[row.verdict]),
            )
        # Let a narrow terminal wrap the lines: shortened cells would hide what the numbers are about.
        console.width = max(console.width, Console(width=1000).measure(table).maximum)
        console.print(table)
        for reason, metrics in candidate.explanations().items():
            console.print(Text(bounded(f"{', '.join(metrics)}: {reason}", 600), style="dim"), soft_wrap=True)
        if candidate.unmeasured:
            console.print(Text(f"No values on either side: {', '.join(candidate.unmeasured)}", style="dim"))
        style = {RunVerdict.FAIL: "bold red", RunVerdict.PASS: "bold green"}.get(
            candidate.verdict, "bold yellow"
        )
        if candidate.verdict is RunVerdict.PASS and candidate.mostly_open:
            style = "bold yellow"
        console.print(
            Text(candidate.stamp, style=style), Text(candidate.answer(result.base.label)), soft_wrap=True
        )
    if html is not None:
        console.print(Text(f"Page {html}"))
