"""Sealing a run: its spools become Parquet files, and go when every record has been read back."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bltybench.errors import UserError, reason
from bltybench.runs.clocks import read_clocks
from bltybench.runs.folder import PARTIAL, RunFolder, partial_name, replace
from bltybench.runs.spool_batches import spool_batches
from bltybench.runs.store import ATTEMPT_SCHEMA, GENERATOR_SCHEMA, parquet_batches

MAX_BATCH_ROWS = 16 * 1024
"""Rows that are read back at a time: the gaps of many streams do not fit in memory."""


def seal(folder: RunFolder) -> None:
    """Convert the spools of a run that has ended to Parquet. The caller owns the run (``runs.ownership``).

    A kill at any point loses nothing: the next call starts again, or removes what is left over. Raise
    UserError if the records can't be read or stored.
    """
    for leftover in folder.path.glob(f".*{PARTIAL}"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    store_clocks(folder, folder)
    _seal(folder.attempts_spool, folder.attempts_parquet, ATTEMPT_SCHEMA)
    _seal(folder.generator_spool, folder.generator_parquet, GENERATOR_SCHEMA)
    for spool in (folder.attempts_spool, folder.generator_spool, folder.clocks_spool):
        if spool.exists():
            # Renamed first: a folder without some of its files would look like a whole run.
            leftover = partial_name(spool)
            spool.replace(leftover)
            shutil.rmtree(leftover)


def store_clocks(folder: RunFolder, source: RunFolder) -> None:
    """Write the clocks that workers measured into a run's manifest: ``source`` has their measurements."""
    measured = read_clocks(source.clocks_spool)
    if measured:
        manifest = folder.manifest()
        known = {clock.worker: clock for clock in manifest.worker_clocks} | measured
        clocks = [clock for _, clock in sorted(known.items())]
        folder.write_manifest(msgspec.structs.replace(manifest, worker_clocks=clocks))


def _seal(spool: Path, parquet: Path, schema: pa.Schema) -> None:
    """Write the records of ``spool`` to ``parquet``, unless a whole file is there already."""
    if not spool.is_dir():
        if not parquet.is_file():
            raise UserError("the records of this run are missing", where=str(parquet))
        return
    if os.path.lexists(parquet) and not parquet.is_file():
        raise UserError("is not a regular file", where=str(parquet), remedy="move it away and try again")
    rows = sum(batch.num_rows for batch in spool_batches(spool, schema)) if parquet.is_file() else None
    if rows is not None and _rows(parquet) >= rows:
        return
    write_parquet(parquet, schema, spool_batches(spool, schema))


def write_parquet(parquet: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a Parquet file and read it back before it replaces another one. Raise UserError if that fails."""
    partial = partial_name(parquet)
    try:
        with _writer(partial, schema) as writer:
            written = 0
            for batch in batches:
                writer.write_batch(batch)
                written += batch.num_rows
        found = _rows(partial)
        if found != written:
            raise UserError(
                f"{written} records were written, but {found} can be read back",
                where=str(parquet),
                remedy="check the disk; the records are still in the folder",
            )
        replace(partial, parquet)
    except OSError as error:
        raise UserError(
            f"can't be written: {reason(error)}",
            where=str(parquet),
            remedy="solve this and try again; the records are still in the folder",
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer that packs the many small numbers of lists (gaps), which is fastest for both sides."""
    lists = [field.name for field in schema if pa.types.is_list(field.type)]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=[name for name in schema.names if name not in lists],
        column_encoding={f"{name}.list.element": "DELTA_BINARY_PACKED" for name in lists},
    )


def _rows(parquet: Path) -> int:
    """Return the number of rows that can be read, or -1 if the file is damaged."""
    try:
        return sum(batch.num_rows for batch in parquet_batches(parquet, MAX_BATCH_ROWS))
    except UserError:
        return -1
