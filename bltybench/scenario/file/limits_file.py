"""limits.toml: the limits of the sandbox in a file of their own."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.scenario.file.validation_messages import explain
from bltybench.scenario.target import SandboxLimits


def load_limits(path: Path) -> SandboxLimits:
    """Read limits.toml. Raises UserError where it is missing, no TOML, or says what no sandbox knows."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None
    try:
        return SandboxLimits.model_validate(document)
    except ValidationError as error:
        raise UserError("; ".join(explain(error, document, SandboxLimits)), where=str(path)) from None
