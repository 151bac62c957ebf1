"""``bltybench init``: create the files to start from."""

import os
import shutil
from pathlib import Path
from typing import Annotated, get_args

import typer

from bltybench.errors import UserError
from bltybench.scenario.file.starter import StarterName, starter_file

STARTER: tuple[StarterName, ...] = get_args(StarterName)
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*")


def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder for the files. Created if it does not exist.")
    ] = Path(),
) -> None:
    """Create a commented scenarios.toml, the locustfiles, and the notebooks.

    Existing files are never overwritten: if one is in the way, nothing is written.
    """
    sources = {name: starter_file(name) for name in STARTER}
    in_the_way = [name for name in STARTER if os.path.lexists(folder / name)]
    if in_the_way:
        raise UserError(
            f"{', '.join(in_the_way)} already exists",
            where=str(folder.absolute()),
            remedy="choose another folder with bltybench init DIR; nothing was written",
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
            f"can't write: {error.strerror or error}",
            where=str(error.filename or folder),
            remedy="choose a writable folder",
        ) from error
    print(f"Wrote to {folder.absolute()}: {', '.join(STARTER)}")
    print("Next:")
    if folder.resolve() != Path.cwd():
        print(f"  cd {folder}")
    print("  locust -f locustfiles/mixed.py --headless")
    print("  bltybench check")
