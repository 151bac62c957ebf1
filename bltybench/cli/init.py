"""``bltybench init``: the files to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="Where to put the files.")] = Path(),
) -> None:
    """Write a commented scenarios.toml, the locustfiles and the notebooks to start from."""
    print(folder)
