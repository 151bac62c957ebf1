"""JSON that a request asks for: the arguments of a tool call, or content in a response format."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

AUTO_SHARE = 0.5
"""Fraction of the answers that call a tool if the request leaves it to the model."""
MAX_DEPTH, MAX_OPTIONAL_DEPTH = 12, 4
"""Levels of a schema that are followed, and of those that have their optional properties. Then come nulls."""
MAX_VALUES = 1_000
"""Values in one answer. Further ones are null."""
WORDS = ("amber", "birch", "coral", "delta", "ember", "fjord")
INVALID_JSON, NULL_VALUES = CONTENT_FAULTS = ("invalid_json", "null_values")
"""Faults of the JSON: its second half is missing, or all its values are null."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One piece of JSON, and the tool whose arguments it is."""

    schema: Any
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Structure:
    """What a request has of tools and a response format."""

    tools: tuple[Wanted, ...]
    must_call: bool
    content: Wanted | None

    def choose(self, rng: random.Random) -> Wanted | None:
        """Return what the answer consists of; None for text."""
        if self.tools and (self.must_call or rng.random() < AUTO_SHARE):
            return rng.choice(self.tools)
        return self.content


def structure_of(body: Mapping[str, Any]) -> Structure | None:
    """Return what a body asks for; None for text. Tools and formats of other kinds are ignored."""
    choice = body.get("tool_choice") or "auto"
    functions = [_table(tool, "function") for tool in body.get("tools") or ()]
    tools = tuple(
        Wanted(function.get("parameters"), name)
        for function in functions
        if isinstance(name := function.get("name"), str)
    )
    if isinstance(choice, dict):
        named = _table(choice, "function").get("name")
        tools = tuple(tool for tool in tools if tool.tool == named)
    asked = body.get("response_format") or {}
    content = None
    if asked.get("type") in {"json_object", "json_schema"}:
        content = Wanted(_table(asked, "json_schema").get("schema", asked.get("schema")))
    if choice == "none":
        tools = ()
    return Structure(tools, choice != "auto", content) if tools or content else None


def json_text(wanted: Wanted, rng: random.Random, fault: str | None) -> str:
    """Return JSON that satisfies the schema, unless that demands more than types, or a fault damages it."""
    schema = wanted.schema if isinstance(wanted.schema, dict) and wanted.schema else {"type": "object"}
    value = _Sampler(schema, rng).value(schema)
    if fault == NULL_VALUES and isinstance(value, dict):
        value = dict.fromkeys(value)
    text = msgspec.json.encode(value).decode()
    return text[: len(text) // 2] if fault == INVALID_JSON else text


@dataclass(slots=True)
class _Sampler:
    """Draws values that satisfy parts of a schema."""

    root: Mapping[str, Any]
    rng: random.Random
    left: int = MAX_VALUES

    def value(self, schema: Any, depth: int = 0) -> Any:
        self.left -= 1
        if not isinstance(schema, dict) or depth > MAX_DEPTH or self.left < 0:
            return None
        enum, branches = schema.get("enum"), schema.get("anyOf") or schema.get("oneOf")
        if "const" in schema:
            return schema["const"]
        if isinstance(enum, list) and enum:
            return self.rng.choice(enum)
        if isinstance(branches, list):
            return self.value(self.rng.choice(branches), depth + 1)
        if isinstance(schema.get("$ref"), str):
            return self.value(self._referenced(schema["$ref"]), depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object":
            properties, required = _table(schema, "properties"), schema.get("required")
            required = required if isinstance(required, list) else []
            # Without optional properties further down, a schema that contains itself ends.
            names = [name for name in properties if depth < MAX_OPTIONAL_DEPTH or name in required]
            return {name: self.value(properties[name], depth + 1) for name in names}
        if kind == "array":
            least = schema.get("minItems", 1)
            count = min(least, MAX_VALUES) if isinstance(least, int) else 1
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
        if kind in ("integer", "number"):
            return schema.get("minimum", schema.get("maximum", self.rng.randrange(1000)))
        if kind == "boolean":
            return self.rng.random() < 0.5
        return self.rng.choice(WORDS) if kind == "string" else None

    def _referenced(self, ref: str) -> Any:
        """Return the part of the schema that a reference such as ``#/$defs/city`` names, if there is one."""
        found: Any = self.root
        for name in filter(None, ref.removeprefix("#").split("/")):
            found = found.get(name) if isinstance(found, dict) else None
        return found


def _table(value: Any, key: str) -> dict[str, Any]:
    table = value.get(key) if isinstance(value, dict) else None
    return table if isinstance(table, dict) else {}
