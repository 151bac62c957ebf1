"""What one streamed event costs and how exactly its arrival is known: this client and others, side by side.

python -m benchmarks.wire --quick              about a minute, to see that all of it works
python -m benchmarks.wire --json out.json --plot out.png

Each client does the same work in a process of its own, on one core; the server has the other one. Flooded:
the server writes whole answers, as fast as they are asked for. Paced: it writes one event at a time, so that
a read brings one. A line is the median of several runs; the clients take turns, so that what else the machine
does meets all of them. With ``--together`` ours is measured beside each other one at the same time on the
same core: for ratios of CPU an event, which then hardly depend on the core's moods (see
``benchmarks.together``).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from benchmarks.bench import CORES, Errors, Outcome, Plan, Server, measure, now
from benchmarks.client import CLIENTS
from benchmarks.together import Pair, run_pairs
from benchmarks.together import table as pairs_table

TOKENS = 64
RATE = 50.0
LEVELS = (1, 50, 200, 500, 1000)
QUICK_LEVELS = (50,)
STEAL_BOUND = 0.05
"""Runs that had more of the machine taken away do not count, where there are others."""

PACKAGES = ("locust", "gevent", "geventhttpclient", "requests", "aiohttp", "httpx", "openai", "uvloop")


class Report(msgspec.Struct, kw_only=True):
    """All that was measured."""

    when: str
    python: str
    versions: dict[str, str]
    cores: int
    outcomes: list[Outcome]
    pairs: list[Pair]


def run_all(plan: Plan, *, together: bool) -> Report:
    """Measure everything; a client that fails is named and left out."""
    with Server() as server:
        outcomes = [] if together else _run_in_turns(server, plan)
        pairs = run_pairs(server, plan, _say) if together else []
    _say("")
    return Report(
        when=now(),
        python=sys.version.split()[0],
        versions={name: found for name in PACKAGES if (found := _version(name))},
        cores=len(CORES),
        outcomes=outcomes,
        pairs=pairs,
    )


def _run_in_turns(server: Server, plan: Plan) -> list[Outcome]:
    outcomes: list[Outcome] = []
    failed: set[str] = set()
    for run, rate, streams in plan.steps():
        for client in plan.clients:
            if client in failed:
                continue
            _say(f"run {run}/{plan.runs}: {_mode(rate)}, {streams} streams, {client}")
            try:
                outcomes += measure(server, [client], plan, rate, streams)
            except RuntimeError as error:
                _say(f"left out: {error}\n")
                failed.add(client)
    return outcomes


def medians(outcomes: Iterable[Outcome]) -> dict[tuple[float, int, str], Outcome]:
    """Return the median of each figure, by rate, streams and client."""
    grouped: dict[tuple[float, int, str], list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault((outcome.rate, outcome.streams, outcome.client), []).append(outcome)
    return {key: _median(found) for key, found in grouped.items()}


def _median(found: list[Outcome]) -> Outcome:
    quiet = [outcome for outcome in found if outcome.steal_share < STEAL_BOUND] or found
    names = (
        "streams_per_s",
        "cpu_us_per_event",
        "cpu_share",
        "rss_mb",
        "server_cpu_share",
        "steal_share",
    )
    errors = [outcome.errors for outcome in quiet if outcome.errors is not None]
    changes: dict[str, float] = {
        name: statistics.median(getattr(outcome, name) for outcome in quiet) for name in names
    }
    return msgspec.structs.replace(quiet[0], **changes, errors=_median_errors(errors) if errors else None)


def _median_errors(errors: list[Errors]) -> Errors:
    def triple(name: str) -> tuple[float, float, float]:
        rows = [getattr(error, name) for error in errors]
        p50, p99, worst = (statistics.median(row[place] for row in rows) for place in range(3))
        return p50, p99, worst

    return Errors(
        arrival=triple("arrival"),
        arrival_alone=triple("arrival_alone"),
        ttft=triple("ttft"),
        itl=triple("itl"),
        coalesced_share=statistics.median(error.coalesced_share for error in errors),
    )


def table(report: Report) -> str:
    """Return the figures as a Markdown table; times in brackets are multiples of ours."""
    found = medians(report.outcomes)
    head = (
        "| work | streams | client | CPU µs/event | streams/s | arrival error ms | TTFT error ms | "
        "ITL error ms | coalesced | steal |"
    )
    lines = [head, "|" + "---|" * 10]
    for (rate, streams, client), row in found.items():
        ours = found.get((rate, streams, CLIENTS[0]), row)
        errors = row.errors
        cells = [
            _mode(rate),
            f"{streams:,}",
            client,
            f"{row.cpu_us_per_event:.1f} (×{row.cpu_us_per_event / ours.cpu_us_per_event:.1f})",
            f"{row.streams_per_s:,.0f} (×{row.streams_per_s / max(ours.streams_per_s, 1e-9):.2f})",
            *([_triple(errors.arrival), _triple(errors.ttft), _triple(errors.itl)] if errors else ["–"] * 3),
            f"{errors.coalesced_share:.1%}" if errors and client == CLIENTS[0] else "–",
            f"{row.steal_share:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Errors are p50 / p99 / max against the server's record; × is the multiple of ours."]
    return "\n".join(lines)


def _made_with(report: Report) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"{report.when}; Python {report.python}; {report.cores} cores; {packages}."


def _triple(values: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in values)


def _mode(rate: float) -> str:
    return f"paced, {rate:g}/s" if rate else "flooded"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _say(words: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{words}")
    elif words:
        sys.stderr.write(words.rstrip() + "\n")
    sys.stderr.flush()


def main() -> None:
    """Measure, print the table, write what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short run at one level")
    parser.add_argument("--runs", type=int, help="runs of each (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="how long each is measured (4; quick: 1)")
    parser.add_argument("--streams", type=int, nargs="+", help=f"levels (default: {LEVELS})")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, RATE], help="0 is flooded")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=CLIENTS)
    parser.add_argument("--together", action="store_true", help="ours beside each other one, on one core")
    parser.add_argument("--json", type=Path, help="write every run's figures here")
    parser.add_argument("--plot", type=Path, help="draw them here (.png, .svg)")
    options = parser.parse_args()
    if options.together and (options.plot or options.clients[0] != CLIENTS[0] or len(options.clients) < 2):
        parser.error(f"--together is for {CLIENTS[0]} and others, and draws nothing")
    if len(CORES) < 2:
        sys.exit("two cores are needed: one for the client, one for the server")
    plan = Plan(
        clients=options.clients,
        levels=options.streams or (QUICK_LEVELS if options.quick else LEVELS),
        rates=options.rates,
        runs=options.runs or (1 if options.quick else 3),
        seconds=options.seconds or (1.0 if options.quick else 4.0),
        tokens=TOKENS,
    )
    report = run_all(plan, together=options.together)
    print(pairs_table(report.pairs) if options.together else table(report))
    print(_made_with(report))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if options.plot:
        from benchmarks.plot import plot  # noqa: PLC0415 - a second that only a plot is worth

        plot(medians(report.outcomes), CLIENTS, options.plot, f"{report.when}, Python {report.python}")


if __name__ == "__main__":
    main()
