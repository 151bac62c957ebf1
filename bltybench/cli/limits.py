"""``bltybench limits``: which limits a run shows."""

import sys
from pathlib import Path
from typing import Annotated

import typer


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
    from bltybench.limits.findings.conclude import find, to_record  # noqa: PLC0415
    from bltybench.limits.findings.model import encode  # noqa: PLC0415
    from bltybench.limits.findings.narrative import summary  # noqa: PLC0415
    from bltybench.limits.probe.context import ProbeContext  # noqa: PLC0415
    from bltybench.runs.folder import find_run  # noqa: PLC0415
    from bltybench.runs.store import load_attempts, readable  # noqa: PLC0415
    from bltybench.scenario.limits import per_minute  # noqa: PLC0415

    folder = find_run(run, reports)
    manifest = folder.manifest()
    with readable(folder):
        attempts = load_attempts(folder)
    limits = manifest.target.documented
    known = ProbeContext(
        tokens_per_min=per_minute(limits, "tokens"), concurrency=per_minute(limits, "concurrency")
    )
    findings = find(
        attempts,
        manifest.clock.wall_ns / 1e9,
        per_minute(limits, "requests"),
        known=known,
        probed=(folder.path / "limits.json").is_file(),
    )
    if as_json:
        sys.stdout.write(encode(to_record(findings, manifest.run_id)).decode())
        return
    print(f"Run {manifest.run_id}: {len(attempts)} attempts")
    for line in summary(findings):
        print(line)
