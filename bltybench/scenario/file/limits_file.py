"""limits.toml: the sandbox's limits in their own file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.scenario.file.validation_messages import explain
from bltybench.scenario.target import SandboxLimits


def load_limits(path: Path) -> SandboxLimits:
    """Read limits.toml. Raise UserError if it is missing, not TOML, or has keys the sandbox does not know."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None
    try:
        return SandboxLimits.model_validate(document)
    except ValidationError as error:
        raise UserError("; ".join(explain(error, document, SandboxLimits)), where=str(path)) from None
