"""``bltybench compare``: whether a candidate is better than, worse than, or the same as a base."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bltybench.errors import UserError
from bltybench.report.text import signed, with_unit
from bltybench.runs.folder import find_run

if TYPE_CHECKING:
    from bltybench.report.comparison.model import Comparison, Side

PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
STYLES = {"worse": "bold red", "better": "green", "same": "", "cannot tell": "dim"}


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
    allow_invalid: Annotated[
        bool, typer.Option("--allow-invalid", help="Also compare INVALID runs.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as a page to this file.")] = None,
    reports: Annotated[Path, typer.Option(help="Directory that contains the runs.")] = Path("reports"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Write only the comparison, as JSON, to stdout.")
    ] = False,
) -> None:
    """Compare runs: differences with intervals, and a verdict for each metric.

    Exits with 1 if a candidate is worse beyond the tolerance, and with 2 if the runs can't be compared.
    """
    from bltybench.metrics.compare import Tolerance, obstacles  # noqa: PLC0415 - pandas takes 1 s to import
    from bltybench.report.comparison.model import compare_sides  # noqa: PLC0415 - as above

    bounds = Tolerance(_percent(tolerance, "--tolerance"), _percent(tolerance_share, "--tolerance-share"))
    reference = _side(base, reports)
    others = [_side(candidate, reports) for candidate in candidates]
    for other in others:
        found = obstacles(reference.runs, other.runs, allow_invalid=allow_invalid)
        if found:
            more = f" (and {len(found) - 1} more reasons)" if len(found) > 1 else ""
            raise UserError(f"these runs can't be compared: {found[0]}{more}", remedy=_remedy(found[0]))
    result = compare_sides(reference, others, bounds)
    if html is not None:
        from bltybench.report.comparison.page import write_page  # noqa: PLC0415 - imports matplotlib

        try:
            write_page(html, result, reference, others)
        except OSError as error:
            raise UserError(f"can't be written: {error.strerror}", where=str(html)) from None
    if as_json:
        sys.stdout.write(result.to_json().decode())
    else:
        _show(result, html)
    if result.regressed:
        raise typer.Exit(1)


def _remedy(obstacle: str) -> str:
    if obstacle.endswith("named twice"):
        return "name each run once"
    repeat = "run the same scenario on both sides"
    return f"{repeat}, or use --allow-invalid" if "INVALID" in obstacle else repeat


def _side(argument: str, reports: Path) -> Side:
    from bltybench.metrics.analysis import load  # noqa: PLC0415 - as above
    from bltybench.metrics.outline import outline  # noqa: PLC0415 - as above
    from bltybench.report.comparison.model import Side  # noqa: PLC0415 - as above

    folders = [find_run(ref, reports) for ref in argument.split(",") if ref]
    if not folders:
        raise UserError("no such run", where=repr(argument), remedy="list the runs with `bltybench runs`")
    # One after another, to keep only the outline of each run in memory.
    runs = [outline(load(folder)) for folder in folders]
    label = runs[0].manifest.run_id
    return Side(label if len(runs) == 1 else f"{label} and {len(runs) - 1} more", runs)


def _percent(given: str, option: str) -> float:
    match = PERCENT.fullmatch(given.strip())
    if match is None:
        raise UserError("must be a percentage, such as 5%", where=f"{option} {given}")
    return float(match[1]) / 100


def _show(result: Comparison, html: Path | None) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    for candidate in result.candidates:
        console.print(Text(f"{candidate.side.label} against {result.base.label}"))
        table = Table(box=None, pad_edge=False)
        table.add_column("metric", no_wrap=True)
        for column in ("base", "candidate", "change", "95% interval"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("verdict")
        for row in candidate.changes:
            low, high = signed(row.low, row.kind), signed(row.high, row.kind)
            cells: Sequence[str] = [
                row.metric,
                with_unit(row.base, row.kind),
                with_unit(row.candidate, row.kind),
                signed(row.change, row.kind),
                low if row.low is None else f"{low} … {high}",
            ]
            why = f" ({row.why})" if row.why and row.low is None else ""
            table.add_row(*cells, Text(row.verdict + why, style=STYLES[row.verdict]))
        # Let a narrow terminal wrap the lines: shortened cells would hide what the numbers are about.
        console.width = max(console.width, Console(width=1000).measure(table).maximum)
        console.print(table)
        worse = candidate.named("worse")
        console.print(
            Text("WORSE", style="bold red") if worse else Text("NO REGRESSION SHOWN", style="bold green"),
            Text(", ".join(worse)),
        )
    if html is not None:
        console.print(Text(f"Page {html}"))
