"""Look-back de-duplication: dropping rows of a slice that the table already has.

A look-back slice reads again a window that earlier runs have loaded, to find rows that committed
late. Rows are compared on the slice's `dedupe_on` columns, as *multisets*: two equal rows in the
source of which the table has one leave one to load. That also makes it right for tables without a
key. NULL equals NULL; values are compared exactly, never through text or floats.

`dedupe_on` must contain the cursor: an updated row keeps its key but has a new cursor value, and
comparing keys alone would drop it. The first temporal or numeric column (put the cursor there)
bounds what is read of the table, and so the memory: the keys of one window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
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
from pyiceberg.table import Table

from matih_ray.errors import ValidationError

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
        known = {field.name: field.field_type for field in table.schema().fields}
        for column in columns:
            if column not in known or not known[column].is_primitive:
                raise ValidationError(
                    f"dedupeOn: {column!r} is not a plain column of the table", field="dedupeOn"
                )
        self._table = table
        self._schema = schema_to_pyarrow(table.schema().select(*columns), include_field_ids=False)
        self._columns = columns
        self._bounding = _bounding_column(self._schema, columns)
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
        incoming, existing = _codes(keys, self._rows)
        # the n-th occurrence of a key in the batch meets the n-th one in the table, if there is one
        duplicate = _matched(incoming, existing)
        used = _matched(existing, incoming)
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


def _bounding_column(schema: pa.Schema, columns: tuple[str, ...]) -> str | None:
    """The first temporal or numeric column, else the first text, else none.

    Not a float: NaN is in no range.
    """
    types = pa.types
    for name in columns:
        kind = schema.field(name).type
        if types.is_temporal(kind) or types.is_integer(kind) or types.is_decimal(kind):
            return name
    for name in columns:
        if types.is_large_string(schema.field(name).type):
            return name
    return None


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Least and greatest value; temporal ones as Iceberg's integers, which know infinity."""
    ends = pc.min_max(column)
    if not pa.types.is_temporal(column.type):
        return ends["min"].as_py(), ends["max"].as_py()
    bits = pa.int32() if pa.types.is_date32(column.type) else pa.int64()
    return ends["min"].cast(bits).as_py(), ends["max"].cast(bits).as_py()


def _plain(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns in the types in which the table returns them, UUIDs as their bytes."""
    columns = []
    for field in schema:
        column = table[field.name]
        if isinstance(field.type, pa.BaseExtensionType):
            columns.append(column.cast(field.type.storage_type))
        else:
            columns.append(column.cast(field.type))
    return pa.table(columns, names=schema.names)


def _codes(left: pa.Table, right: pa.Table) -> tuple[Codes, Codes]:
    """A number for each row of both tables; equal rows, and only they, have equal numbers."""
    codes = np.zeros(left.num_rows + right.num_rows, np.int64)
    for name in left.column_names:
        both = pa.concat_arrays([*left[name].chunks, *right[name].chunks])
        encoded = both.dictionary_encode(null_encoding="encode")
        column = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        # dense again after each column, so that the product stays below rows squared
        codes = np.unique(codes * len(encoded.dictionary) + column, return_inverse=True)[1]
    return codes[: left.num_rows], codes[left.num_rows :]


def _matched(codes: Codes, others: Codes) -> npt.NDArray[np.bool_]:
    """Whether the n-th occurrence of a code here has an n-th occurrence there."""
    order = np.argsort(codes, kind="stable")
    _, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    occurrence = np.empty(len(codes), np.int64)
    occurrence[order] = np.arange(len(codes)) - np.repeat(starts, counts)
    highest = int(max(codes.max(initial=0), others.max(initial=0)))
    matched: npt.NDArray[np.bool_] = occurrence < np.bincount(others, minlength=highest + 1)[codes]
    return matched
