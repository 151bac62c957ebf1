"""limits.toml: the sandbox's limits in their own file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.scenario.file.toml import read_toml
from bltybench.scenario.file.validation_messages import explain
from bltybench.scenario.target import SandboxLimits


def load_limits(path: Path) -> SandboxLimits:
    """Read limits.toml. Raise UserError if it is missing, not TOML, or has keys the sandbox does not know."""
    document = read_toml(path, what="limits file")
    try:
        return SandboxLimits.model_validate(document)
    except ValidationError as error:
        raise UserError("; ".join(explain(error, document, SandboxLimits)), where=str(path)) from None
