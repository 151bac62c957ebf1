"""CPU cost and timing accuracy of one streamed event, for this client and others.

python -m benchmarks.wire --quick              about a minute: does everything work?
python -m benchmarks.wire --json out.json --plot out.png

Each client does the same work in its own process on one core; the server has the other core. Unpaced: the
server writes whole responses as fast as clients request them. Paced: it writes one event at a time, so that a
read returns one. A row is the median of several runs. The clients take turns, so that other load on the
machine affects them all. With ``--together``, ours runs with each other client at the same time on the same
core, which gives ratios that hardly depend on the core's speed (see ``benchmarks.together``).
"""

import argparse
import statistics
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from benchmarks.bench import (
    CORES,
    BenchmarkPlan,
    Measurement,
    ServerProcess,
    Streams,
    TimingErrors,
    measure,
    now,
)
from benchmarks.client import CLIENTS, OURS
from benchmarks.stream_formats import FORMATS, USUAL
from benchmarks.together import Pair, run_pairs
from benchmarks.together import table as pairs_table

TOKENS = 64
RATE = 50.0
LEVELS = (1, 50, 200, 500, 1000)
QUICK_LEVELS = (50,)
MAX_STEAL = 0.05
"""Maximum steal of a run that counts, unless all runs have more."""
PACKAGES = ("locust", "gevent", "geventhttpclient", "requests", "aiohttp", "httpx", "openai", "uvloop")


class BenchmarkReport(msgspec.Struct, kw_only=True):
    """All measurements, and the versions of what was measured."""

    when: str
    python: str
    versions: dict[str, str]
    cores: int
    outcomes: list[Measurement]
    pairs: list[Pair]


def run_all(plan: BenchmarkPlan, *, together: bool) -> BenchmarkReport:
    """Measure everything. BenchmarkReport and skip clients that fail."""
    with ServerProcess() as server:
        outcomes = [] if together else _run_in_turns(server, plan)
        pairs = run_pairs(server, plan, _show_progress) if together else []
    _show_progress("")
    return BenchmarkReport(
        when=now(),
        python=sys.version.split()[0],
        versions={name: number for name in PACKAGES if (number := _version(name))},
        cores=len(CORES),
        outcomes=outcomes,
        pairs=pairs,
    )


def _run_in_turns(server: ServerProcess, plan: BenchmarkPlan) -> list[Measurement]:
    outcomes: list[Measurement] = []
    failed: set[str] = set()
    for run, streams in plan.steps():
        for client in plan.clients:
            if client in failed:
                continue
            _show_progress(f"run {run}/{plan.runs}: {streams}, {client}")
            try:
                outcomes += measure(server, [client], plan, streams)
            except RuntimeError as error:
                _show_progress(f"skipped: {error}\n")
                failed.add(client)
    return outcomes


def medians(outcomes: Iterable[Measurement]) -> dict[tuple[Streams, str], Measurement]:
    """Return the median of each figure, by streams and client."""
    grouped: dict[tuple[Streams, str], list[Measurement]] = {}
    for outcome in outcomes:
        streams = Streams(outcome.rate, outcome.streams, outcome.format)
        grouped.setdefault((streams, outcome.client), []).append(outcome)
    return {key: _median(runs) for key, runs in grouped.items()}


def _median(runs: list[Measurement]) -> Measurement:
    quiet = [run for run in runs if run.steal_share < MAX_STEAL] or runs
    names = (
        "streams_per_s",
        "cpu_us_per_event",
        "cpu_share",
        "rss_mb",
        "server_cpu_share",
        "steal_share",
    )
    errors = [run.errors for run in quiet if run.errors is not None]
    changes: dict[str, float] = {
        name: statistics.median(getattr(run, name) for run in quiet) for name in names
    }
    return msgspec.structs.replace(quiet[0], **changes, errors=_median_errors(errors) if errors else None)


def _median_errors(errors: list[TimingErrors]) -> TimingErrors:
    def triple(name: str) -> tuple[float, float, float]:
        rows = [getattr(error, name) for error in errors]
        p50, p99, worst = (statistics.median(row[place] for row in rows) for place in range(3))
        return p50, p99, worst

    return TimingErrors(
        arrival=triple("arrival"),
        arrival_alone=triple("arrival_alone"),
        ttft=triple("ttft"),
        itl=triple("itl"),
        coalesced_share=statistics.median(error.coalesced_share for error in errors),
        first_coalesced_share=statistics.median(error.first_coalesced_share for error in errors),
    )


def table(report: BenchmarkReport) -> str:
    """Return the figures as a Markdown table."""
    rows = medians(report.outcomes)
    head = (
        "| work | streams | format | client | CPU µs/event | streams/s | arrival error ms | TTFT error ms | "
        "ITL error ms | coalesced | steal |"
    )
    lines = [head, "|" + "---|" * 11]
    for (streams, client), row in rows.items():
        ours = rows.get((streams, OURS), row)
        errors = row.errors
        cells = [
            f"paced, {streams.rate:g}/s" if streams.rate else "unpaced",
            f"{streams.number:,}",
            streams.format,
            client,
            f"{row.cpu_us_per_event:.1f} (×{row.cpu_us_per_event / ours.cpu_us_per_event:.1f})",
            f"{row.streams_per_s:,.0f} (×{row.streams_per_s / max(ours.streams_per_s, 1e-9):.2f})",
            *([_triple(errors.arrival), _triple(errors.ttft), _triple(errors.itl)] if errors else ["–"] * 3),
            f"{errors.coalesced_share:.2%} / {errors.first_coalesced_share:.2%}"
            if errors and client == OURS
            else "–",
            f"{row.steal_share:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Errors: p50 / p99 / max, compared with the server's record. Coalesced: fraction of the events, and "
        "of the first tokens. ×: multiple of ours.",
    ]
    return "\n".join(lines)


def _environment(report: BenchmarkReport) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"{report.when}; Python {report.python}; {report.cores} cores; {packages}."


def _triple(values: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in values)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
    elif text:
        sys.stderr.write(text.rstrip() + "\n")
    sys.stderr.flush()


def main() -> None:
    """Measure, print the table, and write the requested files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="make one short run at one level")
    parser.add_argument("--runs", type=int, help="runs of each client and level (default: 3, quick: 1)")
    parser.add_argument("--seconds", type=float, help="measured seconds of each run (default: 4, quick: 1)")
    parser.add_argument(
        "--streams", type=int, nargs="+", help=f"numbers of concurrent streams (default: {LEVELS})"
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.0, RATE], help="events per second; 0: unpaced"
    )
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=[USUAL], help=f"stream formats (default: {USUAL})"
    )
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=CLIENTS)
    parser.add_argument("--together", action="store_true", help="run ours with each other client on one core")
    parser.add_argument("--at-once", action="store_true", help="start all streams at the same time")
    parser.add_argument("--json", type=Path, help="file for the figures of every run")
    parser.add_argument("--plot", type=Path, help="file for a figure (.png, .svg)")
    options = parser.parse_args()
    if options.together and (options.plot or options.clients[0] != OURS or len(options.clients) < 2):
        parser.error(f"--together needs {OURS} and other clients, and does not support --plot")
    if options.plot and len(options.formats) > 1:
        parser.error("--plot draws one format")
    if len(CORES) < 2:
        sys.exit("two cores are needed: one for the client, one for the server")
    plan = BenchmarkPlan(
        clients=options.clients,
        formats=options.formats,
        levels=options.streams or (QUICK_LEVELS if options.quick else LEVELS),
        rates=options.rates,
        runs=options.runs or (1 if options.quick else 3),
        seconds=options.seconds or (1.0 if options.quick else 4.0),
        tokens=TOKENS,
        at_once=options.at_once,
    )
    report = run_all(plan, together=options.together)
    print(pairs_table(report.pairs) if options.together else table(report))
    print(_environment(report))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if options.plot:
        from benchmarks.plot import plot  # noqa: PLC0415 - importing it takes a second

        plot(medians(report.outcomes), CLIENTS, options.plot, f"{report.when}, Python {report.python}")


if __name__ == "__main__":
    main()
