"""Validation messages for scenarios.toml: the key as written, the value, and the expected form."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from bltybench.errors import UserError
from bltybench.text import sanitize

MAX_SHOWN = 10
MAX_VALUE_CHARS = 60
MAX_NAME_CHARS = 40

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

_WORDS = {
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "greater_than": "must be greater than {gt:,.10g}",
    "greater_than_equal": "must be {ge:,.10g} or more",
    "less_than": "must be less than {lt:,.10g}",
    "less_than_equal": "must be {le:,.10g} or less",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} or fewer characters",
    "too_short": "must have {min_length} or more entries",
    "tuple_type": "must be a list, in [ ]",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
}
"""Expected form by pydantic error type. Other types use pydantic's message."""


def mistakes(path: str, errors: Sequence[str]) -> UserError:
    """Return one UserError that lists all errors of a file, up to MAX_SHOWN of them."""
    if len(errors) == 1:
        return UserError(errors[0], where=path)
    shown = [f"  {line}" for line in errors[:MAX_SHOWN]]
    if len(errors) > MAX_SHOWN:
        shown.append(f"  … and {len(errors) - MAX_SHOWN} more")
    return UserError("\n".join([f"{len(errors)} mistakes", *shown]), where=path)


def explain(error: ValidationError, document: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    """Yield one line per error that pydantic found in ``document``, read as ``model``."""
    for detail in error.errors(include_url=False):
        if "checks" in detail["loc"][:-1]:
            continue  # parse_check has a better message than the union of a check's types
        key, at_key = _key(detail["loc"], document)
        if detail["type"] == "too_short" and at_key:
            continue  # reported for a list if one of its entries is invalid
        yield f"{key}{_value(detail, at_key)}: {_remark(detail, model)}"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint for a name that is not in ``known``."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return "known: " + ", ".join(known) if known else "there are none"


def show(value: object) -> str:
    """Return a value in TOML notation, cut to MAX_VALUE_CHARS."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = '"' + value.encode("unicode_escape").decode("ascii") + '"'
    else:
        text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


def dotted(parts: Sequence[str]) -> str:
    """Return a dotted key, quoted as TOML requires."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else show(part) for part in parts)


def _key(loc: Sequence[int | str], document: Mapping[str, Any]) -> tuple[str, object]:
    """Return the key as written in the file, and its value (None if missing).

    pydantic's location includes the chosen member of a union, which is not in the file. Such a segment equals
    the ``kind`` of the table it would be looked up in, or lies inside a value that is not a table.
    """
    here: object = document
    parts: list[str] = []
    for position, segment in enumerate(loc):
        if segment == "[key]":  # pydantic's marker for an invalid table name
            return _join(parts), None
        if isinstance(here, Sequence) and not isinstance(here, str) and isinstance(segment, int):
            here = here[segment]
            name = here.get("name") if isinstance(here, Mapping) else None
            parts[-1] += (
                f"[{sanitize(name, limit=MAX_NAME_CHARS)}]" if isinstance(name, str) else f"[#{segment + 1}]"
            )
        elif isinstance(here, Mapping) and segment in here:
            here = here[segment]
            parts.append(str(segment)[:MAX_VALUE_CHARS])
        elif isinstance(here, Mapping) and segment != here.get("kind") and position == len(loc) - 1:
            parts.append(str(segment))
            here = None
    return _join(parts), here


def _join(parts: Sequence[str]) -> str:
    """Join segments, some of which end in an index: ``mix[stream]``."""
    return ".".join(part if re.fullmatch(r"\w[\w-]*(\[.*\])?", part) else show(part) for part in parts)


def _value(detail: ErrorDetails, value: object) -> str:
    """Return `` = value`` if showing it helps. Possible secrets are not shown."""
    key = detail["loc"][-1] if detail["loc"] else ""
    if (
        key in {"api_key_env", "keys"}
        or {"headers", "query"} & set(detail["loc"])
        or (isinstance(value, str) and ("@" in value or "?" in value))
    ):
        return ""
    if value is None or detail["type"] in {"extra_forbidden", "missing"}:
        return ""
    return "" if isinstance(value, Mapping | list | tuple) else f" = {show(value)}"


def _remark(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """Return the expected form."""
    kind, context = detail["type"], detail.get("ctx", {})
    match kind:
        case "missing":
            text = "is missing"
        case "extra_forbidden":
            text = _unknown_key(str(detail["loc"][-1]), model, detail["loc"][:-1])
        case "union_tag_not_found":
            text = f"needs a kind: one of {_tags(model, detail['loc'])}"
        case "union_tag_invalid":
            text = f"kind is {show(context.get('tag'))}; must be one of {context.get('expected_tags')}"
        case "model_attributes_type" if _tags(model, detail["loc"]):
            text = f"must be a table with a kind: one of {_tags(model, detail['loc'])}"
        case "literal_error":
            text = f"must be one of {context.get('expected')}"
        case "value_error":
            text = str(context.get("error"))
        case "string_pattern_mismatch" if detail["loc"][-1] == "api_key_env":
            text = "must be the name of an environment variable, never the key itself"
        case "string_pattern_mismatch":
            subject = "the name must" if detail["loc"][-1] == "[key]" else "must"
            text = (
                f"{subject} consist of lowercase letters, digits, - and _, and start with a letter or digit"
            )
        case _:
            text = _WORDS[kind].format(**context) if kind in _WORDS else detail["msg"]
    return text


def _unknown_key(name: str, model: type[BaseModel], loc: Sequence[int | str]) -> str:
    if name in {"api_key", "key", "token", "secret"}:
        return "a key must not be in a file: name its environment variable in api_key_env"
    known = {field for member in _members(_annotation(model, loc)) for field in member.model_fields}
    return "unknown key; " + nearest(name, sorted(known))


def _tags(model: type[BaseModel], loc: Sequence[int | str]) -> str:
    return ", ".join(
        f"'{_kinds(member)[0]}'" for member in _members(_annotation(model, loc)) if _kinds(member)
    )


def _annotation(model: type[BaseModel], loc: Sequence[int | str]) -> Any:
    """Return the type of the tables at a location."""
    here: Any = model
    for segment in loc:
        forms = [form for form in get_args(here) if Tag(str(segment)) in getattr(form, "__metadata__", ())]
        if forms:
            here = get_args(forms[0])[0]
            continue
        members = _members(here)
        if members:
            tagged = [m for m in members if segment in _kinds(m)]
            fields = [m.model_fields[segment].annotation for m in members if segment in m.model_fields]
            here = tagged[0] if tagged else fields[0] if fields else None
        elif get_origin(here) in {dict, tuple}:
            arguments = [argument for argument in get_args(here) if argument is not Ellipsis]
            here = arguments[-1]
    return here


def _kinds(member: type[BaseModel]) -> tuple[str, ...]:
    field = member.model_fields.get("kind")
    return () if field is None else get_args(field.annotation)


def _members(annotation: Any) -> list[type[BaseModel]]:
    """Return the tables that a type allows: the type itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [member for argument in get_args(annotation) for member in _members(argument)]
    return []
