"""The summary as Prometheus text (exposition format 0.0.4), for a textfile collector or a push gateway."""

from __future__ import annotations

from collections.abc import Iterator

from bltybench.metrics.latency import PERCENTILES
from bltybench.report.summary import Summary

Labels = dict[str, str]


def prometheus(summary: Summary) -> str:
    """Return one gauge a number; what the run cannot tell is left out. Times in seconds, shares 0 … 1."""
    base = {
        "run": summary.run_id,
        "scenario": summary.scenario,
        "target": summary.target,
        "model": summary.model or "",
    }
    lines: list[str] = []
    for name, meaning, samples in _gauges(summary):
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines += [f"# HELP bltybench_{name} {meaning}", f"# TYPE bltybench_{name} gauge"]
            lines += [f"bltybench_{name}{{{_labels(base | extra)}}} {value:.10g}" for extra, value in known]
    return "\n".join(lines) + "\n"


def _gauges(summary: Summary) -> Iterator[tuple[str, str, list[tuple[Labels, float | None]]]]:
    yield "valid", "1 where the load generator kept up", [({}, float(summary.valid))]
    yield "passed", "1 where every check of the scenario passed", [({}, float(summary.passed))]
    yield "duration_seconds", "length of the run", [({}, summary.duration_s)]
    yield (
        "attempts",
        "HTTP attempts",
        [({"fate": fate}, float(summary.rates[fate].count)) for fate in ("accepted", "refused", "other")],
    )
    yield (
        "calls",
        "calls, retries included in each",
        [
            ({"ok": "true"}, float(summary.calls_ok)),
            ({"ok": "false"}, float(summary.calls - summary.calls_ok)),
        ],
    )
    yield (
        "best_per_minute",
        "requests or tokens in the best rolling 60 s",
        [({"rate": rate}, found.best_per_min) for rate, found in summary.rates.items()],
    )
    yield "in_flight_max", "attempts open at once, at the peak", [({}, float(summary.in_flight_max))]
    yield "refused_share", "share of attempts refused for their rate", [({}, summary.refused_share)]
    yield "errors_share", "share of attempts that were errors", [({}, summary.errors_share)]
    yield (
        "latency_seconds",
        "percentiles of successes, nearest rank",
        [
            (
                {"metric": metric, "quantile": f"{share:g}"},
                None if row[name] is None else (row[name] or 0) / 1000,
            )
            for metric, row in summary.timings_ms.items()
            for name, share in PERCENTILES.items()
        ],
    )
    yield (
        "latency_count",
        "how many values the percentiles are of",
        [({"metric": metric}, row["n"]) for metric, row in summary.timings_ms.items()],
    )
    yield (
        "check_passed",
        "1 where the check passed",
        [({"check": f"{check.metric} {check.target}"}, float(check.passed)) for check in summary.checks],
    )


def _labels(labels: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in value[:200])
    return printable.replace("\\", "\\\\").replace('"', '\\"')
