"""``bltybench runs``: what has been run, newest first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def runs(
    reports: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("reports"),
) -> None:
    """List the runs, newest first."""
    if not reports.is_dir():
        print(f"No runs in {reports}. Make one: locust -f locustfiles/mixed.py --headless")
