"""Two clients on one core at the same time: the CPU time per event of ours, as a fraction of another's.

A core's speed changes from minute to minute, on a virtual machine by a third, and consecutive runs scatter
with it. Here both clients always have the same core, each with the same number of streams. They start and
end together, and each one's CPU time is that of its own process, so the ratio repeats within a few percent.

Unpaced, the ratio is always fair: the core is full, and responses are always ready. Paced, it is fair while
the core is not full and the server not late. Otherwise events accumulate and one wakeup reads several, which
favors the client that wakes up for each event. Such pairs are excluded if they filled the core, and the table
shows how late the server was. A pair does not show the cost of a client alone, because the core sleeps less
and its caches are shared. It does not show timing errors, because each client delays the other.
"""

import statistics
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.bench import BenchmarkPlan, Measurement, ServerProcess, measure

MAX_CPU_SHARE = 0.85
"""Maximum use of the core by two clients of paced streams. Above it, they read late."""


class Pair(msgspec.Struct, kw_only=True):
    """One run of ours and another client."""

    ours: Measurement
    other: Measurement

    @property
    def ratio(self) -> float:
        """CPU time per event of ours, divided by the other's."""
        return self.ours.cpu_us_per_event / self.other.cpu_us_per_event

    @property
    def cpu_share(self) -> float:
        """CPU use of both, as a fraction of the core."""
        return self.ours.cpu_share + self.other.cpu_share


def run_pairs(server: ServerProcess, plan: BenchmarkPlan, say: Callable[[str], None]) -> list[Pair]:
    """Measure the first client of ``plan`` with each of the others. Report and skip those that fail."""
    ours, *others = plan.clients
    pairs: list[Pair] = []
    for run, streams in plan.steps():
        for other in others:
            say(f"run {run}/{plan.runs}: {streams}, {ours} with {other}")
            try:
                measured = measure(server, [ours, other], plan, streams)
            except RuntimeError as error:
                say(f"skipped: {error}\n")
            else:
                pairs.append(Pair(ours=measured[0], other=measured[1]))
    return pairs


def table(pairs: Sequence[Pair]) -> str:
    """Return the ratios as a Markdown table: median, lowest, and highest of the runs.

    ``core`` is the CPU use of both clients, ``late`` the delay of the server's events (p99).
    """
    grouped: dict[tuple[float, int, str, str], list[Pair]] = {}
    for pair in pairs:
        other = pair.other
        grouped.setdefault((other.rate, other.streams, other.format, other.client), []).append(pair)
    names = "events/s, streams, format, other, its CPU µs/event, ours, ratio, range, core, late, steal"
    lines = ["| " + names.replace(", ", " | ") + " |", "|" + "---|" * 11]
    for (rate, streams, name, client), runs in grouped.items():
        fair = [pair for pair in runs if not rate or pair.cpu_share <= MAX_CPU_SHARE]
        cells = [f"{rate:g}" if rate else "unpaced", f"{streams:,}", name, client]
        if fair:
            ratios = [pair.ratio for pair in fair]
            cells += [
                f"{statistics.median(pair.other.cpu_us_per_event for pair in fair):.1f}",
                f"{statistics.median(pair.ours.cpu_us_per_event for pair in fair):.1f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} – {max(ratios):.2f}, {len(fair)} of {len(runs)} runs",
            ]
        else:
            cells += ["–", "–", "–", "the core was full"]
        late_us = statistics.median(pair.other.server_late_p99_us or 0.0 for pair in runs)
        cells += [
            f"{statistics.median(pair.cpu_share for pair in runs):.0%}",
            f"{late_us / 1000:.1f} ms" if rate else "–",
            f"{statistics.median(pair.other.steal_share for pair in runs):.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
