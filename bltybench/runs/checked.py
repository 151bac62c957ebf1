"""Checks of columns that come from disk. A damaged file must give one error, not wrong figures."""

from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from bltybench.runs.attempt import Outcome, Stamp, TokensSource
from bltybench.runs.manifest import MAX_INTEGER, MAX_RUN_NS

ENUMS: dict[str, type[StrEnum]] = {"outcome": Outcome, "stamp": Stamp, "tokens_source": TokensSource}
"""Columns with a fixed set of values."""


def check_column(field: pa.Field, column: pa.ChunkedArray) -> None:
    """Raise ValueError, or ArrowInvalid for broken storage, if no run can have these values."""
    column.validate(full=True)
    if not field.nullable and column.null_count:
        raise ValueError(f"column '{field.name}' has missing values")
    if field.name in ENUMS:
        unknown = sorted(set(column.unique().drop_null().to_pylist()) - set(ENUMS[field.name]))
        if unknown:
            raise ValueError(f"column '{field.name}' has an unknown value: {unknown[0][:40]!r}")
    if pa.types.is_list(field.type):
        column = pc.list_flatten(column)
    if pa.types.is_integer(column.type):
        limit = MAX_RUN_NS if field.name.endswith("_ns") else MAX_INTEGER
        lowest, highest = pc.min_max(column).as_py().values()
        if lowest is not None and (lowest < -limit or highest > limit):
            raise ValueError(f"column '{field.name}' has a value that is out of range")
    if pa.types.is_floating(column.type) and pc.any(pc.invert(pc.is_finite(column))).as_py():
        raise ValueError(f"column '{field.name}' has a value that is not a finite number")


def checked_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with ``schema``. Raise ValueError if a column has a value that no record can have."""
    for field, column in zip(schema, batch.columns, strict=True):
        check_column(field, pa.chunked_array([column]))
    # The JSON reader loses which columns may be null.
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)
