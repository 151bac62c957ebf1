"""``bltybench import``: turn logs into a run, without sending anything."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bltybench.errors import UserError

if TYPE_CHECKING:
    from bltybench.imports.record import ImportRecord
    from bltybench.runs.folder import RunFolder
    from bltybench.runs.manifest import TargetInfo

HIDDEN = "…"
"""What the manifest has in place of a client's name, which can be a key."""


def import_logs(  # noqa: PLR0917 - typer makes options of them
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Logs of one format: text, JSON, or CSV, also gzipped."),
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="litellm, langfuse, otel, har, envoy, envoy-json, nginx-json, combined, "
            "combined+request_time, or a log format: 'nginx:$remote_addr …' or 'envoy:%START_TIME% …'.",
            show_default="from the content",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Target in scenarios.toml whose documented limits to compare.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="Regular expression for the paths of the requests to import, in logs of HTTP requests.",
            show_default="those that end in completions, responses, or messages",
        ),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(help="Import this client only: a key's alias or hash, a user, or an address."),
    ] = None,
    shared_limit: Annotated[
        bool, typer.Option("--shared-limit", help="All clients share their limits, as with one key upstream.")
    ] = False,
    since: Annotated[str | None, typer.Option(help="Import requests from this time on (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option(help="Import requests before this time.")] = None,
    scenario_file: Annotated[
        Path | None, typer.Option(help="Path of scenarios.toml. Default: ./scenarios.toml if it exists.")
    ] = None,
    reports: Annotated[Path, typer.Option(help="Directory that contains the runs.")] = Path("reports"),
) -> None:
    """Turn logs into a run: LiteLLM, Langfuse, OpenTelemetry, nginx, Envoy, or HAR. Nothing is sent.

    `bltybench report` then shows requests and tokens per minute, concurrency, latency, and limits.
    """
    from bltybench.imports.formats import USUAL_PATHS, inferred, named  # noqa: PLC0415 - fast --help
    from bltybench.imports.run import RowSelection, import_logs  # noqa: PLC0415 - imports pyarrow

    try:
        paths = re.compile(USUAL_PATHS if path is None else path)
    except re.error as error:
        raise UserError(f"is no regular expression: {error}", where="--path") from None
    choice = RowSelection(client, _moment(since, "--since"), _moment(until, "--until"))
    chosen = named(form, paths) if form is not None else inferred(files[0], paths)
    known = None if target is None else _target(target, scenario_file)
    folder, source = import_logs(
        files,
        chosen,
        choice,
        known,
        reports,
        command=_command(client),
        shared_limit=shared_limit,
        report=_progress if sys.stderr.isatty() else None,
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    _show(folder, source)


def _moment(text: str | None, option: str) -> int | None:
    from bltybench.imports.row import BrokenRowError, time_ns  # noqa: PLC0415 - as above

    try:
        return None if text is None else time_ns(text if len(text) > 10 else f"{text}T00:00:00", option)
    except BrokenRowError:
        raise UserError("is no time", where=option, remedy="write 2026-11-30T13:00:00Z") from None


def _target(name: str, scenario_file: Path | None) -> TargetInfo:
    from bltybench.runs.manifest import TargetInfo  # noqa: PLC0415 - as above
    from bltybench.scenario.file.scenario_file import load_book  # noqa: PLC0415 - as above

    found = load_book(scenario_file).target(name)
    prices = {model: price.model_dump() for model, price in found.prices.items()}
    return TargetInfo(name=name, base_url=found.base_url, limits=found.documented, prices=prices)


def _command(client: str | None) -> list[str]:
    arguments = sys.argv[1:]
    if client is not None:
        arguments = [argument.replace(client, HIDDEN) for argument in arguments]
    return ["bltybench", *arguments]


def _progress(done: int, size: int) -> None:
    share = f"{done / size:4.0%}" if size else ""
    print(f"\rRead {done / 1e6:,.0f} of {size / 1e6:,.0f} MB {share} ", end="", file=sys.stderr, flush=True)


def _show(folder: RunFolder, source: ImportRecord) -> None:
    from bltybench.report.text import count  # noqa: PLC0415 - as above

    print(f"Imported {count(source.rows, 'request')} ({source.format}) as {folder.path.name}")
    for why, number in source.skipped.items():
        print(f"  left out, {why}: {number:,}")
    if source.broken:
        print(f"  broken: {count(source.broken, 'row')}")
        for row in source.broken_rows:
            print(f"    {row}")
    print("The log lacks:")
    for line in source.lacks:
        print(f"  {line}")
    print(f"Report it: bltybench report {folder.path.name}")
