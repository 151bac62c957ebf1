"""``bltybench limits``: which limits a run shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from bltybench.limits.findings.model import FindingsRecord
    from bltybench.runs.folder import RunFolder


def limits(
    run: Annotated[
        str | None,
        typer.Argument(help="A run's directory, its ID, or the start of its ID.", show_default="newest"),
    ] = None,
    reports: Annotated[Path, typer.Option(help="Directory that holds the runs.")] = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Write the findings as JSON to stdout.")] = False,
) -> None:
    """Infer the rate limiter from a run: family, limit, period, and whether the headers are accurate.

    Any run works; one that continues after refusals shows more. To measure on purpose, run
    `locust -f locustfiles/limits.py --headless`.
    """
    from bltybench.limits.findings.model import encode  # noqa: PLC0415
    from bltybench.runs.folder import find_run  # noqa: PLC0415

    folder = find_run(run, reports)
    manifest = folder.manifest()
    record, examined = _find(folder, reports)
    if as_json:
        sys.stdout.write(encode(record).decode())
        return
    print(f"Run {manifest.run_id}: {examined}")
    for line in (*record.says, *record.advice):
        print(line)


def _find(folder: RunFolder, reports: Path) -> tuple[FindingsRecord, str]:
    """Return what a run shows about limits, and the attempts that show it."""
    from bltybench.limits.findings.conclude import to_record  # noqa: PLC0415
    from bltybench.limits.session import RECORD_FILE, ProbeRecord, ProbeSession  # noqa: PLC0415
    from bltybench.report.run_limits import analyzed_attempts, findings_of  # noqa: PLC0415
    from bltybench.report.text import count  # noqa: PLC0415
    from bltybench.runs.folder import find_run  # noqa: PLC0415
    from bltybench.runs.store import load_attempts, readable  # noqa: PLC0415

    start_ns, path = folder.manifest().clock.wall_ns, folder.path / RECORD_FILE
    try:
        probe = msgspec.json.decode(path.read_bytes(), type=ProbeRecord) if path.is_file() else None
    except ValueError:
        probe = None  # of an earlier version, which stored less
    with readable(folder):
        if probe is None:
            analyzed = analyzed_attempts(folder)
            return findings_of(folder, analyzed.attempts), analyzed.part or count(analyzed.sent, "attempt")
        attempts = load_attempts(folder)
    session = ProbeSession(probe.task, start_ns / 1e9)
    session.attempts = attempts
    if probe.resumed is not None:
        resumed = find_run(probe.resumed, reports)
        with readable(resumed):
            earlier = load_attempts(resumed)
        session.resume(earlier, resumed.manifest().clock.wall_ns - start_ns, probe.resumed_done)
    return to_record(session.findings(), folder.path.name), count(len(attempts), "attempt")
