"""Files for a new folder: scenarios.toml, the locustfiles, and the notebooks."""

from pathlib import Path
from typing import Literal

from bltybench.errors import UserError

PACKAGE = Path(__file__).resolve().parents[2]

StarterName = Literal["scenarios.toml", "locustfiles", "analysis"]


def starter_file(name: StarterName) -> Path:
    """Return the packaged file or folder ``name``. In a checkout, return the one at its root.

    Raise UserError if neither exists, which means that the installation is broken.
    """
    for path in (PACKAGE / "starter" / name, PACKAGE.parent / name):
        if path.exists():
            return path
    raise UserError(
        f"the packaged {name} is missing", where=str(PACKAGE / "starter"), remedy="reinstall bltybench"
    )
