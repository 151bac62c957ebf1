"""``bltybench check``: test whether an API behaves as the reference says."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bltybench.check.finding import CheckFinding, Checkup

MARKS = {
    "holds": ("✓", "green"),
    "broken": ("✗", "bold red"),
    "unclear": ("?", "yellow"),
    "skipped": ("–", "dim"),
}


def check(
    target: Annotated[str, typer.Option(help="Target name in scenarios.toml.")] = "sandbox",
    scenario_file: Annotated[
        Path | None, typer.Option(help="Path of scenarios.toml. Default: ./scenarios.toml if it exists.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model to test. Default: the one in a scenario for this "
            "target, else the first the API lists."
        ),
    ] = None,
    spend_429: Annotated[
        bool | None,
        typer.Option(
            "--spend-429/--no-spend-429",
            help="Exhaust the documented request limit to provoke a 429, and wait as it says. "
            "Default: on the sandbox only.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the findings, as JSON.")] = False,
) -> None:
    """Check an API against the reference: models, completions, streams, errors, and rate limits.

    Prints the maximum spend first. Exit code 0: nothing is broken; 1: something is; 2: the check could not
    run.
    """
    from bltybench.check.run import check as run_check  # noqa: PLC0415 - httpx: only where it is needed
    from bltybench.scenario.file.scenario_file import load_book  # noqa: PLC0415

    book = load_book(scenario_file)
    models = (scenario.model for scenario in book.scenarios.values() if scenario.target == target)
    checkup = run_check(
        target,
        book.target(target),
        model=model,
        usual_model=next(models, None),
        spend_429=spend_429,
        tell=lambda line: print(line, file=sys.stderr),
    )
    if as_json:
        print(checkup.to_json())
    else:
        _show(checkup)
    if not checkup.passed:
        raise typer.Exit(1)


def _show(checkup: Checkup) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold")
    group = None
    for finding in checkup.findings:
        if finding.group != group:
            group = finding.group
            table.add_row("", Text(group, style="bold"), "")
        mark, style = MARKS[finding.status]
        # Text, not str: server text is never interpreted as markup.
        table.add_row(Text(mark, style=style), Text(finding.name), Text(_line(finding)))
    counts = checkup.counts
    console = Console(highlight=False)
    console.print(table)
    total = (
        f"\n{counts['holds']} hold, {counts['broken']} broken, {counts['unclear']} unclear, "
        f"{counts['skipped']} skipped ({checkup.target}, {checkup.model}, {checkup.requests_sent} requests)"
    )
    console.print(Text(total, style="bold"))


def _line(finding: CheckFinding) -> str:
    if finding.status != "broken":
        return finding.observed
    lines = [finding.observed, f"expected: {finding.expected}"]
    if finding.remedy:
        lines.append(f"→ {finding.remedy}")
    return "\n".join(lines)
