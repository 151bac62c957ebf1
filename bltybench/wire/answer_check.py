"""What an answer did with the tools and the response format of its request."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import msgspec

from bltybench.runs.attempt import Outcome
from bltybench.wire.result import ExchangeResult

MAX_CHECKED_CHARS = 64 * 1024
"""Characters of JSON beyond which an answer is not checked. Meanwhile, nothing else runs in the process."""
MAX_SCHEMAS = 256
"""Schemas kept ready for use."""
UNCHECKED = "unchecked"
"""Note of an answer that is too large or nested too deeply to be checked, or whose schema is unusable."""


class AnswerCheck(NamedTuple):
    """The columns of the record. None: there is nothing to check, or it could not be checked."""

    tool_calls: int | None = None
    json_valid: bool | None = None
    schema_valid: bool | None = None
    note: str | None = None


NOTHING_CHECKED = AnswerCheck()


class Expected(msgspec.Struct, frozen=True):
    """What a request allows and demands of its answer."""

    tools: Mapping[str, Any] | None
    """Schema of the arguments by name of the function, None for one without. None if there are no tools."""
    json: bool
    """Whether the content must be JSON."""
    is_object: bool
    """Whether that must be an object."""
    schema: Any
    """Schema of the content, or None."""


class _Text(NamedTuple):
    """A text that must be JSON."""

    text: str
    is_object: bool
    schema: Any
    declared: bool = True
    """False for the arguments of a function that the request does not have."""


def expected_answer(body: Mapping[str, Any]) -> Expected | None:
    """Return what a request's body demands; None for text in any form, which costs nothing to record."""
    if "tools" not in body and "response_format" not in body:
        return None
    tools, wanted = _tools(body.get("tools")), body.get("response_format")
    wanted = wanted if isinstance(wanted, dict) else {}
    kind = wanted.get("type")
    is_json = kind in {"json_object", "json_schema"}
    if tools is None and not is_json:
        return None
    # OpenAI's place of the schema, or that of llama.cpp and Fireworks.
    holder = wanted.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else wanted.get("schema")
    if schema is not None or any(parameters is not None for parameters in (tools or {}).values()):
        import_module("jsonschema")  # before the request is sent, because it takes 0.1 s
    return Expected(tools, is_json, kind == "json_object", schema if is_json else None)


def check_answer(expected: Expected, result: ExchangeResult) -> AnswerCheck:
    """Return what the first choice of a successful answer did.

    A refusal in words of its own is not JSON and need not be. An answer that calls tools has no content to
    check.
    """
    if result.outcome is not Outcome.OK:
        return NOTHING_CHECKED
    calls = [] if expected.tools is None else result.tool_calls
    texts = [_arguments(call, expected.tools or {}) for call in calls if call.get("type") != "custom"]
    if expected.json and not calls and not result.declined:
        texts.append(_Text(result.text, expected.is_object, expected.schema))
    json_valid, schema_valid = _check(texts)
    count = None if expected.tools is None else len(calls)
    has_schema = any(text.schema is not None or not text.declared for text in texts)
    unchecked = bool(texts) and (json_valid is None or (has_schema and schema_valid is None))
    return AnswerCheck(count, json_valid, schema_valid, UNCHECKED if unchecked else None)


def _tools(tools: Any) -> dict[str, Any] | None:
    if not isinstance(tools, list) or not tools:
        return None
    functions = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)]
    return {
        name: function.get("parameters")
        for function in functions
        if isinstance(function, dict) and isinstance(name := function.get("name"), str)
    }


def _arguments(call: Mapping[str, Any], tools: Mapping[str, Any]) -> _Text:
    function = call["function"]
    name = function.get("name")
    return _Text(function.get("arguments", ""), True, tools.get(name), declared=name in tools)


def _check(texts: list[_Text]) -> tuple[bool | None, bool | None]:
    """Return whether all texts are JSON, and whether all that have a schema satisfy it."""
    if sum(len(text.text) for text in texts) > MAX_CHECKED_CHARS:
        return None, None
    valid: list[bool | None] = []
    satisfied: list[bool | None] = []
    for text in texts:
        try:
            value = json.loads(text.text, parse_constant=_reject)
            is_valid = isinstance(value, dict) or not text.is_object
        except json.JSONDecodeError:
            is_valid, value = False, None
        except (ValueError, RecursionError):  # a number of thousands of digits, or nested too deeply
            return None, None
        valid.append(is_valid)
        if not text.declared:
            satisfied.append(False)
        elif text.schema is not None:
            satisfied.append(is_valid and _satisfies(value, text.schema))
    return _all(valid), _all(satisfied)


def _all(values: Iterable[bool | None]) -> bool | None:
    """Return False if one is, else None if one is unknown or there are none, else True."""
    values = set(values)
    return False if False in values else None if None in values or not values else True


def _reject(constant: str) -> NoReturn:
    raise json.JSONDecodeError(f"{constant} is not JSON", constant, 0)


def _satisfies(value: Any, schema: Any) -> bool | None:
    """Return whether a value satisfies a schema; None if the schema is unusable."""
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - see expected_answer

    validator = _validator(msgspec.json.encode(schema))
    try:
        return None if validator is None else bool(validator.is_valid(value))
    except (Unresolvable, RecursionError, ValueError, ArithmeticError, re.error):
        return None
    except (TypeError, AttributeError):  # raised for parts of an older draft than the whole
        return None


@lru_cache(maxsize=MAX_SCHEMAS)
def _validator(schema_json: bytes) -> Any:
    """Return the validator of a schema; None if it is no valid schema. References are never fetched."""
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    schema = json.loads(schema_json)
    named = isinstance(schema, dict) and isinstance(schema.get("$schema"), str)
    try:
        validator = validator_for(schema, Draft202012Validator) if named else Draft202012Validator
        validator.check_schema(schema)
    except (SchemaError, RecursionError, ValueError):
        return None
    return validator(schema, registry=Registry())
