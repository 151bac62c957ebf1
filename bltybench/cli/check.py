"""``bltybench check``: test whether an API behaves as the reference says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from bltybench.check.finding import CheckFinding, Checkup
from bltybench.errors import UserError
from bltybench.runs.folder import write_atomically
from bltybench.scenario.file.add_target import to_toml, with_target
from bltybench.scenario.file.scenario_file import DEFAULT_FILE

if TYPE_CHECKING:
    from bltybench.scenario.file.scenario_file import Book
    from bltybench.scenario.target import Target

COMPLETION = "a completion is made"
"""Finding without which a target is not written."""
WRITTEN_BUDGET = 200
"""Requests in the budget of a target that is written: runs against a remote target need one."""

MARKS = {
    "holds": ("✓", "green"),
    "broken": ("✗", "bold red"),
    "unclear": ("?", "yellow"),
    "skipped": ("–", "dim"),
}


def check(  # noqa: PLR0917 - typer makes options of them
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
    host: Annotated[
        str | None,
        typer.Option(help="base_url of an API that is not in scenarios.toml; name it with --target."),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="With --host: the environment variable that holds its key.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Add the target, and the keys that it needs, to scenarios.toml.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the findings, as JSON.")] = False,
) -> None:
    """Check an API against the reference: models, completions, streams, errors, and rate limits.

    Starts with what works, what does not, and which keys to set. Prints the maximum spend before it sends
    anything. Exit code 0: nothing is broken; 1: something is; 2: the check could not
    run.
    """
    from bltybench.check.run import check as run_check  # noqa: PLC0415 - httpx: only where it is needed
    from bltybench.scenario.file.scenario_file import load_book  # noqa: PLC0415

    book = load_book(scenario_file)
    chosen, new_keys = (book.target(target), {}) if host is None else _given(book, target, host, api_key_env)
    if host is None and api_key_env is not None:
        raise UserError("applies to --host only", where="--api-key-env", remedy="omit it")
    path = _writable(book, scenario_file) if write else None
    models = (one.models_on(target)[0] for one in book.scenarios.values() if target in one.target_names())
    checkup = run_check(
        target,
        chosen,
        model=model,
        usual_model=next(models, None),
        spend_429=spend_429,
        tell=lambda line: print(line, file=sys.stderr),
    )
    if as_json:
        print(checkup.to_json())
    else:
        _show(checkup)
    if path is not None:
        _write(path, checkup, new_keys)
    if not checkup.passed:
        raise typer.Exit(1)


def _given(book: Book, name: str, host: str, api_key_env: str | None) -> tuple[Target, dict[str, Any]]:
    """Return the target of --host, and its keys for scenarios.toml."""
    from bltybench.scenario.target import Target  # noqa: PLC0415 - fast --help

    keys: dict[str, Any] = {"base_url": host}
    if api_key_env is not None:
        keys["api_key_env"] = api_key_env
    if name in book.targets:
        raise UserError(
            f"target {name!r} is in the file already",
            where=str(book.path),
            remedy="choose another name with --target, or omit --host",
        )
    try:
        made = Target.model_validate(keys)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UserError(
            str(first["msg"]), where="--host", remedy="such as https://api.example.com/v1"
        ) from None
    return made, keys if made.is_local else keys | {"budget": {"requests": WRITTEN_BUDGET}}


def _writable(book: Book, scenario_file: Path | None) -> Path:
    """Return the path of the user's scenarios.toml."""
    if scenario_file is None and not DEFAULT_FILE.exists():
        raise UserError("no scenarios.toml here", where="--write", remedy="create one: bltybench init")
    return book.path


def _write(path: Path, checkup: Checkup, new_keys: dict[str, Any]) -> None:
    """Add the target and its keys to scenarios.toml."""
    keys = new_keys | checkup.keys
    where = f"[targets.{checkup.target}] of {path}"
    if not any(finding.name == COMPLETION and finding.status == "holds" for finding in checkup.findings):
        print(f"Not written to {path}: the API made no completion.", file=sys.stderr)
        return
    before = path.read_bytes().decode()
    after = with_target(before, checkup.target, keys, where=str(path))
    if after == before:
        print(f"{where} needs no more keys.", file=sys.stderr)
        return
    mode = path.stat().st_mode
    write_atomically(path.resolve(), after.encode())
    path.chmod(mode)
    print(f"Added to {where}: {', '.join(keys)}.", file=sys.stderr)


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
    for line in _first_lines(checkup):
        console.print(Text(line))
    console.print(table)
    total = (
        f"\n{counts['holds']} hold, {counts['broken']} broken, {counts['unclear']} unclear, "
        f"{counts['skipped']} skipped ({checkup.target}, {checkup.model}, {checkup.requests_sent} requests)"
    )
    console.print(Text(total, style="bold"))


def _first_lines(checkup: Checkup) -> list[str]:
    """Return what works, what does not, and which keys to set."""
    lines = [f"Works: {', '.join(checkup.works) or 'nothing'}"]
    lines += [f"Does not work: {line}" for line in checkup.fails]
    if checkup.keys:
        lines.append(f"Set in [targets.{checkup.target}] (or use --write):")
        lines += [f"  {key} = {to_toml(value)}" for key, value in checkup.keys.items()]
    return [*lines, ""]


def _line(finding: CheckFinding) -> str:
    if finding.status != "broken":
        return finding.observed
    lines = [finding.observed, f"expected: {finding.expected}"]
    if finding.remedy:
        lines.append(f"→ {finding.remedy}")
    return "\n".join(lines)
