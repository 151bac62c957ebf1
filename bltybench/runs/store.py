"""Conversion of spools to Parquet, and reading runs as Arrow tables."""

import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bltybench.errors import UserError, reason
from bltybench.runs.attempt import Attempt, GeneratorSecond
from bltybench.runs.checked import ENUMS, check_column, checked_batch
from bltybench.runs.files import open_regular
from bltybench.runs.folder import RunFolder
from bltybench.runs.ownership import sole_owner
from bltybench.runs.spool_batches import spool_batches
from bltybench.text import sanitize

_ARROW_TYPES = (
    (str, pa.string()),
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    (list, pa.list_(pa.int64())),
)
"""Column types by the type of a field. bool comes before its base class int."""


def _schema(record: type[msgspec.Struct]) -> pa.Schema:
    """Return a column for each field of ``record``, in order. Only optional fields can be null."""
    columns = []
    for name, hint in get_type_hints(record).items():
        nullable = NoneType in get_args(hint)
        field_type = get_args(hint)[0] if nullable else hint
        base = get_origin(field_type) or field_type
        column_type = next(column for python, column in _ARROW_TYPES if issubclass(base, python))
        columns.append(pa.field(name, column_type, nullable=nullable))
    return pa.schema(columns)


ATTEMPT_SCHEMA = _schema(Attempt)
"""Columns of attempts.parquet."""

GENERATOR_SCHEMA = _schema(GeneratorSecond)
"""Columns of generator.parquet."""

GAP_ROWS = 16 * 1024


def read_attempts(folder: RunFolder, without: Collection[str] = ()) -> pa.Table:
    """Return all attempts of a run, sealed or not, without the columns in ``without``."""
    return _table(attempt_columns(folder, without), ATTEMPT_SCHEMA)


def attempt_columns(
    folder: RunFolder, without: Collection[str] = ()
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns of ``read_attempts`` one at a time, to limit memory."""
    names = [name for name in ATTEMPT_SCHEMA.names if name not in without]
    return _columns(folder.attempts_parquet, folder.attempts_spool, ATTEMPT_SCHEMA, names)


def attempt_rows(folder: RunFolder, rows: npt.NDArray[np.uint64], without: Collection[str] = ()) -> pa.Table:
    """Return some rows of ``read_attempts``, in this order. Of a Parquet file, only a part is read."""
    if not len(rows) or not os.path.lexists(folder.attempts_parquet):
        return read_attempts(folder, without).take(_indices(rows))
    names = [name for name in ATTEMPT_SCHEMA.names if name not in without]
    first, last = int(rows.min()), int(rows.max())
    with _parquet_file(folder.attempts_parquet) as file:
        starts = list(accumulate(_group_sizes(file), initial=0))
        groups = [
            group for group in range(len(starts) - 1) if starts[group] <= last and starts[group + 1] > first
        ]
        table = _table(
            _parquet_columns(file, folder.attempts_parquet, ATTEMPT_SCHEMA, names, groups), ATTEMPT_SCHEMA
        )
    return table.take(_indices(rows - np.uint64(starts[groups[0]])))


def _indices(rows: npt.NDArray[np.uint64]) -> pa.Array:
    # pa.array would import pandas.
    return pa.Array.from_buffers(pa.uint64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))])


def gap_batches(folder: RunFolder) -> Iterator[pa.RecordBatch]:
    """Yield ``outcome`` and ``gaps_us`` of all attempts in batches. The gaps of many streams do not fit in
    memory."""
    schema = pa.schema([ATTEMPT_SCHEMA.field(name) for name in ("outcome", "gaps_us")])
    if os.path.lexists(folder.attempts_parquet):
        yield from _ahead(parquet_batches(folder.attempts_parquet, GAP_ROWS, schema))
    else:
        spooled = spool_batches(folder.attempts_spool, ATTEMPT_SCHEMA)
        yield from (batch.select(schema.names) for batch in spooled)


def load_attempts(folder: RunFolder) -> list[Attempt]:
    """Return all attempts of a run, sealed or not, as records without their gaps (``to_attempts``)."""
    return to_attempts(read_attempts(folder, without={"gaps_us"}), folder)


def to_attempts(table: pa.Table, folder: RunFolder) -> list[Attempt]:
    """Return rows of a run's table as records. Raise UserError for one that contradicts itself.

    ``gaps_us`` is empty, because the gaps of many streams fill the memory. Missing columns are None.
    """
    names = [name for name in table.column_names if name != "gaps_us" and table[name].null_count < len(table)]
    columns = [_values(name, table[name]) for name in names]
    if "first_token_ns" in names:
        first_tokens = columns[names.index("first_token_ns")]
        names.append("gaps_us")
        columns.append([None if first is None else [] for first in first_tokens])
    try:
        return [Attempt(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    except ValueError as error:
        raise UserError(f"a record is damaged: {error}", where=str(folder.path)) from None


def _values(name: str, column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column. This is several times faster than ``to_pylist`` on long runs.

    ``to_numpy`` would import pandas, which takes longer than everything else that a short run needs.
    """
    if not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        make = ENUMS.get(name, lambda value: value)
        members = [None if value is None else make(value) for value in encoded.dictionary.to_pylist()]
        return [members[index] for index in np.from_dlpack(encoded.indices).tolist()]
    present = np.from_dlpack(column.drop_null().combine_chunks()).tolist()
    if not column.null_count:
        return present  # type: ignore[no-any-return]
    following = iter(present)
    valid = np.from_dlpack(column.is_valid().combine_chunks().cast(pa.int8())).tolist()
    return [next(following) if there else None for there in valid]


T = TypeVar("T")


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield from ``items``, reading the next item in another thread.

    Decoding Parquet releases the GIL, so a second core does it.
    """
    with ThreadPoolExecutor(1) as other:
        upcoming = other.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = other.submit(next, items, None)
            yield item


def read_generator(folder: RunFolder) -> pa.Table:
    """Return the self-audit of a run, sealed or not."""
    schema = GENERATOR_SCHEMA
    return _table(_columns(folder.generator_parquet, folder.generator_spool, schema, schema.names), schema)


@contextmanager
def readable(folder: RunFolder) -> Iterator[None]:
    """Keep the files of a run in place while they are read. Raise UserError if the run is active.

    A sealed run needs no lock, because nothing replaces its Parquet files.
    """
    if is_sealed(folder):
        yield
        return
    with sole_owner(folder.path):
        yield


def is_sealed(folder: RunFolder) -> bool:
    """Return whether Parquet files hold the records of a run."""
    return folder.attempts_parquet.is_file() and folder.generator_parquet.is_file()


def _table(columns: Iterator[tuple[str, pa.ChunkedArray]], stored: pa.Schema) -> pa.Table:
    named = dict(columns)
    return pa.table(named, schema=pa.schema([stored.field(name) for name in named]))


def _columns(
    parquet: Path, spool: Path, stored: pa.Schema, names: list[str]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    if not os.path.lexists(parquet):
        if not spool.is_dir():
            raise UserError("the records of this run are missing", where=str(parquet))
        batches = (batch.select(names) for batch in spool_batches(spool, stored))
        table = pa.Table.from_batches(batches, pa.schema([stored.field(name) for name in names]))
        yield from zip(names, table.columns, strict=True)
        return
    with _parquet_file(parquet) as file:
        yield from _parquet_columns(file, parquet, stored, names, range(file.num_row_groups))


def _parquet_columns(
    file: pq.ParquetFile, path: Path, stored: pa.Schema, names: list[str], groups: Sequence[int]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns of some row groups."""
    present = set(file.schema_arrow.names)
    missing = [name for name in names if name not in present and not stored.field(name).nullable]
    if missing:
        raise UserError(f"column '{missing[0]}' is missing", where=str(path))
    yield from _ahead((name, _column(file, stored.field(name), present, groups)) for name in names)


def _group_sizes(file: pq.ParquetFile) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def parquet_batches(path: Path, rows: int, schema: pa.Schema | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file in batches. Raise UserError if it can't be read.

    With ``schema``, yield its columns as far as all of them are there.
    """
    with _parquet_file(path) as file:
        if schema is None:
            yield from file.iter_batches(rows)
        elif set(schema.names) <= set(file.schema_arrow.names):
            for batch in file.iter_batches(rows, columns=schema.names):
                yield checked_batch(batch.select(schema.names).cast(schema), schema)


@contextmanager
def _parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        # Opened here because a pipe in place of the file would never end.
        with open_regular(path) as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot be read: {reason(error)}", where=str(path)) from None
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"cannot be read: {sanitize(str(error))}", where=str(path)) from None


def _column(
    file: pq.ParquetFile, field: pa.Field, present: set[str], groups: Sequence[int]
) -> pa.ChunkedArray:
    if field.name not in present:
        sizes = _group_sizes(file)
        return pa.chunked_array([pa.nulls(sum(sizes[group] for group in groups), field.type)])
    column = file.read_row_groups(groups, columns=[field.name]).column(0).cast(field.type)
    check_column(field, column)
    return column
