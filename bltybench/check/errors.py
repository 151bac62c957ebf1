"""Expectations for errors: status, type, and code as listed in the reference."""

from __future__ import annotations

from typing import Any

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import WRONG_KEY, Evidence
from bltybench.check.judge import Group, Verdict, broken, holds, skipped, verdict

group = Group("errors")

FIELDS = ("message", "type", "param", "code")


def error_of(answer: CheckResponse) -> dict[str, Any]:
    """Return the ``error`` object of a response, or an empty object."""
    found = answer.object().get("error")
    return found if isinstance(found, dict) else {}


def _expect(field: str, name: str, status: int, kind: str, code: str | None = None) -> None:
    """Add an expectation for an error with a status and type, and a code if the reference names one."""
    told = f"{status} {kind}" + (f", code {code}" if code else "")

    @group.expect(name, told)
    def judge(evidence: Evidence) -> Verdict:
        answer: CheckResponse | None = getattr(evidence, field)
        if answer is None:
            return skipped(evidence.skipped.get(field, "not asked for"))
        if field == "refused" and answer.status == 200:
            return skipped("nothing was refused")
        error = error_of(answer)
        right = answer.status == status and error.get("type") == kind and code in (None, error.get("code"))
        return verdict(right and not answer.failure, answer.summary())


_expect("bad_json", "broken JSON", 400, "invalid_request_error")
_expect("no_messages", "messages missing", 400, "invalid_request_error")
_expect("wrong_type", "messages of a wrong type", 400, "invalid_request_error")
_expect("no_key", "no key", 401, "authentication_error")
_expect("wrong_key", "wrong key", 401, "authentication_error", "invalid_api_key")
_expect("forbidden", "key without permission", 403, "permission_error")
_expect("no_model", "unknown model", 404, "not_found_error")
_expect("no_route", "unknown endpoint", 404, "not_found_error")
_expect("refused", "over the limit", 429, "rate_limit_error")


@group.expect("error bodies", '{"error": {message, type, param, code}}: strings; param and code may be null')
def bodies(evidence: Evidence) -> Verdict:
    """Check that all errors have the one shape that clients parse."""
    asked = evidence.errors()
    if not asked:
        return skipped("no error was received")
    for name, answer in asked.items():
        error = error_of(answer)
        gone = [key for key in FIELDS if key not in error]
        if gone:
            return broken(f"{name}: without {', '.join(gone)}: {answer.summary()}")
        if not all(isinstance(error[key], str) and error[key] for key in ("message", "type")):
            return broken(f"{name}: message or type is not a string: {answer.show(error)}")
        if not all(error[key] is None or isinstance(error[key], str) for key in ("param", "code")):
            return broken(f"{name}: param or code is neither a string nor null: {answer.show(error)}")
    return holds(f"all {len(asked)}")


@group.expect("keys stay secret", "an error does not repeat the rejected key")
def secret(evidence: Evidence) -> Verdict:
    """Check that error messages do not leak keys into logs."""
    answer = evidence.wrong_key
    if answer is None:
        return skipped(evidence.skipped.get("wrong_key", "not asked for"))
    if WRONG_KEY.encode() in answer.body:
        return broken("the body contains the whole key")
    return holds("the body does not contain it")
