"""What will run: a scenario and a target, with what the command line gives in place of the file's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.scenario.arrivals.patterns import Ramp, Stairs
from bltybench.scenario.cost import mean_tokens
from bltybench.scenario.file.scenario_file import Book
from bltybench.scenario.file.validation_messages import explain
from bltybench.scenario.target import Target
from bltybench.scenario.workload import Scenario, Trace

_FLAGS = {"users": "--users", "duration_s": "--run-time", "base_url": "--host"}
"""What a value of the command line is called there."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A scenario and its target, ready to run."""

    name: str
    scenario: Scenario
    target_name: str
    target: Target
    base_dir: Path
    """What the files that the scenario names are relative to."""


def resolve(
    book: Book,
    scenario: str | None = None,
    target: str | None = None,
    *,
    users: int | None = None,
    duration_s: float | None = None,
    base_url: str | None = None,
) -> Resolved:
    """Choose a scenario (the file's default) and a target (the scenario's), and apply what is given.

    ``base_url`` replaces the target's. A key is only ever sent to the address it was configured for, and
    documented limits are those of one API, so another address on this machine takes neither from the target
    (the sandbox, whose key is public, moves as a whole), and one elsewhere is refused.

    Raises UserError where a name is unknown, a value is out of range or a file that the scenario names is
    missing.
    """
    name = scenario or book.default_scenario
    chosen = book.scenario(name)
    given = {"users": users, "duration_s": duration_s, "target": target}
    chosen = _override(chosen, {key: value for key, value in given.items() if value is not None})
    target_name = chosen.target
    found = book.target(target_name)
    if base_url:
        target_name, found = _at(book, target_name, found, base_url)
    _files_exist(name, chosen, book)
    chosen = _in_requests(chosen, book.base_dir)
    return Resolved(name, chosen, target_name, found, book.base_dir)


def require_budget(target_name: str, target: Target) -> None:
    """Raise UserError where a target beyond this machine has no budget."""
    if target.is_local or any(cap is not None for cap in target.budget.model_dump().values()):
        return
    raise UserError(
        f"target '{target_name}' is not on this machine and has no budget",
        where=target.base_url,
        remedy=f"add the most that a run may spend:\n"
        f"      [targets.{target_name}.budget]\n"
        f"      requests = 200\n"
        f"      tokens = 50_000",
    )


def _override(scenario: Scenario, given: dict[str, object]) -> Scenario:
    document = scenario.model_dump() | given
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        lines = list(explain(error, document, Scenario))
        key, _, rest = lines[0].partition(" ")
        raise UserError(f"{_FLAGS.get(key, key)} {rest.removeprefix('= ')}") from None


def _in_requests(scenario: Scenario, base_dir: Path) -> Scenario:
    """Settle what a rate in tokens is divided by, so that every process divides by the same."""
    arrivals = scenario.arrivals
    if not isinstance(arrivals, Ramp | Stairs) or arrivals.unit != "tokens" or arrivals.tokens_per_request:
        return scenario
    mean = mean_tokens(scenario, base_dir).total
    return scenario.model_copy(
        update={"arrivals": arrivals.model_copy(update={"tokens_per_request": round(mean, 3)})}
    )


def _at(book: Book, name: str, target: Target, base_url: str) -> tuple[str, Target]:
    """Return the target moved to ``base_url``, and the name it then goes by."""
    try:
        moved = Target.model_validate({"base_url": base_url})
    except ValidationError as error:
        line = next(explain(error, {"base_url": base_url}, Target))
        raise UserError("--host" + line.removeprefix("base_url").replace(" =", "")) from None
    parts = urlsplit(moved.base_url)
    if not parts.path:  # Locust's --host has no path: keep the API's
        path = urlsplit(target.base_url).path
        moved = moved.model_copy(update={"base_url": urlunsplit(parts._replace(path=path))})
    if _origin(moved) == _origin(target):
        return name, target.model_copy(update={"base_url": moved.base_url})
    if not moved.is_local:
        others = [other for other, known in book.targets.items() if _origin(known) == _origin(moved)]
        raise UserError(
            f"--host {moved.base_url} is not the address of target '{name}', whose key and limits it has",
            remedy=f"use --target {others[0]}" if others else _add_a_target(book, moved),
        )
    if target.sandbox is not None:
        return name, target.model_copy(update={"base_url": moved.base_url})
    return parts.netloc, moved.model_copy(
        update={
            "timeouts": target.timeouts,
            "budget": target.budget,
            "prices": target.prices,
            "verify_tls": target.verify_tls,
        }
    )


def _add_a_target(book: Book, target: Target) -> str:
    return (
        f"add a target to {book.path} and name it with --target:\n"
        f"      [targets.mine]\n"
        f'      base_url = "{target.base_url}"\n'
        f'      api_key_env = "MY_API_KEY"\n'
        f"      [targets.mine.budget]\n"
        f"      requests = 200"
    )


def _origin(target: Target) -> tuple[str, str | None, int]:
    parts = urlsplit(target.base_url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _files_exist(name: str, scenario: Scenario, book: Book) -> None:
    """Raise UserError for the first file that the scenario names and that is not there."""
    named = [("arrivals.file", scenario.arrivals.file)] if isinstance(scenario.arrivals, Trace) else []
    named += [
        (f"mix[{call.name}].conversations", call.conversations)
        for call in scenario.mix
        if call.conversations is not None
    ]
    for key, file in named:
        if not (book.base_dir / file).is_file():
            raise UserError(
                f"no file at {book.base_dir / file}",
                where=f"{book.path}: scenarios.{name}.{key}",
                remedy="put it there, or name another; paths are relative to the folder of scenarios.toml",
            )
