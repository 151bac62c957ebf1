"""``bltybench advise``: the settings of clients that keep an API's limits, and what to expect from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from bltybench.text import sanitize

if TYPE_CHECKING:
    from bltybench.policies.advice.prediction import Advice
    from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
    from bltybench.report.run_limits import KnownLimits
    from bltybench.runs.folder import RunFolder


def advise(  # noqa: PLR0917 - typer makes options of them
    source: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|FILE]", help="A run, or a limits.toml.", show_default="newest run"),
    ] = None,
    clients: Annotated[
        int, typer.Option(min=1, max=10_000, help="Independent clients, such as replicas.")
    ] = 1,
    keys: Annotated[
        int, typer.Option(min=1, max=10_000, help="Keys that the clients divide among them.")
    ] = 1,
    scenario: Annotated[
        str | None,
        typer.Option(help="Scenario whose calls to expect.", show_default="the run's calls, or the file's"),
    ] = None,
    calls: Annotated[
        int | None,
        typer.Option(min=1, max=200_000, help="Expect a batch of calls instead of a scenario's arrivals."),
    ] = None,
    scenario_file: Annotated[
        Path | None, typer.Option(help="Path of scenarios.toml.", show_default="the current directory's")
    ] = None,
    reports: Annotated[Path, typer.Option(help="Directory that contains the runs.")] = Path("reports"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Write only the advice, as JSON, to stdout.")
    ] = False,
) -> None:
    """Turn the limits of a run, a probe, or a limits.toml into settings for clients.

    Prints the pace of each client, what to expect from it, and settings to copy for the openai package,
    LiteLLM, LangChain, tenacity, nginx, and Envoy. Nothing is sent.
    """
    from bltybench.policies.advice.prediction import Advice, predict  # noqa: PLC0415 - see app.py
    from bltybench.policies.advice.prescription import prescribe  # noqa: PLC0415
    from bltybench.policies.advice.settings import settings  # noqa: PLC0415

    is_file = source is not None and (source.endswith(".toml") or Path(source).is_file())
    basis = _of_file(Path(source)) if source is not None and is_file else _of_run(source, reports)
    workload = _workload(basis, scenario, scenario_file, calls, clients)
    known = basis.known
    limits = known.limits
    prescription = prescribe(limits, workload.load.sizes, clients=clients, keys=keys, banned=known.banned)
    made = Advice(
        source=basis.name,
        limits=known.sources,
        prescription=prescription,
        workload=workload.name,
        predicted=predict(workload.load, limits, prescription, workload.service, seed=workload.seed),
        settings=settings(
            prescription, model=workload.model, base_url=workload.base_url, timeout_s=workload.timeout_s
        ),
    )
    if as_json:
        sys.stdout.write(made.to_json().decode())
    else:
        _show(made)


class _Basis(NamedTuple):
    """What the advice is derived from: a run, or a file."""

    name: str
    known: KnownLimits
    run: RunFolder | None


class _Workload(NamedTuple):
    """The calls to expect, and how long their responses take."""

    name: str
    load: SimulatedLoad
    service: ServiceTime
    seed: int
    model: str
    base_url: str
    timeout_s: int


def _of_file(path: Path) -> _Basis:
    from bltybench.policies.advice.known_limits import completed  # noqa: PLC0415 - as above
    from bltybench.report.run_limits import KnownLimits  # noqa: PLC0415 - as above
    from bltybench.scenario.file.scenario_file import load_limits  # noqa: PLC0415 - as above
    from bltybench.scenario.target import SandboxLimits  # noqa: PLC0415 - as above

    none = SandboxLimits(requests=None, tokens=None, concurrency=None)
    limits, sources = completed(load_limits(path), none)
    banned = limits.requests is not None and limits.requests.ban_s is not None
    return _Basis(str(path), KnownLimits(limits, sources, probed=False, banned=banned), None)


def _of_run(source: str | None, reports: Path) -> _Basis:
    from bltybench.report.run_limits import known_limits  # noqa: PLC0415 - as above
    from bltybench.runs.folder import find_run  # noqa: PLC0415 - as above

    folder = find_run(source, reports)
    return _Basis(f"run {folder.manifest().run_id}", known_limits(folder), folder)


def _workload(
    basis: _Basis, scenario: str | None, scenario_file: Path | None, calls: int | None, clients: int
) -> _Workload:
    """Return the scenario's calls if one is given, or else the run's. A probe's calls are not typical."""
    run = basis.run
    if run is not None and scenario is None and not basis.known.probed:
        return _calls_of(run, calls, clients)
    from bltybench.policies.advice.settings import timeout_s  # noqa: PLC0415 - as above
    from bltybench.policies.simulated_load import load_of, service_time  # noqa: PLC0415 - as above
    from bltybench.runs.manifest import read_scenario  # noqa: PLC0415 - as above
    from bltybench.scenario.file.resolve import resolve  # noqa: PLC0415 - as above
    from bltybench.scenario.file.scenario_file import load_book  # noqa: PLC0415 - as above

    resolved = resolve(load_book(scenario_file), scenario)
    chosen, target = resolved.scenario, resolved.target
    manifest = None if run is None else run.manifest()
    chosen = chosen.model_copy(update={"users": max(chosen.users, clients)})
    load = load_of(chosen, resolved.base_dir, clients=clients, batch=calls)
    return _Workload(
        name=f"scenario {resolved.name}" if calls is None else f"{calls:,} calls of scenario {resolved.name}",
        load=load,
        service=service_time(target.sandbox, None),
        seed=chosen.seed,
        model=chosen.model if manifest is None else read_scenario(manifest).model,
        base_url=target.base_url if manifest is None else manifest.target.base_url,
        timeout_s=timeout_s(None),
    )


def _calls_of(run: RunFolder, calls: int | None, clients: int) -> _Workload:
    from bltybench.policies.advice.settings import timeout_s  # noqa: PLC0415 - as above
    from bltybench.report.run_load import load_of_run  # noqa: PLC0415 - as above

    found = load_of_run(run, clients=clients, batch=calls)
    return _Workload(
        name="the run's calls" if calls is None else f"{calls:,} calls like those of the run",
        load=found.load,
        service=found.service,
        seed=found.scenario.seed,
        model=found.scenario.model,
        base_url=run.manifest().target.base_url,
        timeout_s=timeout_s(found.slowest_s),
    )


def _show(made: Advice) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    from bltybench.policies.advice.prediction import sentences  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    console.print(Text(f"Advice by the limits of {sanitize(made.source)}"), soft_wrap=True)
    for line in sentences(made.prescription, made.limits):
        console.print(Text(f"  {line}"), soft_wrap=True)
    shared = made.prescription.sharing
    clients = "1 client" if shared == 1 else f"{shared:,} clients that share one limit"
    console.print()
    console.print(Text(f"Predicted for {clients}, {sanitize(made.workload)}:"), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("pacing", no_wrap=True)
    for column in ("calls", "gave up", "refused %", "p50 s", "p95 s", "makespan s"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in made.predicted:
        refused = row.refused_by_requests + row.refused_by_tokens + row.refused_by_concurrency
        table.add_row(
            row.pacing,
            f"{row.calls:,}",
            f"{row.gave_up:,}",
            f"{100 * refused / row.attempts:.2f}" if row.attempts else "-",
            *("-" if value is None else f"{value:,.2f}" for value in (row.success_p50_s, row.success_p95_s)),
            f"{row.makespan_s:,.1f}",
        )
    console.print(table)
    for setting in made.settings:
        console.print()
        console.print(Text(f"{setting.name}: {setting.note}", style="bold"), soft_wrap=True)
        # Plain, so that it can be copied, or piped to a file.
        sys.stdout.write(setting.text)
