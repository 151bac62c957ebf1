"""Base class of all tables of scenarios.toml."""

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """An immutable table of scenarios.toml that rejects unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
