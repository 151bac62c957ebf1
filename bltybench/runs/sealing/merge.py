"""Records that a worker kept because they did not reach its run: adding them afterwards.

A worker's records arrive in order, so the run has the beginning of each of the worker's files. A merge
continues the files of a run that is not sealed, and replaces the worker's rows in one that is. Repeating it
changes nothing.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from bltybench.errors import UserError, reason
from bltybench.runs.files import open_regular, read_json
from bltybench.runs.folder import RunFolder, Spill, partial_name, replace
from bltybench.runs.ownership import sole_owner
from bltybench.runs.sealing.seal import MAX_BATCH_ROWS, seal, store_clocks, write_parquet
from bltybench.runs.spool_batches import spool_batches
from bltybench.runs.store import ATTEMPT_SCHEMA, GENERATOR_SCHEMA, parquet_batches

CHUNK_BYTES = 1024 * 1024
ATTEMPT_KEY = ["call_id", "attempt"]
"""Columns that identify an attempt in a run."""


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What a merge did."""

    worker: str
    added: int
    """Attempts that the run did not have."""


def merge(folder: RunFolder, path: Path) -> Merged:
    """Add the records in the directory ``path`` of one worker to a run that no process uses.

    Raise UserError if they belong to another run, or contradict what the run has.
    """
    spill = _read_spill(path)
    manifest = folder.manifest()
    if spill.run_id != manifest.run_id:
        raise UserError(
            f"holds records of worker {spill.worker} in run {spill.run_id}, not in {manifest.run_id}",
            where=str(path),
            remedy="name that run, or the worker's directory of this one",
        )
    if int(spill.worker[1:]) >= manifest.workers:
        raise UserError(
            f"the run had {manifest.workers} workers, and none is named {spill.worker}", where=str(path)
        )
    source = RunFolder(path)
    with sole_owner(folder.path), sole_owner(path):
        if folder.attempts_parquet.exists() or folder.generator_parquet.exists():
            seal(folder)
            added = _replace_rows(folder, source, spill.worker)
            store_clocks(folder, source)
        else:
            added = _continue_files(folder, source, spill.worker)
        manifest = folder.manifest()
        if spill.worker not in manifest.merged_workers:
            merged = sorted({*manifest.merged_workers, spill.worker})
            folder.write_manifest(msgspec.structs.replace(manifest, merged_workers=merged))
    return Merged(worker=spill.worker, added=added)


def _read_spill(path: Path) -> Spill:
    if not os.path.isfile(RunFolder(path).spill_json):
        raise UserError(
            "is not a directory with records that a worker kept",
            where=str(path),
            remedy="the worker's output names it: spill-WORKER/RUN in its reports directory",
        )
    return read_json(RunFolder(path).spill_json, Spill)


def _continue_files(folder: RunFolder, source: RunFolder, worker: str) -> int:
    before = _count(folder)
    for name in (*source.spool_files(worker), *source.final_files(worker)):
        path = source.path / name
        if path.exists() and _continues(path, folder.path / name):
            partial = partial_name(folder.path / name)
            try:
                partial.parent.mkdir(exist_ok=True)  # a run of an older version has no clocks
                shutil.copyfile(path, partial)
                replace(partial, folder.path / name)
            except OSError as error:
                raise UserError(f"can't be written: {reason(error)}", where=str(folder.path / name)) from None
            finally:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
    return _count(folder) - before


def _continues(path: Path, beginning: Path) -> bool:
    """Return whether one file has more than another. Raise UserError if one does not begin like the other."""
    if not beginning.exists():
        return True
    with open_regular(path) as file, open_regular(beginning) as other:
        while True:
            mine, theirs = file.read(CHUNK_BYTES), other.read(CHUNK_BYTES)
            if mine == theirs and mine:
                continue
            if mine.startswith(theirs):
                return len(mine) > len(theirs)
            if theirs.startswith(mine):
                return False
            raise _contradiction(path, beginning.name)


def _contradiction(path: Path, name: str) -> UserError:
    return UserError(
        f"contradicts the records of the run in {name}", where=str(path), remedy="name this run's directory"
    )


def _count(folder: RunFolder) -> int:
    return sum(batch.num_rows for batch in spool_batches(folder.attempts_spool, ATTEMPT_SCHEMA))


def _replace_rows(folder: RunFolder, source: RunFolder, worker: str) -> int:
    """Replace a worker's rows by those in ``source`` if it has more. Return how many attempts were added."""
    old = _keys(parquet_batches(folder.attempts_parquet, MAX_BATCH_ROWS), worker)
    new = _keys(spool_batches(source.attempts_spool, ATTEMPT_SCHEMA), worker)
    if not old <= new or len(new) < _count(source):
        raise _contradiction(source.path, folder.attempts_parquet.name)
    for parquet, spool, schema in (
        (folder.attempts_parquet, source.attempts_spool, ATTEMPT_SCHEMA),
        (folder.generator_parquet, source.generator_spool, GENERATOR_SCHEMA),
    ):
        mine = sum(batch.num_rows for batch in spool_batches(spool, schema))
        if mine > sum(batch.filter(_is(batch, worker)).num_rows for batch in _rows(parquet)):
            write_parquet(parquet, schema, _merged_rows(parquet, spool, schema, worker))
    return len(new - old)


def _merged_rows(parquet: Path, spool: Path, schema: pa.Schema, worker: str) -> Iterator[pa.RecordBatch]:
    for batch in _rows(parquet):
        if batch.schema.names != schema.names:
            raise UserError(
                "has other columns than the records to merge",
                where=str(parquet),
                remedy="merge records of the same version",
            )
        yield batch.filter(pc.invert(_is(batch, worker)))
    yield from spool_batches(spool, schema)


def _rows(parquet: Path) -> Iterator[pa.RecordBatch]:
    return parquet_batches(parquet, MAX_BATCH_ROWS)


def _is(batch: pa.RecordBatch, worker: str) -> pa.Array:
    return pc.equal(batch["worker"], worker)


def _keys(batches: Iterator[pa.RecordBatch], worker: str) -> set[tuple[str, int]]:
    keys: set[tuple[str, int]] = set()
    for batch in batches:
        columns = batch.filter(_is(batch, worker)).select(ATTEMPT_KEY).columns
        keys.update(zip(*(column.to_pylist() for column in columns), strict=True))
    return keys
