"""scenarios.toml and limits.toml: loading, validation, and lookup."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from bltybench.errors import UserError
from bltybench.scenario.api.routes import ONE_OF
from bltybench.scenario.base import Table
from bltybench.scenario.checks import parse_check
from bltybench.scenario.file.starter import starter_file
from bltybench.scenario.file.toml import read_toml
from bltybench.scenario.file.validation_messages import dotted, explain, mistakes, nearest, show
from bltybench.scenario.target import SandboxLimits, Target
from bltybench.scenario.workload import Scenario

DEFAULT_FILE = Path("scenarios.toml")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
"""A name that can be part of a run folder's name."""


_T = TypeVar("_T")


class Book(Table):
    """The whole of scenarios.toml."""

    default_scenario: str = "quickstart"
    """Scenario to run if none is named. Default: ``quickstart``, or else the first of the file."""
    targets: dict[Name, Target]
    scenarios: dict[Name, Scenario]

    _path: Path = PrivateAttr(default=DEFAULT_FILE)
    _base_dir: Path = PrivateAttr(default=Path())

    @model_validator(mode="before")
    @classmethod
    def _first_is_default(cls, document: dict[str, Any]) -> dict[str, Any]:
        scenarios = document.get("scenarios")
        if not isinstance(scenarios, dict) or not scenarios or "quickstart" in scenarios:
            return document
        return {"default_scenario": next(iter(scenarios))} | document

    @property
    def path(self) -> Path:
        """Path of the file that was read."""
        return self._path

    @property
    def base_dir(self) -> Path:
        """Base folder for files it names: its own folder, or the current one for the packaged file."""
        return self._base_dir

    def scenario(self, name: str) -> Scenario:
        """Return a scenario by name. Raise UserError with suggestions if there is none."""
        return _find(name, self.scenarios, "scenario", self._path)

    def target(self, name: str) -> Target:
        """Return a target by name. Raise UserError with suggestions if there is none."""
        return _find(name, self.targets, "target", self._path)


def load_book(path: Path | None = None) -> Book:
    """Read and validate scenarios.toml.

    Without ``path``, use the one in the current folder, or else the packaged one. Raise UserError that lists
    every error.
    """
    base_dir = Path() if path is None else path.parent
    if path is None:
        path = DEFAULT_FILE if DEFAULT_FILE.exists() else starter_file("scenarios.toml")
    document = read_toml(path)
    errors = list(_cross_check(document))
    try:
        book = Book.model_validate(_tuples(document), strict=True)
    except ValidationError as error:
        raise mistakes(str(path), [*explain(error, document, Book), *errors]) from None
    if errors:
        raise mistakes(str(path), errors)
    book._path = path
    book._base_dir = base_dir.resolve()
    return book


def load_limits(path: Path) -> SandboxLimits:
    """Read limits.toml. Raise UserError if it is missing, not TOML, or has keys the sandbox does not know."""
    document = read_toml(path, what="limits file")
    try:
        return SandboxLimits.model_validate(document)
    except ValidationError as error:
        raise UserError("; ".join(explain(error, document, SandboxLimits)), where=str(path)) from None


def _find(name: str, known: Mapping[str, _T], what: str, path: Path) -> _T:
    if name in known:
        return known[name]
    raise UserError(f"no such {what}: {show(name)}", where=str(path), remedy=nearest(name, list(known)))


def _tuples(value: Any) -> Any:
    """Return the document with lists as tuples, as the tables declare them."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value


def _targets_in(scenario: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each target that a scenario names, with its key, as far as the shapes allow."""
    mix, retry = scenario.get("mix"), scenario.get("retry")
    calls = [call for call in mix if isinstance(call, dict)] if isinstance(mix, list) else []
    lists = [("targets", scenario.get("targets"))]
    lists += [(f"mix[{call.get('name', '')}].targets", call.get("targets")) for call in calls]
    lists += [("retry.fallback", retry.get("fallback"))] if isinstance(retry, dict) else []
    if "targets" not in scenario:
        lists.append(("target", [scenario.get("target", "sandbox")]))
    for place, names in lists:
        for name in names if isinstance(names, dict | list) else ():
            if isinstance(name, str):
                yield place, name


def _cross_check(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield inconsistencies between tables, as far as their shapes allow."""
    targets, scenarios = document.get("targets"), document.get("scenarios")
    if not isinstance(targets, dict) or not isinstance(scenarios, dict):
        return
    default = document.get("default_scenario")
    if isinstance(default, str) and default not in scenarios:
        yield f"default_scenario = {show(default)}: no such scenario; {nearest(default, list(scenarios))}"
    for name, scenario in scenarios.items():
        if not isinstance(scenario, dict):
            continue
        for one, several in ONE_OF.items():
            if one in scenario and several in scenario:
                yield f"{dotted(['scenarios', name])}: set {one} or {several}, not both"
        for place, target in _targets_in(scenario):
            if target not in targets:
                key = dotted(["scenarios", name]) + f".{place}"
                yield f"{key} = {show(target)}: no such target; {nearest(target, list(targets))}"
        checks = scenario.get("checks")
        for metric, value in checks.items() if isinstance(checks, dict) else ():
            try:
                parse_check(metric, value)
            except UserError as error:
                key = dotted(["scenarios", name, "checks", metric])
                yield f"{key} = {show(value)}: {error.what}" + (f"; {error.remedy}" if error.remedy else "")
