"""Resolution: the scenario and target to run, with command-line overrides applied."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.scenario.api.documented_limits import Limit, sum_limits
from bltybench.scenario.cost import mean_tokens
from bltybench.scenario.file.scenario_file import Book
from bltybench.scenario.file.validation_messages import explain
from bltybench.scenario.patterns import Ramp, Stairs, Trace
from bltybench.scenario.target import SANDBOX_KEY, Target
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Scenario

KEPT_WITH_HOST = (
    "body", "budget", "ca_file", "chat_path", "max_tokens_key", "prices", "stream_options", "timeouts",
    "verify_tls",
)  # fmt: skip
"""What a target keeps if --host names another address on this machine."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A scenario and its target, ready to run."""

    name: str
    scenario: Scenario
    target_name: str
    target: Target
    base_dir: Path
    """Base folder for files that the scenario names."""
    path: Path
    """The file that was read: scenarios.toml, or the packaged one."""
    others: dict[str, Target] = field(default_factory=dict)
    """Further targets of the scenario by name."""

    @property
    def targets(self) -> dict[str, Target]:
        """All targets by name, the first one first."""
        return {self.target_name: self.target} | self.others

    def documented(self) -> list[Limit]:
        """Return the documented limits of the whole run: those of all keys, models, and targets added up."""
        scopes: list[list[Limit]] = []
        for name, target in self.targets.items():
            sizes = {"key": len(target.key_names), "model": len(self.scenario.models_on(name))}
            scopes += [target.documented] * math.prod(max(1, sizes[per]) for per in target.limits_per)
        return sum_limits(scopes)


def resolve(
    book: Book,
    scenario: str | None = None,
    target: str | None = None,
    *,
    users: int | None = None,
    duration_s: float | None = None,
    base_url: str | None = None,
    duration_flag: str = "--run-time",
) -> Resolved:
    """Choose a scenario and a target, falling back to the file's defaults, and apply overrides.

    ``base_url`` replaces the target's. A key is only sent to the address it was configured for, and
    documented limits belong to one API. So another address on this machine is a target of its own, with
    neither of them and no sandbox, unless it is that of a known target. An address elsewhere is refused.
    ``target`` replaces all targets of the scenario. Messages call ``duration_s`` the ``duration_flag``.

    Raise UserError for an unknown name, an out-of-range value, or a missing file.
    """
    name = scenario or book.default_scenario
    overrides = {"users": users, "duration_s": duration_s, "target": target}
    scenario_table = book.scenario(name)
    if target is not None:
        scenario_table = _without_lists(scenario_table)
    chosen = _override(
        scenario_table,
        {key: value for key, value in overrides.items() if value is not None},
        {"users": "--users", "duration_s": duration_flag},
    )
    target_name, *others = chosen.target_names()
    api = book.target(target_name)
    if base_url and others and base_url != api.base_url:
        raise UserError(
            f"--host {base_url} is one address, but scenario '{name}' has several targets",
            remedy="choose one of them with --target",
        )
    if base_url and not others:
        target_name, api = _at(book, target_name, api, base_url)
        chosen = _without_lists(chosen).model_copy(update={"target": target_name})
    _files_exist(name, chosen, book)
    if target is None and target_name in book.targets:
        _has_fallback(name, chosen, book)
    further = {other: book.target(other) for other in others}
    chosen = _in_requests(chosen, book.base_dir, api)
    return Resolved(name, chosen, target_name, api, book.base_dir, book.path, further)


def require_budget(target_name: str, target: Target) -> None:
    """Raise UserError if a remote target has no budget."""
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


def for_probe(resolved: Resolved) -> Resolved:
    """Return a scenario with the first of several keys only.

    Raise UserError if it has several targets or models, because a probe measures the limits of one.
    """
    scenario, target = resolved.scenario, resolved.target
    if resolved.others or len(scenario.choices().models) > 1:
        raise UserError(
            "the probe measures the limits of one target and one model",
            where=f"scenarios.{resolved.name}",
            remedy="set target and model instead of lists; of several keys, it uses the first",
        )
    if target.keys is None:
        return resolved
    return replace(resolved, target=target.model_copy(update={"keys": {target.key_names[0]: 1.0}}))


def _without_lists(scenario: Scenario) -> Scenario:
    """Return a scenario whose only target is ``target``."""
    retry = scenario.retry
    if not isinstance(retry.fallback, bool):
        retry = retry.model_copy(update={"fallback": False})
    mix = tuple(call.model_copy(update={"targets": None}) for call in scenario.mix)
    return scenario.model_copy(update={"targets": None, "mix": mix, "retry": retry})


def _override(scenario: Scenario, overrides: dict[str, object], flags: dict[str, str]) -> Scenario:
    document = scenario.model_dump() | overrides
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        key, _, rest = next(explain(error, document, Scenario)).partition(" ")
        if key == ":":  # about several keys
            given = (f"{flags[name]} {value}" for name, value in overrides.items() if name in flags)
            key = f"{' '.join(given)}:"
        raise UserError(f"{flags.get(key, key)} {rest.removeprefix('= ')}") from None


def _in_requests(scenario: Scenario, base_dir: Path, target: Target) -> Scenario:
    """Compute the tokens per request of a token rate once, so that every process uses the same value."""
    arrivals = scenario.arrivals
    if not isinstance(arrivals, Ramp | Stairs) or arrivals.unit != "tokens" or arrivals.tokens_per_request:
        return scenario
    tokens = round(mean_tokens(scenario, base_dir, target).total, 3)
    resolved = arrivals.model_copy(update={"tokens_per_request": tokens})
    return scenario.model_copy(update={"arrivals": resolved})


def _at(book: Book, name: str, target: Target, base_url: str) -> tuple[str, Target]:
    """Return the target at ``base_url`` and its name: a known one, or one of its own without credentials."""
    try:
        moved = Target.model_validate({"base_url": base_url})
    except ValidationError as error:
        line = next(explain(error, {"base_url": base_url}, Target))
        raise UserError("--host" + line.removeprefix("base_url").replace(" =", "")) from None
    parts = urlsplit(moved.base_url)
    if not parts.path:  # Locust's --host has no path, so keep the API's
        path = urlsplit(target.base_url).path
        moved = moved.model_copy(update={"base_url": urlunsplit(parts._replace(path=path))})
    if _origin(moved) == _origin(target):
        return name, _moved(target, moved)
    others = [other for other, known in book.targets.items() if _origin(known) == _origin(moved)]
    if not moved.is_local:
        raise UserError(
            f"--host {moved.base_url} is not the address of target '{name}', to which its key and "
            "limits belong",
            remedy=f"use --target {others[0]}"
            if others
            else f"add a target to {book.path} and select it with --target:\n"
            f"      [targets.mine]\n"
            f'      base_url = "{moved.base_url}"\n'
            f'      api_key_env = "MY_API_KEY"\n'
            f"      [targets.mine.budget]\n"
            f"      requests = 200",
        )
    if others:
        return others[0], _moved(book.target(others[0]), moved)
    changes: dict[str, Any] = {field: getattr(target, field) for field in KEPT_WITH_HOST}
    if target.sandbox is not None:
        # Another sandbox accepts this public key. Servers without keys ignore it.
        changes["headers"] = {"Authorization": f"Bearer {SANDBOX_KEY}"}
    return parts.netloc, moved.model_copy(update=changes)


def _moved(target: Target, address: Target) -> Target:
    """Return a target with the path of an address, and its query if that has one."""
    query = address.query or target.query
    return target.model_copy(update={"base_url": address.base_url, "query": query})


def _origin(target: Target) -> tuple[str, str | None, int]:
    parts = urlsplit(target.base_url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80)


def _has_fallback(name: str, scenario: Scenario, book: Book) -> None:
    """Raise UserError if a scenario falls back to other entries, but has only one target, key, and model."""
    names = scenario.target_names()
    several = len(names) > 1 or len(book.target(names[0]).key_names) > 1
    models = any(len(scenario.choices(call).models) > 1 for call in scenario.mix or (None,))
    if scenario.retry.fallback and not several and not models:
        raise UserError(
            "there is nothing to fall back to",
            where=f"{book.path}: scenarios.{name}.retry.fallback",
            remedy="list several keys, models, or targets, or remove fallback",
        )


def _files_exist(name: str, scenario: Scenario, book: Book) -> None:
    """Raise UserError for the first missing file that the scenario names."""
    for key, file in named_files(scenario):
        if not (book.base_dir / file).is_file():
            raise UserError(
                f"no file at {book.base_dir / file}",
                where=f"{book.path}: scenarios.{name}.{key}",
                remedy="create it, or name another; paths are relative to the folder of scenarios.toml",
            )


def named_files(scenario: Scenario) -> list[tuple[str, str]]:
    """Return the files that a scenario names, each with its key."""
    arrivals = scenario.of_one_policy().arrivals
    named = [("arrivals.file", arrivals.file)] if isinstance(arrivals, Trace) else []
    named += [
        (f"mix[{call.name}].conversations", call.conversations)
        for call in scenario.mix
        if call.conversations is not None
    ]
    if scenario.limits_file is not None:
        table = "arrivals" if isinstance(scenario.arrivals, Tournament) else "pacing"
        named.append((f"{table}.limits", scenario.limits_file))
    named += [
        (f"mix[{call.name}].requests.file", call.requests.file)
        for call in scenario.mix
        if call.requests is not None
    ]
    return named
