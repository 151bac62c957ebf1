"""Two clients at the same time on one core: what an event costs ours, as a share of what it costs another.

A core's own speed changes from one minute to the next, on a virtual machine by a third, and runs in turns
scatter with it. Here both clients meet the same core at every moment, each with as many streams; they begin
and end together, and the CPU time of each is that of its own process. So the ratio within a run repeats
within some per cent.

Flooded it is fair as it is: the core is full anyhow, and an answer comes at once, however late somebody is.
Paced it is as long as the core is not full and the server is not late: whoever wakes up waits for the other
now and then, both alike. Otherwise events pile up and many are read at a wakeup, which makes them cheap, the
more so for who wakes up for each; so a pair that filled its core is set aside, and the table says how late
the server was. The costs are not those of a client alone (the core naps less, its caches are shared), and
times are not looked at: each delays the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.bench import Outcome, Plan, Server, measure

FULL_SHARE = 0.85
"""A core that two clients of paced streams keep busier than this is full: what they read they read late."""


class Pair(msgspec.Struct, kw_only=True):
    """Ours and another, once."""

    ours: Outcome
    other: Outcome

    @property
    def ratio(self) -> float:
        """CPU an event, of ours to the other's."""
        return self.ours.cpu_us_per_event / self.other.cpu_us_per_event

    @property
    def cpu_share(self) -> float:
        """How much of the core the two took."""
        return self.ours.cpu_share + self.other.cpu_share


def run_pairs(server: Server, plan: Plan, say: Callable[[str], None]) -> list[Pair]:
    """Measure the first client of ``plan`` beside each of the others; what fails is named and left out."""
    ours, *others = plan.clients
    pairs: list[Pair] = []
    for run, rate, streams in plan.steps():
        for other in others:
            say(f"run {run}/{plan.runs}: {rate:g}/s, {streams} streams, {ours} beside {other}")
            try:
                found = measure(server, [ours, other], plan, rate, streams)
            except RuntimeError as error:
                say(f"left out: {error}\n")
            else:
                pairs.append(Pair(ours=found[0], other=found[1]))
    return pairs


def table(pairs: Sequence[Pair]) -> str:
    """Return the ratios as a Markdown table: the median of the runs, the lowest and the highest.

    ``core`` is how busy the two kept it, ``late`` how late the server was with its events (p99).
    """
    grouped: dict[tuple[float, int, str], list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault((pair.other.rate, pair.other.streams, pair.other.client), []).append(pair)
    head = "| events/s | streams | beside | its CPU µs/event | ours | ours is | range | core | late | steal |"
    lines = [head, "|" + "---|" * 10]
    for (rate, streams, client), found in grouped.items():
        fair = [pair for pair in found if not rate or pair.cpu_share <= FULL_SHARE]
        cells = [f"{rate:g}" if rate else "flooded", f"{streams:,}", client]
        if fair:
            ratios = [pair.ratio for pair in fair]
            cells += [
                f"{statistics.median(pair.other.cpu_us_per_event for pair in fair):.1f}",
                f"{statistics.median(pair.ours.cpu_us_per_event for pair in fair):.1f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} – {max(ratios):.2f}, {len(fair)} of {len(found)} runs",
            ]
        else:
            cells += ["–", "–", "–", "the core was full"]
        late_us = statistics.median(pair.other.server_late_p99_us or 0.0 for pair in found)
        cells += [
            f"{statistics.median(pair.cpu_share for pair in found):.0%}",
            f"{late_us / 1000:.1f} ms" if rate else "–",
            f"{statistics.median(pair.other.steal_share for pair in found):.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
