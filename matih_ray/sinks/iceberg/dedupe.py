"""Look-back de-duplication: dropping rows of a slice that the table already has.

A look-back slice reads again a window that earlier runs have loaded, to find rows that committed
late. Rows are compared on the slice's `dedupe_on` columns, as *multisets*: two equal rows in the
source of which the table has one leave one to load. That also makes it right for tables without a
key. NULL equals NULL; values are compared exactly, never through text or floats (lists, structs and
maps by their 64-bit fingerprint).

`dedupe_on` must contain the cursor: an updated row keeps its key but has a new cursor value, and
comparing keys alone would drop it. What is read of the table, and so the memory, is bounded by the
batches' range of one column: the one whose range touches the fewest rows by the files' statistics,
which is the cursor wherever runs have loaded the table in its order.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    GreaterThan,
    GreaterThanOrEqual,
    IsNull,
    LessThan,
    LessThanOrEqual,
)
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.types import PrimitiveType

from matih_ray.errors import ValidationError
from matih_ray.model.fingerprint import row_hashes

# pydantic's plugin for mypy hides the constructors of these classes.
_above: Any = GreaterThan
_at_least: Any = GreaterThanOrEqual
_at_most: Any = LessThanOrEqual
_below: Any = LessThan
_is_null: Any = IsNull

Codes = npt.NDArray[np.int64]


class ExistingRows:
    """The table's rows that may equal rows of one slice, read as far as batches need them."""

    def __init__(self, table: Table, columns: tuple[str, ...]) -> None:
        known = {field.name for field in table.schema().fields}
        if unknown := [column for column in columns if column not in known]:
            raise ValidationError(
                f"dedupeOn: the table has no column {unknown[0]!r}", field="dedupeOn"
            )
        self._table = table
        self._schema = schema_to_pyarrow(table.schema().select(*columns), include_field_ids=False)
        self._columns = columns
        self._bounding: str | None = None
        self._rows: pa.Table | None = None
        self._range: tuple[Any, Any] | None = None
        self._nulls_read = False

    def without(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch's rows that the table does not have; each table row takes one away, once."""
        if batch.num_rows == 0:
            return batch
        keys = _plain(pa.Table.from_batches([batch]).select(self._columns), self._schema)
        self._read_for(keys)
        if self._rows is None or self._rows.num_rows == 0:
            return batch
        incoming, existing = row_codes(keys, self._rows)
        # the n-th occurrence of a key in the batch meets the n-th one in the table, if there is one
        duplicate = matched_rows(incoming, existing)
        used = matched_rows(existing, incoming)
        if not duplicate.any():
            return batch
        self._rows = self._rows.filter(pa.array(~used))
        return batch.filter(pa.array(~duplicate))

    def _read_for(self, keys: pa.Table) -> None:
        """Read the part of the table that this batch adds to what was read before."""
        for row_filter in self._missing(keys):
            scan = self._table.scan(row_filter=row_filter, selected_fields=self._columns)
            found = _plain(scan.to_arrow().select(self._columns), self._schema)
            self._rows = found if self._rows is None else pa.concat_tables([self._rows, found])

    def _missing(self, keys: pa.Table) -> list[BooleanExpression]:
        if self._rows is None:
            self._bounding = self._bounding_column(keys)
        if self._bounding is None:
            return [] if self._rows is not None else [AlwaysTrue()]
        column = keys[self._bounding]
        missing: list[BooleanExpression] = []
        if column.null_count and not self._nulls_read:
            missing.append(_is_null(self._bounding))
            self._nulls_read = True
        if column.null_count < len(column):
            missing.extend(self._missing_ranges(self._bounding, column))
        return missing

    def _bounding_column(self, keys: pa.Table) -> str | None:
        """The column of the first batch whose range may touch the fewest rows of the table."""
        ordered = [
            name
            for name in self._columns
            if _is_ordered(self._schema.field(name).type) and keys[name].null_count < keys.num_rows
        ]
        if len(ordered) < 2:
            return ordered[0] if ordered else None
        files = [task.file for task in self._table.scan().plan_files()]
        return min(ordered, key=lambda name: self._rows_touched(files, name, keys[name]))

    def _rows_touched(self, files: list[DataFile], name: str, column: pa.ChunkedArray) -> int:
        field = self._table.schema().find_field(name)
        kind = cast("PrimitiveType", field.field_type)
        low, high = _bounds(column)
        touched = 0
        for file in files:
            lower = (file.lower_bounds or {}).get(field.field_id)
            upper = (file.upper_bounds or {}).get(field.field_id)
            outside = (upper is not None and from_bytes(kind, upper) < low) or (
                lower is not None and from_bytes(kind, lower) > high
            )
            if not outside:
                touched += file.record_count
            elif column.null_count:
                touched += (file.null_value_counts or {}).get(field.field_id, file.record_count)
        return touched

    def _missing_ranges(self, name: str, column: pa.ChunkedArray) -> list[BooleanExpression]:
        low, high = _bounds(column)
        if self._range is None:
            self._range = (low, high)
            return [And(_at_least(name, low), _at_most(name, high))]
        before, after = self._range
        missing: list[BooleanExpression] = []
        if low < before:
            missing.append(And(_at_least(name, low), _below(name, before)))
        if high > after:
            missing.append(And(_above(name, after), _at_most(name, high)))
        self._range = (min(low, before), max(high, after))
        return missing


def _is_ordered(kind: pa.DataType) -> bool:
    """Whether a range of this type holds all its values; not so for floats with their NaN."""
    types = pa.types
    return bool(
        types.is_temporal(kind)
        or types.is_integer(kind)
        or types.is_decimal(kind)
        or types.is_large_string(kind)
    )


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Least and greatest value; temporal ones as Iceberg's integers, which know infinity."""
    ends = pc.min_max(column)
    if not pa.types.is_temporal(column.type):
        return ends["min"].as_py(), ends["max"].as_py()
    bits = pa.int32() if pa.types.is_date32(column.type) else pa.int64()
    return ends["min"].cast(bits).as_py(), ends["max"].cast(bits).as_py()


def _plain(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns in types that can be compared: as the table returns them, UUIDs as their bytes,
    nested values as their fingerprints."""
    columns = []
    for field in schema:
        column = table[field.name]
        if pa.types.is_nested(field.type):
            batches = table.select([field.name]).to_batches()
            columns.append(pa.chunked_array([row_hashes(one) for one in batches], pa.uint64()))
        elif isinstance(field.type, pa.BaseExtensionType):
            columns.append(column.cast(field.type.storage_type))
        else:
            columns.append(column.cast(field.type))
    return pa.table(columns, names=schema.names)


def row_codes(left: pa.Table, right: pa.Table) -> tuple[Codes, Codes]:
    """A number for each row of both tables; equal rows, and only they, have equal numbers."""
    codes = np.zeros(left.num_rows + right.num_rows, np.int64)
    for name in left.column_names:
        both = pa.concat_arrays([*left[name].chunks, *right[name].chunks])
        encoded = both.dictionary_encode(null_encoding="encode")
        column = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        # dense again after each column, so that the product stays below rows squared
        codes = np.unique(codes * len(encoded.dictionary) + column, return_inverse=True)[1]
    return codes[: left.num_rows], codes[left.num_rows :]


def matched_rows(codes: Codes, others: Codes) -> npt.NDArray[np.bool_]:
    """Whether the n-th occurrence of a code here has an n-th occurrence there."""
    order = np.argsort(codes, kind="stable")
    _, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    occurrence = np.empty(len(codes), np.int64)
    occurrence[order] = np.arange(len(codes)) - np.repeat(starts, counts)
    highest = int(max(codes.max(initial=0), others.max(initial=0)))
    matched: npt.NDArray[np.bool_] = occurrence < np.bincount(others, minlength=highest + 1)[codes]
    return matched
