"""``bltybench limits``: what a run says of the limit that it met."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def limits(
    run: Annotated[
        str | None,
        typer.Argument(help="A run's folder, its id or the beginning of it.", show_default="newest"),
    ] = None,
    reports: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Write the findings as JSON to stdout.")] = False,
) -> None:
    """Say which rate limiter explains a run: family, limit, period, and whether the headers tell the truth.

    Any run will do; one that met refusals and went on after them says more. To find out on purpose, run
    `locust -f locustfiles/limits.py --headless`.
    """
    from bltybench.limits.findings.conclude import find  # noqa: PLC0415
    from bltybench.limits.probe.context import ProbeContext  # noqa: PLC0415
    from bltybench.runs.folder import find_run  # noqa: PLC0415
    from bltybench.runs.store import read_attempts  # noqa: PLC0415

    folder = find_run(run, reports)
    manifest = folder.manifest()
    rows = read_attempts(folder).to_pylist()
    target = manifest.target
    known = ProbeContext(tokens_per_min=target.tokens_per_min, concurrency=target.concurrency)
    findings = find(rows, manifest.clock.wall_ns / 1e9, target.requests_per_min, known=known)
    if as_json:
        sys.stdout.write(json.dumps({"run_id": manifest.run_id, **findings.to_dict()}, indent=2) + "\n")
        return
    print(f"Run {manifest.run_id}: {len(rows)} attempts")
    for line in findings.sentences():
        print(line)
