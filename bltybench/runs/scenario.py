"""The scenario of a stored run."""

from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.runs.manifest import Manifest
from bltybench.scenario.workload import Scenario


def read_scenario(manifest: Manifest) -> Scenario:
    """Return the scenario as it ran. Raises UserError if this version can't read it."""
    try:
        return Scenario.model_validate(manifest.resolved)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in ("resolved", *first["loc"]))
        raise UserError(
            f"its scenario cannot be read: {key}: {first['msg']}",
            where=f"manifest.json of {manifest.run_id}",
            remedy="read it with the version of bltybench that wrote it",
        ) from None
