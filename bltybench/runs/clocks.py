"""The clocks of workers on other machines: how to put their times on the run's axis, and how exact that is.

A worker asks the master for the time, repeatedly, and notes how far its axis was off and how long the answer
took. The truth lies within half of that time around each measurement, whatever delayed the messages. A line
through the measurements gives the offset at the start of the run, and the drift.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from bltybench.errors import UserError, reason
from bltybench.runs.files import open_regular

MAX_OFFSET_NS = 2**62
MAX_DRIFT_PPM = 500.0
"""Largest drift that is believed: that of a clock that NTP slews. A few uneven measurements suggest more."""
MAX_WIDTH_RATIO = 2.0
"""Measurements up to this much wider than the median one are used."""

OffsetNs = Annotated[int, msgspec.Meta(ge=-MAX_OFFSET_NS, le=MAX_OFFSET_NS)]


class ClockSample(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``clocks/<worker>.jsonl``: the fastest of a few exchanges with the master."""

    host: str
    """The worker's machine."""
    at_ns: OffsetNs
    """Time of the exchange on the worker's axis."""
    ahead_ns: OffsetNs
    """Time on the master's axis minus that on the worker's."""
    round_trip_ns: Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET_NS)]
    applied_ns: OffsetNs
    """Difference of the monotonic clocks, master minus worker, from which the worker computed its axis."""


class WorkerClock(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the clock of a worker on another machine."""

    worker: str
    host: str
    applied_ns: OffsetNs
    """Difference of the monotonic clocks, master minus worker, that the worker measured before the run."""
    offset_ns: OffsetNs
    """What is added to the worker's times at the start of the run."""
    drift_ppm: Annotated[float, msgspec.Meta(ge=-MAX_DRIFT_PPM, le=MAX_DRIFT_PPM)]
    """What is added per time since the start, in millionths of it."""
    uncertainty_ns: OffsetNs
    """Largest error of the worker's times on the run's axis, if its clock drifts steadily."""
    exchanges: int
    """Number of measurements."""


def read_clocks(directory: Path) -> dict[str, WorkerClock]:
    """Return the clocks of a run's workers by name, from their measurements. Raise UserError for damage."""
    clocks = {}
    for path in sorted(directory.glob("*.jsonl")):
        try:
            with open_regular(path) as file:
                lines = file.read().split(b"\n")[:-1]  # the last line after a kill is incomplete
            samples = [msgspec.json.decode(line, type=ClockSample) for line in lines]
        except OSError as error:
            raise UserError(f"cannot be read: {reason(error)}", where=str(path)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"is damaged: {error}", where=str(path)) from None
        if samples:
            clocks[path.stem] = fit_clock(path.stem, samples)
    return clocks


def fit_clock(worker: str, samples: Sequence[ClockSample]) -> WorkerClock:
    """Return the clock that fits the measurements best: with a steady drift, or without one."""
    widths = sorted(sample.round_trip_ns for sample in samples)
    widest = MAX_WIDTH_RATIO * widths[len(widths) // 2]
    used = [sample for sample in samples if sample.round_trip_ns <= widest]
    weights = [1.0 / max(1, sample.round_trip_ns) ** 2 for sample in used]
    mean_at = _mean([sample.at_ns for sample in used], weights)
    mean_ahead = _mean([sample.ahead_ns for sample in used], weights)
    spread = _mean([(sample.at_ns - mean_at) ** 2 for sample in used], weights)
    slope = 0.0
    if spread > 0:
        products = [(sample.at_ns - mean_at) * (sample.ahead_ns - mean_ahead) for sample in used]
        slope = _mean(products, weights) / spread
    largest = MAX_DRIFT_PPM / 1e6
    drift = min(
        (max(-largest, min(largest, slope)), 0.0),
        key=lambda drift: _uncertainty(used, mean_ahead - drift * mean_at, drift),
    )
    offset = mean_ahead - drift * mean_at
    return WorkerClock(
        worker=worker,
        host=samples[0].host,
        applied_ns=samples[0].applied_ns,
        offset_ns=round(offset),
        drift_ppm=drift * 1e6,
        uncertainty_ns=math.ceil(_uncertainty(used, offset, drift)),
        exchanges=len(samples),
    )


def _uncertainty(samples: Sequence[ClockSample], offset: float, drift: float) -> float:
    """Return the largest distance from a line that the truth can have at one of the measurements."""
    return max(
        abs(sample.ahead_ns - offset - drift * sample.at_ns) + sample.round_trip_ns / 2 for sample in samples
    )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / math.fsum(
        weights
    )
