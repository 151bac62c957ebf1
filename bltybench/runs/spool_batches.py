"""Reading spool files as Arrow, with all times on the run's axis."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from bltybench.errors import UserError, reason
from bltybench.runs.checked import checked_batch
from bltybench.runs.clocks import WorkerClock, read_clocks
from bltybench.runs.files import open_regular
from bltybench.runs.folder import RunFolder
from bltybench.text import sanitize

BLOCK_BYTES = 8 * 1024 * 1024
"""Block size for converting JSON to Arrow, in bytes, so that a long run never has to fit in memory."""
DURATIONS = {"connect_ns", "tls_ns", "paced_ns"}
"""Columns in nanoseconds that are no times on the run's axis."""
TAIL_BYTES = 64 * 1024


def spool_batches(spool: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the complete lines of all spool files of a run as Arrow, with all times on the run's axis.

    Raise UserError if a file is damaged.
    """
    clocks = read_clocks(RunFolder(spool.parent).clocks_spool)
    for path in sorted(spool.glob("*.jsonl")):
        clock = clocks.get(path.stem)
        try:
            with open_regular(path) as file:
                whole = _whole_lines_bytes(file)
            if whole:
                batches = _spool_batches(path, whole, schema)
                yield from batches if clock is None else (_on_axis(batch, clock) for batch in batches)
        except OSError as error:
            raise UserError(f"cannot be read: {reason(error)}", where=str(path)) from None
        except (pa.ArrowException, ValueError) as error:
            raise UserError(f"is damaged: {sanitize(str(error))}", where=str(path)) from None


def _spool_batches(path: Path, whole: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the first ``whole`` bytes of a spool file."""
    # Mapped, not read: a long run does not fit in memory.
    with pa.memory_map(str(path)) as mapped:
        for batch in pj.open_json(
            pa.BufferReader(mapped.read_buffer(whole)),
            read_options=pj.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        ):
            yield checked_batch(batch.select(schema.names), schema)


def _on_axis(batch: pa.RecordBatch, clock: WorkerClock) -> pa.RecordBatch:
    """Return records of a worker on another machine with their times on the run's axis."""
    columns = [
        _shifted(column, clock) if name.endswith("_ns") and name not in DURATIONS else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _shifted(column: pa.Array, clock: WorkerClock) -> pa.Array:
    drift = pc.round(pc.multiply(pc.cast(column, pa.float64(), safe=False), clock.drift_ppm / 1e6))
    return pc.add(pc.add(column, pc.cast(drift, pa.int64())), clock.offset_ns)


def _whole_lines_bytes(file: BinaryIO) -> int:
    """Return the size of the complete lines of a file, in bytes. The last line after a kill is incomplete."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - TAIL_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
