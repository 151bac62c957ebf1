"""Conversion of spools to Parquet, and reading runs as Arrow tables."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from bltybench.errors import UserError
from bltybench.runs.attempt import Attempt, Outcome, Stamp, TokensSource
from bltybench.runs.folder import RunFolder, remove_spools

_TEXT = pa.string()
_NS = pa.int64()
_COUNT = pa.int64()

ATTEMPT_SCHEMA = pa.schema(
    [
        pa.field("worker", _TEXT, nullable=False),
        pa.field("user", _COUNT, nullable=False),
        pa.field("scenario", _TEXT, nullable=False),
        ("stage", _TEXT),
        ("name", _TEXT),
        ("turn", _COUNT),
        pa.field("call_id", _TEXT, nullable=False),
        pa.field("attempt", _COUNT, nullable=False),
        ("request_id", _TEXT),
        ("response_id", _TEXT),
        pa.field("due_ns", _NS, nullable=False),
        ("sent_ns", _NS),
        ("headers_ns", _NS),
        ("first_token_ns", _NS),
        ("first_output_ns", _NS),
        ("last_token_ns", _NS),
        pa.field("end_ns", _NS, nullable=False),
        ("connect_ns", _NS),
        ("tls_ns", _NS),
        ("gaps_us", pa.list_(pa.int64())),
        pa.field("outcome", _TEXT, nullable=False),
        ("status", _COUNT),
        ("error_type", _TEXT),
        ("error_code", _TEXT),
        ("error_message", _TEXT),
        ("finish_reason", _TEXT),
        pa.field("endpoint", _TEXT, nullable=False),
        ("model", _TEXT),
        pa.field("stream", pa.bool_(), nullable=False),
        ("wanted_prompt_tokens", _COUNT),
        ("prompt_tokens", _COUNT),
        ("completion_tokens", _COUNT),
        ("cached_tokens", _COUNT),
        ("reasoning_tokens", _COUNT),
        ("tokens_source", _TEXT),
        ("max_tokens", _COUNT),
        pa.field("bytes_sent", _COUNT, nullable=False),
        pa.field("bytes_received", _COUNT, nullable=False),
        ("limit_requests", _COUNT),
        ("remaining_requests", _COUNT),
        ("reset_requests_s", pa.float64()),
        ("limit_tokens", _COUNT),
        ("remaining_tokens", _COUNT),
        ("reset_tokens_s", pa.float64()),
        ("retry_after_s", pa.float64()),
        ("header_dialect", _TEXT),
        ("waited_s", pa.float64()),
        ("stamp", _TEXT),
        ("observer_lag_us", _COUNT),
        ("coalesced_events", _COUNT),
        pa.field("in_flight", _COUNT, nullable=False),
    ]
)
"""Columns of attempts.parquet: the fields of Attempt, in order."""

GENERATOR_SCHEMA = pa.schema(
    [
        pa.field("worker", _TEXT, nullable=False),
        pa.field("at_ns", _NS, nullable=False),
        pa.field("stall_us", _COUNT, nullable=False),
        pa.field("cpu_share", pa.float64(), nullable=False),
        ("cpu_wait_share", pa.float64()),
        ("steal_share", pa.float64()),
        pa.field("rss_bytes", _COUNT, nullable=False),
        pa.field("users", _COUNT, nullable=False),
        pa.field("in_flight", _COUNT, nullable=False),
        pa.field("sent", _COUNT, nullable=False),
        ("schedule_delay_p50_us", _COUNT),
        ("schedule_delay_p99_us", _COUNT),
        ("schedule_delay_max_us", _COUNT),
        ("observer_lag_p50_us", _COUNT),
        ("observer_lag_p99_us", _COUNT),
        ("observer_lag_max_us", _COUNT),
        pa.field("events", _COUNT, nullable=False),
        pa.field("coalesced_events", _COUNT, nullable=False),
        pa.field("bytes_received", _COUNT, nullable=False),
        ("no_free_user", _COUNT),
        ("never_sent", _COUNT),
        pa.field("backlog", _COUNT, nullable=False),
    ]
)
"""Columns of generator.parquet: the fields of GeneratorSecond, in order."""

BLOCK_BYTES = 8 * 1024 * 1024
"""Block size for converting JSON to Arrow, in bytes, so that a long run never has to fit in memory."""

TAIL_BYTES = 64 * 1024

GAP_ROWS = 16 * 1024


def read_attempts(folder: RunFolder, without: Collection[str] = ()) -> pa.Table:
    """Return all attempts of a run, sealed or not, without the columns in ``without``."""
    wanted = [name for name in ATTEMPT_SCHEMA.names if name not in without]
    return _read(folder.attempts_parquet, folder.attempts_spool, ATTEMPT_SCHEMA, wanted)


def attempt_columns(
    folder: RunFolder, without: Collection[str] = ()
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns of ``read_attempts`` one at a time, to limit memory."""
    wanted = [name for name in ATTEMPT_SCHEMA.names if name not in without]
    return _columns(folder.attempts_parquet, folder.attempts_spool, ATTEMPT_SCHEMA, wanted)


def gap_batches(folder: RunFolder) -> Iterator[pa.RecordBatch]:
    """Yield ``outcome`` and ``gaps_us`` of all attempts in batches. The gaps of many streams do not fit in
    memory."""
    columns = ["outcome", "gaps_us"]
    path = folder.attempts_parquet
    if not path.is_file():
        yield from (batch.select(columns) for batch in _spooled(folder.attempts_spool, ATTEMPT_SCHEMA))
        return
    try:
        with pq.ParquetFile(path) as file:
            if set(columns) <= set(file.schema_arrow.names):
                yield from _ahead(file.iter_batches(GAP_ROWS, columns=columns))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None


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


_ENUMS: dict[str, type[Outcome] | type[Stamp] | type[TokensSource]] = {
    "outcome": Outcome,
    "stamp": Stamp,
    "tokens_source": TokensSource,
}


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
        coming = other.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = other.submit(next, items, None)
            yield item


def read_generator(folder: RunFolder) -> pa.Table:
    """Return the self-audit of a run, sealed or not."""
    names = GENERATOR_SCHEMA.names
    return _read(folder.generator_parquet, folder.generator_spool, GENERATOR_SCHEMA, names)


def seal(folder: RunFolder) -> None:
    """Convert the spools of a finished run to Parquet, then remove them. Do nothing if the run is already
    sealed."""
    _seal(folder.attempts_spool, folder.attempts_parquet, ATTEMPT_SCHEMA)
    _seal(folder.generator_spool, folder.generator_parquet, GENERATOR_SCHEMA)
    remove_spools(folder)


def _read(parquet: Path, spool: Path, stored: pa.Schema, wanted: list[str]) -> pa.Table:
    schema = pa.schema([stored.field(name) for name in wanted])
    return pa.table([column for _, column in _columns(parquet, spool, stored, wanted)], schema=schema)


def _columns(
    parquet: Path, spool: Path, stored: pa.Schema, wanted: list[str]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    if not parquet.is_file():
        batches = (batch.select(wanted) for batch in _spooled(spool, stored))
        table = pa.Table.from_batches(batches, pa.schema([stored.field(name) for name in wanted]))
        yield from zip(wanted, table.columns, strict=True)
        return
    try:
        with pq.ParquetFile(parquet) as file:
            present = set(file.schema_arrow.names)
            missing = [name for name in wanted if name not in present and not stored.field(name).nullable]
            if missing:
                raise UserError(f"column '{missing[0]}' is missing", where=str(parquet))
            yield from _ahead(
                (name, _column(file, stored.field(name), there=name in present)) for name in wanted
            )
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot be read: {error}", where=str(parquet)) from None


def _column(file: pq.ParquetFile, field: pa.Field, *, there: bool) -> pa.ChunkedArray:
    if not there:
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
