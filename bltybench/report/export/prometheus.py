"""The summary as Prometheus text (exposition format 0.0.4), for a textfile collector or a push gateway."""

from collections.abc import Iterator

from bltybench.metrics.latency import PERCENTILES
from bltybench.report.summary import Summary

Labels = dict[str, str]


def prometheus(summary: Summary) -> str:
    """Return one gauge per number, in seconds or as a fraction (0 … 1). Unknown numbers are omitted."""
    base = {
        "run": summary.run_id,
        "scenario": summary.scenario,
        "target": summary.target,
        "model": summary.model,
    }
    lines: list[str] = []
    for name, meaning, samples in _gauges(summary):
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines += [f"# HELP bltybench_{name} {meaning}", f"# TYPE bltybench_{name} gauge"]
            lines += [f"bltybench_{name}{{{_labels(base | extra)}}} {value:.10g}" for extra, value in known]
    return "\n".join(lines) + "\n"


def _gauges(summary: Summary) -> Iterator[tuple[str, str, list[tuple[Labels, float | None]]]]:
    fates = ("accepted", "refused", "other")
    failed = summary.calls - summary.calls_ok - summary.calls_cut_off
    timings = summary.timings_ms.items()
    yield "valid", "1 if the load generator was not the bottleneck", [({}, float(summary.valid))]
    yield "passed", "1 if every check of the scenario passed", [({}, float(summary.passed))]
    yield "verdict", "1 for the verdict on the run", [({"verdict": summary.verdict}, 1.0)]
    yield "duration_seconds", "length of the run", [({}, summary.duration_s)]
    yield "attempts", "HTTP attempts", [({"fate": fate}, float(summary.rates[fate].count)) for fate in fates]
    yield (
        "calls",
        "calls that succeeded or failed, each with all its retries",
        [({"ok": "true"}, float(summary.calls_ok)), ({"ok": "false"}, float(failed))],
    )
    yield (
        "best_per_minute",
        "requests or tokens in the best rolling 60 s",
        [({"rate": name}, rate.best_per_min) for name, rate in summary.rates.items()],
    )
    yield "in_flight_max", "peak of the attempts in flight", [({}, summary.in_flight_max)]
    yield "refused_share", "fraction of attempts refused for their rate", [({}, summary.refused_share)]
    yield "errors_share", "fraction of attempts that were errors", [({}, summary.errors_share)]
    yield (
        "latency_seconds",
        "nearest-rank percentiles of successes",
        [
            (
                {"metric": metric, "quantile": f"{fraction:g}"},
                None if (ms := row[name]) is None else ms / 1000,
            )
            for metric, row in timings
            for name, fraction in PERCENTILES.items()
        ],
    )
    yield (
        "latency_count",
        "sample size of the percentiles",
        [({"metric": name}, row["n"]) for name, row in timings],
    )
    yield (
        "check_passed",
        "1 if the check passed",
        [({"check": f"{check.metric} {check.target}"}, float(check.passed)) for check in summary.checks],
    )


def _labels(labels: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in value[:200])
    return printable.replace("\\", "\\\\").replace('"', '\\"')
