"""The shapes in which a 2xx response holds an error instead of an answer."""

from typing import Any

MESSAGE_KEYS = (
    "message",
    "detail",
    "error_description",
    "msg",
    "title",
    "error_msg",
    "error_message",
    "status_msg",
    "errmsg",
)
TYPE_KEYS = ("type", "error_type", "status")
CODE_KEYS = ("code", "error_code", "status_code", "statusCode", "errcode", "status")
LIMIT_TYPE_KEYS = ("rate_limit_type", "limit_type")
"""Keys, and in lower case headers, with the limit that refused."""
_NO_ERROR = frozenset({"0", "200", "ok", "success", "none", "null", ""})
"""Codes of a response that is no error, in lower case."""
MAX_PARTS = 32
"""Members of an object that are searched for an error."""
MAX_LISTS = 4
"""Lists within lists that are searched for an error."""


def error_in(value: Any, lists: int = MAX_LISTS) -> Any:
    """Return the error that a decoded 2xx response holds instead of an answer; None without one.

    ``lists`` is the number of lists within lists that are searched.
    """
    if isinstance(value, list):
        parts = value[:MAX_PARTS] if lists else []
        return next((error for part in parts if (error := error_in(part, lists - 1)) is not None), None)
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    answers = choices[:MAX_PARTS] if isinstance(choices, list) else []
    for part in (value, value.get("x_groq"), *answers):
        if isinstance(part, dict) and part.get("error"):
            return part
    if any(answer is not None for answer in answers):
        return None
    if value.get("errors") or _is_flat_error(value):
        return value
    # Some vendors put the status of a call in an object of its own, such as "base_resp" or "header".
    parts = list(value.values())[:MAX_PARTS]
    return next((part for part in parts if isinstance(part, dict) and _is_flat_error(part)), None)


def _is_flat_error(value: dict[str, Any]) -> bool:
    """Return whether an object itself describes an error: a code other than success, and a message."""
    if "error" in (value.get("object"), value.get("type")):
        return True
    if not any(value.get(key) for key in MESSAGE_KEYS):
        return False
    codes = [str(value[key]).lower() for key in CODE_KEYS if isinstance(value.get(key), str | int)]
    return value.get("success") is False or (bool(codes) and _NO_ERROR.isdisjoint(codes))
