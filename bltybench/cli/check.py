"""``bltybench check``: does the API behave as the reference says?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bltybench.check.finding import CheckFinding, Checkup

MARKS = {
    "holds": ("✓", "green"),
    "broken": ("✗", "bold red"),
    "unclear": ("?", "yellow"),
    "skipped": ("–", "dim"),
}


def check(
    target: Annotated[str, typer.Option(help="Name of the target in scenarios.toml.")] = "sandbox",
    scenario_file: Annotated[
        Path | None, typer.Option(help="The scenarios.toml to use; ./scenarios.toml if there is one.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to ask; else that of a scenario of this target, else the first.")
    ] = None,
    spend_429: Annotated[
        bool | None,
        typer.Option(
            "--spend-429/--no-spend-429",
            help="Spend the documented limit on requests to see a 429, and wait as it says. "
            "Without either: on the sandbox only.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the findings as JSON, and nothing else, to stdout.")
    ] = False,
) -> None:
    """Check an API against the reference: models, completions, streams, errors, rate limits.

    Says first how much it will send at most. Exit code 0 if nothing is broken, 1 if something is, 2 if the
    check could not run.
    """
    from bltybench.check.run import check as run_check  # noqa: PLC0415 - httpx: only where it is needed
    from bltybench.scenario.file.scenario_file import load_book  # noqa: PLC0415

    book = load_book(scenario_file)
    found = run_check(
        target,
        book.target(target),
        model=model,
        usual_model=next((each.model for each in book.scenarios.values() if each.target == target), None),
        spend_429=spend_429,
        tell=lambda line: print(line, file=sys.stderr),
    )
    if as_json:
        print(found.to_json())
    else:
        _show(found)
    if not found.passed:
        raise typer.Exit(1)


def _show(found: Checkup) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold")
    group = None
    for finding in found.findings:
        if finding.group != group:
            group = finding.group
            table.add_row("", Text(group, style="bold"), "")
        mark, style = MARKS[finding.status]
        # Text, not str: what a server said is never read as markup.
        table.add_row(Text(mark, style=style), Text(finding.name), Text(_line(finding)))
    counts = found.counts
    console = Console(highlight=False)
    console.print(table)
    console.print(
        Text(
            f"\n{counts['holds']} hold, {counts['broken']} broken, {counts['unclear']} unclear, "
            f"{counts['skipped']} skipped ({found.target}, {found.model}, {found.requests_sent} requests)",
            style="bold",
        )
    )


def _line(finding: CheckFinding) -> str:
    if finding.status != "broken":
        return finding.observed
    lines = [finding.observed, f"expected: {finding.expected}"]
    if finding.remedy:
        lines.append(f"→ {finding.remedy}")
    return "\n".join(lines)
