"""The figure of ``benchmarks.wire``: cost, rate, and errors over the number of streams, per client."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.bench import Measurement, Streams

mpl.use("Agg")

Pick = Callable[[Measurement], float | None]


def plot(
    medians: Mapping[tuple[Streams, str], Measurement], clients: Sequence[str], path: Path, title: str
) -> None:
    """Draw the medians into a file."""
    rates = sorted({streams.rate for streams, _ in medians})
    panels: list[tuple[str, float, Pick]] = []
    for rate in rates:
        mode = f"paced, {rate:g} events/s per stream" if rate else "unpaced"
        panels.append((f"CPU µs per event ({mode})", rate, lambda row: row.cpu_us_per_event))
        if rate:
            panels.append(
                ("TTFT error p99, ms", rate, lambda row: row.errors.ttft[1] if row.errors else None)
            )
            panels.append(("ITL error p99, ms", rate, lambda row: row.errors.itl[1] if row.errors else None))
        else:
            panels.append(("streams per second (unpaced)", rate, lambda row: row.streams_per_s))
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), squeeze=False)
    for axis, (label, rate, pick) in zip(axes[0], panels, strict=True):
        for client in clients:
            rows = [
                row for (streams, name), row in medians.items() if streams.rate == rate and name == client
            ]
            points = [(row.streams, value) for row in rows if (value := pick(row)) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=client)
        axis.set(title=label, xlabel="streams", xscale="symlog", yscale="log")
        axis.grid(visible=True, alpha=0.3)
    lines, names = axes[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="lower center", ncols=len(names), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)
