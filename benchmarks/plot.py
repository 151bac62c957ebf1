"""The figure of ``benchmarks.wire``: cost, rate and error over the number of streams, a line a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.bench import Outcome

mpl.use("Agg")

Pick = Callable[[Outcome], float | None]


def plot(
    found: Mapping[tuple[float, int, str], Outcome], clients: Sequence[str], path: Path, title: str
) -> None:
    """Draw the medians."""
    rates = sorted({rate for rate, _, _ in found})
    panels: list[tuple[str, float, Pick]] = []
    for rate in rates:
        what = f"paced, {rate:g} events/s a stream" if rate else "flooded"
        panels.append((f"CPU µs an event ({what})", rate, lambda row: row.cpu_us_per_event))
        if rate:
            panels.append(
                ("TTFT error p99, ms", rate, lambda row: row.errors.ttft[1] if row.errors else None)
            )
            panels.append(("ITL error p99, ms", rate, lambda row: row.errors.itl[1] if row.errors else None))
        else:
            panels.append(("streams a second (flooded)", rate, lambda row: row.streams_per_s))
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), squeeze=False)
    for axis, (name, rate, pick) in zip(axes[0], panels, strict=True):
        for client in clients:
            rows = [row for (at, _, who), row in found.items() if at == rate and who == client]
            points = [(row.streams, value) for row in rows if (value := pick(row)) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=client)
        axis.set(title=name, xlabel="streams", xscale="symlog", yscale="log")
        axis.grid(visible=True, alpha=0.3)
    axes[0][0].legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
