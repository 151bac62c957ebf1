"""``bltybench limits``: which limits a run shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from bltybench.limits.findings.model import Findings
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
    from bltybench.limits.findings.conclude import to_record  # noqa: PLC0415
    from bltybench.limits.findings.model import encode  # noqa: PLC0415
    from bltybench.limits.findings.narrative import summary  # noqa: PLC0415
    from bltybench.runs.folder import find_run  # noqa: PLC0415

    folder = find_run(run, reports)
    manifest = folder.manifest()
    findings, count = _find(folder, reports)
    if as_json:
        sys.stdout.write(encode(to_record(findings, manifest.run_id)).decode())
        return
    print(f"Run {manifest.run_id}: {count} attempts")
    for line in summary(findings):
        print(line)


def _find(folder: RunFolder, reports: Path) -> tuple[Findings, int]:
    """Return what a run shows about limits, and the number of its attempts."""
    from bltybench.limits.findings.conclude import find  # noqa: PLC0415
    from bltybench.limits.probe.context import ProbeContext  # noqa: PLC0415
    from bltybench.limits.session import RECORD_FILE, ProbeRecord, ProbeSession  # noqa: PLC0415
    from bltybench.runs.folder import find_run  # noqa: PLC0415
    from bltybench.runs.store import load_attempts, readable  # noqa: PLC0415
    from bltybench.scenario.api.documented_limits import per_minute  # noqa: PLC0415

    start_ns, path = folder.manifest().clock.wall_ns, folder.path / RECORD_FILE
    with readable(folder):
        attempts = load_attempts(folder)
    try:
        probe = msgspec.json.decode(path.read_bytes(), type=ProbeRecord) if path.is_file() else None
    except ValueError:
        probe = None  # of an earlier version, which stored less
    if probe is None:
        limits = folder.manifest().target.documented
        known = ProbeContext(
            tokens_per_min=per_minute(limits, "tokens"), concurrency=per_minute(limits, "concurrency")
        )
        requests_per_min, probed = per_minute(limits, "requests"), (folder.path / "limits.json").is_file()
        return find(attempts, start_ns / 1e9, requests_per_min, known=known, probed=probed), len(attempts)
    session = ProbeSession(probe.task, start_ns / 1e9)
    session.attempts = attempts
    if probe.resumed is not None:
        resumed = find_run(probe.resumed, reports)
        with readable(resumed):
            earlier = load_attempts(resumed)
        session.resume(earlier, resumed.manifest().clock.wall_ns - start_ns, probe.resumed_done)
    return session.findings(), len(attempts)
