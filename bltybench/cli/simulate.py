"""``bltybench simulate``: what each retry policy would achieve against a limiter, in virtual time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args

import typer

from bltybench.cli.sandbox import changed_limit
from bltybench.errors import UserError
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.base import MAX_DURATION_S, MAX_NUMBER
from bltybench.text import sanitize

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bltybench.policies.advice.needed_limit import NeededLimit
    from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
    from bltybench.policies.tournament import LimiterResult, SimulatedTournament
    from bltybench.scenario.target import SandboxLimits
    from bltybench.scenario.workload import Scenario


def simulate(  # noqa: PLR0917 - typer makes options of them
    scenario: Annotated[
        str | None,
        typer.Argument(help="Scenario whose arrivals and lengths to use.", show_default="the file's"),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Retry policy, repeatable. Default: all of them.")
    ] = None,
    pacing: Annotated[
        list[str] | None,
        typer.Option(help="Pacing of the requests, repeatable: see docs/retries.md. Default: none."),
    ] = None,
    limiter: Annotated[
        list[str] | None, typer.Option(help="Algorithm of the request limit, repeatable.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=0, max=MAX_NUMBER, help="Requests per period. 0 means no limit.")
    ] = None,
    period_s: Annotated[
        float | None,
        typer.Option(min=0.001, max=MAX_NUMBER, help="Period of the request limit, in seconds."),
    ] = None,
    limits_file: Annotated[
        Path | None,
        typer.Option("--limits", help="limits.toml with limits to use instead of the target's."),
    ] = None,
    clients: Annotated[
        int, typer.Option(min=1, help="Independent clients that share the limits and the users.")
    ] = 1,
    calls: Annotated[
        int | None, typer.Option(min=1, max=2_000_000, help="Send a batch of calls instead of the arrivals.")
    ] = None,
    users: Annotated[int | None, typer.Option(help="Users instead of the scenario's.")] = None,
    duration_s: Annotated[float | None, typer.Option(help="Duration instead of the scenario's.")] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_NUMBER, help="Attempts of a call instead of the scenario's."),
    ] = None,
    response_s: Annotated[
        float | None,
        typer.Option(
            min=0, max=MAX_DURATION_S, help="Time of a response. Default: the sandbox's delays, or 1 s."
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(help="Run whose calls, response time, and limits to use instead of a scenario's."),
    ] = None,
    need: Annotated[
        str | None,
        typer.Option(help="Find the smallest request limit instead: 'p95 <= 5 s', 'gave_up <= 1 %', …"),
    ] = None,
    reports: Annotated[Path, typer.Option(help="Directory that contains the runs.")] = Path("reports"),
    scenario_file: Annotated[
        Path | None, typer.Option(help="Path of scenarios.toml.", show_default="the current directory's")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the results as JSON to stdout.")] = False,
) -> None:
    """Compare retry and pacing policies in virtual time, also with the best that any client could do.

    The same seed gives the same result. Nothing is sent.
    """
    from bltybench.policies.advice.needed_limit import needed_limit, read_objective  # noqa: PLC0415 - see app.py
    from bltybench.policies.tournament import play, variant  # noqa: PLC0415 - as above
    from bltybench.scenario.file.scenario_file import load_limits  # noqa: PLC0415 - as above
    from bltybench.scenario.pacing import PACINGS  # noqa: PLC0415 - as above
    from bltybench.scenario.retry import PolicyName  # noqa: PLC0415 - as above

    policies = _known("--policy", policy, get_args(PolicyName))
    pacings = [paced for paced in PACINGS if paced in _known("--pacing", pacing or ["none"], PACINGS)]
    algorithms = _known("--limiter", limiter, get_args(Algorithm)) if limiter else [None]
    objective = None if need is None else read_objective(need)
    if run is None:
        given = _of_scenario(scenario, scenario_file, users, duration_s, clients, calls, response_s)
    elif scenario is None and users is None and duration_s is None:
        given = _of_run(run, reports, clients, calls, response_s)
    else:
        raise UserError("can't be combined with a scenario, --users, or --duration-s", where="--run")
    chosen = given.scenario
    if max_attempts is not None:
        retry = chosen.retry.model_copy(update={"max_attempts": max_attempts})
        chosen = chosen.model_copy(update={"retry": retry})
    apis = given.limits if limits_file is None else [load_limits(limits_file)] * len(given.limits)
    variants = [
        [
            limits.model_copy(
                update={"requests": changed_limit(limits.requests, requests, period_s, algorithm)}
            )
            for limits in apis
        ]
        for algorithm in algorithms
    ]
    if objective is not None and len(apis) > 1:
        raise UserError(
            "finds the limit of one key, model, and target, but the calls have several",
            where="--need",
            remedy="name a scenario without lists and fallback",
        )
    if objective is not None:
        needed = [
            needed_limit(
                given.load,
                enforced,
                variant(chosen.retry, name),
                given.service,
                objective,
                seed=chosen.seed,
                pacing=paced,
            )
            for (enforced,) in variants
            for name in policies
            for paced in pacings
        ]
        _write_needed(needed, as_json=as_json)
        return
    result = play(
        given.name,
        chosen,
        given.load,
        service=given.service,
        variants=variants,
        policies=policies,
        pacings=pacings,
    )
    if as_json:
        sys.stdout.write(result.to_json().decode())
    else:
        _show(result)


class _Given(NamedTuple):
    """What is simulated: the calls, the limits, and how long responses take."""

    name: str
    scenario: Scenario
    load: SimulatedLoad
    service: ServiceTime
    limits: list[SandboxLimits]
    """Those of each API that the calls use."""


def _of_scenario(  # noqa: PLR0917 - the options
    scenario: str | None,
    scenario_file: Path | None,
    users: int | None,
    duration_s: float | None,
    clients: int,
    calls: int | None,
    response_s: float | None,
) -> _Given:
    from bltybench.policies.advice.known_limits import limits_of  # noqa: PLC0415 - as above
    from bltybench.policies.simulated_load import (  # noqa: PLC0415 - as above
        SimulatedRoutes,
        load_of,
        service_time,
    )
    from bltybench.scenario.file.resolve import resolve  # noqa: PLC0415 - as above
    from bltybench.scenario.file.scenario_file import load_book  # noqa: PLC0415 - as above

    resolved = resolve(
        load_book(scenario_file),
        scenario,
        users=users,
        duration_s=duration_s,
        duration_flag="--duration-s",
    )
    one = resolved.scenario.of_one_policy()
    routes = SimulatedRoutes(
        one, resolved.targets, {name: limits_of(target) for name, target in resolved.targets.items()}
    )
    load = load_of(one, resolved.base_dir, clients=clients, batch=calls, routes=routes)
    return _Given(
        name=resolved.name,
        scenario=one,
        load=load,
        service=service_time(resolved.target.sandbox, response_s),
        limits=routes.limits,
    )


def _of_run(run: str, reports: Path, clients: int, calls: int | None, response_s: float | None) -> _Given:
    from bltybench.policies.simulated_load import service_time  # noqa: PLC0415 - as above
    from bltybench.report.run_limits import known_limits  # noqa: PLC0415 - as above
    from bltybench.report.run_load import load_of_run  # noqa: PLC0415 - as above
    from bltybench.runs.folder import find_run  # noqa: PLC0415 - as above

    folder = find_run(run, reports)
    found = load_of_run(folder, clients=clients, batch=calls)
    return _Given(
        name=f"run {folder.manifest().run_id}",
        scenario=found.scenario,
        load=found.load,
        service=found.service if response_s is None else service_time(None, response_s),
        limits=[known_limits(folder).limits],
    )


def _known(option: str, given: list[str] | None, known: Sequence[str]) -> Sequence[str]:
    """Return the names that are given, or else all. Raise UserError for an unknown one."""
    from bltybench.scenario.file.validation_messages import nearest  # noqa: PLC0415 - as above

    for name in given or ():
        if name not in known:
            raise UserError(f"unknown name; {nearest(name, known)}", where=f"{option} {sanitize(name)}")
    return given or known


def _show(result: SimulatedTournament) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    console.print(Text(result.sentence()), soft_wrap=True)
    for limiter in result.limiters:
        console.print()
        console.print(Text(limiter.sentence(), style="bold"), soft_wrap=True)
        console.print(Text(limiter.optimum_sentence()), soft_wrap=True)
        _print_wide(console, _table(limiter))


def _print_wide(console: Console, table: Table) -> None:
    """Print a table. A narrow terminal wraps its lines: shortened cells would hide what the numbers are."""
    console.width = max(
        console.width, console.measure(table, options=console.options.update(width=1000)).maximum
    )
    console.print(table)


COLUMNS = (
    "policy", "pacing", "calls", "ok", "gave up", "below optimum %", "goodput/min",
    "refusals per success", "wasted tokens", "p50 s", "p95 s", "p99 s", "fairness", "makespan s",
)  # fmt: skip


def _table(limiter: LimiterResult) -> Table:
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in {"policy", "pacing"} else "right", no_wrap=True)
    for row in limiter.results:
        table.add_row(
            row.policy,
            row.pacing,
            f"{row.calls:,}",
            f"{row.ok:,}",
            f"{row.gave_up:,}",
            _number(row.below_optimum_percent, 1),
            _number(row.goodput_per_min, 1),
            _number(row.refusals_per_success, 2),
            f"{row.wasted_tokens:,}",
            _number(row.success_p50_s, 2),
            _number(row.success_p95_s, 2),
            _number(row.success_p99_s, 2),
            _number(row.fairness, 3),
            f"{row.makespan_s:,.1f}",
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _write_needed(needed: Sequence[NeededLimit], *, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415 - as above
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(needed)).decode() + "\n")
        return
    console = Console(highlight=False)
    console.print(Text(f"Smallest request limit for {needed[0].objective}:"))
    table = Table(box=None, pad_edge=False)
    for column in ("algorithm", "policy", "pacing"):
        table.add_column(column, no_wrap=True)
    for column in ("requests", "period s", "value"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in needed:
        limit = "none is enough" if row.limit is None else f"{row.limit:,}"
        table.add_row(
            row.algorithm, row.policy, row.pacing, limit, f"{row.period_s:g}", _number(row.value, 2)
        )
    _print_wide(console, table)
