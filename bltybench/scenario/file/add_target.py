"""Adding keys of a target to scenarios.toml as text, so that its comments and its layout stay."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from bltybench.errors import UserError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""Names that targets can have, as in ``scenario_file.Name``."""


def with_target(text: str, name: str, keys: Mapping[str, Any], *, where: str) -> str:
    """Return the text of a scenarios.toml whose target ``name`` has ``keys``.

    A missing target is added at the end. Raise UserError if the target has another value of a key, or if the
    file's layout leaves no place for the keys.
    """
    if NAME.fullmatch(name) is None:
        remedy = "use lowercase letters, digits, - and _, for example --target my-api"
        raise UserError(f"{name[:60]!r} can't be a target's name", where="--target", remedy=remedy)
    # A byte order mark is no TOML, and editors of Windows write one.
    before = tomllib.loads(text.removeprefix("\ufeff"))
    known = before.get("targets", {}).get(name)
    differing = [key for key, value in keys.items() if known is not None and known.get(key, value) != value]
    if differing:
        raise UserError(
            f"targets.{name} exists with another {', '.join(differing)}",
            where=where,
            remedy="choose another name with --target, or edit the file",
        )
    missing = {key: value for key, value in keys.items() if known is None or key not in known}
    if not missing:
        return text
    end = "\r\n" if "\r\n" in text else "\n"
    lines = "".join(f"{key} = {to_toml(value)}{end}" for key, value in missing.items())
    if known is None:
        gap = "" if not text or text.endswith("\n") else end
        edited = f"{text}{gap}{end}[targets.{name}]{end}{lines}"
    else:
        heading = re.compile(
            rf"^[ \t]*\[[ \t]*targets[ \t]*\.[ \t]*\"?{name}\"?[ \t]*\][^\n]*\n?", re.MULTILINE
        )
        edited = heading.sub(lambda match: f"{match[0].rstrip()}{end}{lines}", text, count=1)
    targets = before.get("targets", {})
    expected = before | {"targets": targets | {name: dict(known or {}) | missing}}
    if not _is(edited, expected):
        raise UserError(
            f"has no heading [targets.{name}] to add the keys to",
            where=where,
            remedy="add them to the target yourself:\n      " + lines.strip().replace(end, "\n      "),
        )
    return edited


def _is(text: str, expected: dict[str, Any]) -> bool:
    try:
        return tomllib.loads(text.removeprefix("\ufeff")) == expected
    except tomllib.TOMLDecodeError:
        return False


def to_toml(value: Any) -> str:
    """Return a value as TOML: text, a number, true or false, or a table of them."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
