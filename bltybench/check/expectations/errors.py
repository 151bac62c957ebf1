"""Expectations for errors: status, type, and code as listed in the reference."""

from typing import Any

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import WRONG_KEY, Evidence
from bltybench.check.judge import Group, Verdict, broken, holds, skipped, verdict

group = Group("errors")

ERRORS = (
    ("bad_json", "broken JSON", 400, "invalid_request_error"),
    ("no_messages", "messages missing", 400, "invalid_request_error"),
    ("wrong_type", "messages of a wrong type", 400, "invalid_request_error"),
    ("no_key", "no key", 401, "authentication_error"),
    ("wrong_key", "wrong key", 401, "authentication_error"),
    ("forbidden", "key without permission", 403, "permission_error"),
    ("no_model", "unknown model", 404, "not_found_error"),
    ("no_route", "unknown endpoint", 404, "not_found_error"),
    ("refused", "over the limit", 429, "rate_limit_error"),
)
"""Expected errors: field of the evidence, name of the expectation, status, and type."""
CODES = {"wrong_key": "invalid_api_key"}
"""Codes that the reference names, by field of the evidence."""
FIELDS = ("message", "type", "param", "code")


def _error(response: CheckResponse) -> dict[str, Any]:
    """Return the ``error`` object of a response, or an empty object."""
    error = response.object().get("error")
    return error if isinstance(error, dict) else {}


def _expect(field: str, name: str, status: int, kind: str) -> None:
    code = CODES.get(field)

    @group.expect(name, f"{status} {kind}" + (f", code {code}" if code else ""))
    def _judge(evidence: Evidence) -> Verdict:
        response: CheckResponse | None = getattr(evidence, field)
        if response is None:
            return skipped(evidence.skipped.get(field, "not asked for"))
        if field == "refused" and response.status == 200:
            return skipped("nothing was refused")
        error = _error(response)
        matches = (
            response.status == status and error.get("type") == kind and code in (None, error.get("code"))
        )
        return verdict(matches and not response.failure, response.summary())


for row in ERRORS:
    _expect(*row)


@group.expect("error bodies", '{"error": {message, type, param, code}}: strings; param and code may be null')
def _bodies(evidence: Evidence) -> Verdict:
    count = 0
    for field, name, *_ in ERRORS:
        response: CheckResponse | None = getattr(evidence, field)
        if response is None or (response.status or 0) < 400:
            continue
        count += 1
        error = _error(response)
        missing = [key for key in FIELDS if key not in error]
        if missing:
            return broken(f"{name}: without {', '.join(missing)}: {response.summary()}")
        if not all(isinstance(error[key], str) and error[key] for key in ("message", "type")):
            return broken(f"{name}: message or type is not a string: {response.show(error)}")
        if not all(error[key] is None or isinstance(error[key], str) for key in ("param", "code")):
            return broken(f"{name}: param or code is neither a string nor null: {response.show(error)}")
    return holds(f"all {count}") if count else skipped("no error was received")


@group.expect("keys stay secret", "an error does not repeat the rejected key")
def _secret(evidence: Evidence) -> Verdict:
    if evidence.wrong_key is None:
        return skipped(evidence.skipped.get("wrong_key", "not asked for"))
    if WRONG_KEY.encode() in evidence.wrong_key.body:
        return broken("the body contains the whole key")
    return holds("the body does not contain it")
