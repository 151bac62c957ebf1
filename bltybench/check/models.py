"""Expectations for GET /models."""

from difflib import get_close_matches

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import Evidence
from bltybench.check.judge import Group, Verdict, broken, holds, skipped, verdict

group = Group("models")


def listed(response: CheckResponse) -> list[str]:
    """Return the model IDs in a response, or an empty list if it has another shape."""
    data = response.object().get("data")
    if not isinstance(data, list):
        return []
    return [item["id"] for item in data if isinstance(item, dict) and isinstance(item.get("id"), str)]


@group.expect(
    "models are listed", "GET /models answers 200", remedy="base_url must include everything up to /v1"
)
def _answered(evidence: Evidence) -> Verdict:
    return verdict(evidence.models.status == 200 and not evidence.models.failure, evidence.models.summary())


@group.about(
    "models", "list has its shape", '"object": "list" and data[] with id, "object": "model", owned_by'
)
def _shape(response: CheckResponse) -> Verdict:
    body = response.object()
    data = body.get("data")
    if body.get("object") != "list" or not isinstance(data, list):
        return broken(f"object {response.show(body.get('object'))}, data {type(data).__name__}")
    if not data:
        return broken("data is empty")
    for item in data:
        named = isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("id", "owned_by"))
        if not named or item.get("object") != "model":
            return broken(f"an entry is {response.show(item)}")
    return holds(f"{len(data)} models")


@group.expect(
    "the model is there", "the model asked for is in the list", remedy="choose a listed one with --model"
)
def _known(evidence: Evidence) -> Verdict:
    ids = listed(evidence.models)
    if not ids:
        return skipped("no model is listed")
    if evidence.model in ids:
        return holds(evidence.models.show(evidence.model))
    near = get_close_matches(evidence.model, ids, n=3) or ids[:3]
    return broken(evidence.models.show(f"{evidence.model} is not listed; similar: {', '.join(near)}"))
