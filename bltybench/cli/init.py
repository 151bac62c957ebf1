"""``bltybench init``: the files to start from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bltybench.errors import UserError

if TYPE_CHECKING:
    from bltybench.scenario.file.starter import StarterName

STARTER: tuple[StarterName, ...] = ("scenarios.toml", "locustfiles", "analysis")
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*")


def init(
    folder: Annotated[Path, typer.Argument(help="Where to put the files; made if it is not there.")] = Path(),
) -> None:
    """Write a commented scenarios.toml, the locustfiles and the notebooks to start from.

    Nothing is overwritten: where one of them is in the way, nothing is written at all.
    """
    from bltybench.scenario.file.starter import starter_file  # noqa: PLC0415

    sources = {name: starter_file(name) for name in STARTER}
    in_the_way = [name for name in STARTER if os.path.lexists(folder / name)]
    if in_the_way:
        raise UserError(
            f"there is already {', '.join(in_the_way)}",
            where=str(folder.absolute()),
            remedy="bltybench init DIR writes to another folder; nothing was written here",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=NOT_COPIED)
            else:
                shutil.copyfile(source, folder / name)
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}",
            where=str(error.filename or folder),
            remedy="choose a folder that you may write to",
        ) from error
    print(f"Written to {folder.absolute()}: {', '.join(STARTER)}")
    print("Next:")
    if folder.resolve() != Path.cwd():
        print(f"  cd {folder}")
    print("  locust -f locustfiles/mixed.py --headless")
    print("  bltybench check")
