"""Conversion of spools to Parquet, and reading runs as Arrow tables."""

import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from bltybench.errors import UserError
from bltybench.runs.attempt import Attempt, GeneratorSecond, Outcome, Stamp, TokensSource
from bltybench.runs.folder import RunFolder, remove_spools

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

BLOCK_BYTES = 8 * 1024 * 1024
"""Block size for converting JSON to Arrow, in bytes, so that a long run never has to fit in memory."""

TAIL_BYTES = 64 * 1024

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


def gap_batches(folder: RunFolder) -> Iterator[pa.RecordBatch]:
    """Yield ``outcome`` and ``gaps_us`` of all attempts in batches. The gaps of many streams do not fit in
    memory."""
    columns = ["outcome", "gaps_us"]
    if not folder.attempts_parquet.is_file():
        yield from (batch.select(columns) for batch in _spooled(folder.attempts_spool, ATTEMPT_SCHEMA))
        return
    with _parquet_file(folder.attempts_parquet) as file:
        if set(columns) <= set(file.schema_arrow.names):
            yield from _ahead(file.iter_batches(GAP_ROWS, columns=columns))


def load_attempts(folder: RunFolder) -> list[Attempt]:
    """Return all attempts of a run, sealed or not, as records without their gaps (``to_attempts``)."""
    return to_attempts(read_attempts(folder, without={"gaps_us"}))


def to_attempts(table: pa.Table) -> list[Attempt]:
    """Return the rows of a table as records.

    ``gaps_us`` is empty, because the gaps of many streams fill the memory. Missing columns are None.
    """
    names = [name for name in table.column_names if name != "gaps_us" and table[name].null_count < len(table)]
    columns = [_values(name, table[name]) for name in names]
    if "first_token_ns" in names:
        first_tokens = columns[names.index("first_token_ns")]
        names.append("gaps_us")
        columns.append([None if first is None else [] for first in first_tokens])
    return [Attempt(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


_ENUMS: dict[str, type[StrEnum]] = {"outcome": Outcome, "stamp": Stamp, "tokens_source": TokensSource}


def _values(name: str, column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column. This is several times faster than ``to_pylist`` on long runs."""
    if name in _ENUMS:
        encoded = column.combine_chunks().dictionary_encode()
        members = [_ENUMS[name](value) for value in encoded.dictionary.to_pylist()]
        return [None if index is None else members[index] for index in encoded.indices.to_pylist()]
    if column.null_count and pa.types.is_integer(column.type):
        return column.to_pandas(integer_object_nulls=True).tolist()  # type: ignore[no-any-return]
    if column.null_count and not pa.types.is_string(column.type):
        return column.to_pylist()  # type: ignore[no-any-return]
    return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]


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


def seal(folder: RunFolder) -> None:
    """Convert the spools of a finished run to Parquet, then remove them. Do nothing if the run is already
    sealed."""
    _seal(folder.attempts_spool, folder.attempts_parquet, ATTEMPT_SCHEMA)
    _seal(folder.generator_spool, folder.generator_parquet, GENERATOR_SCHEMA)
    remove_spools(folder)


def _table(columns: Iterator[tuple[str, pa.ChunkedArray]], stored: pa.Schema) -> pa.Table:
    named = dict(columns)
    return pa.table(named, schema=pa.schema([stored.field(name) for name in named]))


def _columns(
    parquet: Path, spool: Path, stored: pa.Schema, names: list[str]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    if not parquet.is_file():
        batches = (batch.select(names) for batch in _spooled(spool, stored))
        table = pa.Table.from_batches(batches, pa.schema([stored.field(name) for name in names]))
        yield from zip(names, table.columns, strict=True)
        return
    with _parquet_file(parquet) as file:
        present = set(file.schema_arrow.names)
        missing = [name for name in names if name not in present and not stored.field(name).nullable]
        if missing:
            raise UserError(f"column '{missing[0]}' is missing", where=str(parquet))
        yield from _ahead((name, _column(file, stored.field(name), present)) for name in names)


@contextmanager
def _parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None


def _column(file: pq.ParquetFile, field: pa.Field, present: set[str]) -> pa.ChunkedArray:
    if field.name not in present:
        return pa.chunked_array([pa.nulls(file.metadata.num_rows, field.type)])
    return file.read(columns=[field.name]).column(0).cast(field.type)


def _seal(spool: Path, parquet: Path, schema: pa.Schema) -> None:
    if parquet.is_file():
        return
    partial = parquet.with_name(f".{parquet.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in _spooled(spool, schema):
            writer.write_batch(batch)
    partial.replace(parquet)


def _spooled(spool: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for path in sorted(spool.glob("*.jsonl")):
        yield from _spool_batches(path, schema)


def _spool_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield one spool file as Arrow, without an incomplete last line left by a kill."""
    whole = _whole_lines_bytes(path)
    if whole == 0:
        return
    with pa.memory_map(str(path)) as mapped:
        try:
            for batch in pj.open_json(
                pa.BufferReader(mapped.read_buffer(whole)),
                read_options=pj.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
            ):
                # The JSON reader loses which columns may be null.
                yield pa.RecordBatch.from_arrays(batch.select(schema.names).columns, schema=schema)
        except pa.ArrowInvalid as error:
            raise UserError(f"is damaged: {error}", where=str(path)) from None


def _whole_lines_bytes(path: Path) -> int:
    """Return the size of the complete lines of ``path``, in bytes."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - TAIL_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
