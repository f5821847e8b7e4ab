"""Partitions: from the policy's words to an Iceberg spec, and from a batch to its partitions.

Time transforms are computed here with numpy instead of PyIceberg's Rust functions, because those
give NULL for the dates and timestamps near the ends of their types that stand for infinity; rows in
the NULL partition would be pruned away by every filter on the column. `bucket` and `truncate` are
the library's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)
from pyiceberg.typedef import Record

from matih_ray.errors import ValidationError

# A bucket is a file per commit; more of them is a mistake.
MAX_BUCKETS = 10_000
MAX_TRUNCATE_WIDTH = 1_000_000

_CALL = re.compile(r"(identity|year|month|day|hour)\s*\((.+)\)", re.DOTALL)
_SIZED = re.compile(r"(bucket|truncate)\s*\(\s*(\d{1,9})\s*,(.+)\)", re.DOTALL)
_PLAIN: dict[str, Callable[[], Transform[Any, Any]]] = {
    "identity": IdentityTransform,
    "year": YearTransform,
    "month": MonthTransform,
    "day": DayTransform,
    "hour": HourTransform,
}
_NUMPY_UNIT: dict[type[Any], str] = {
    YearTransform: "Y",
    MonthTransform: "M",
    DayTransform: "D",
    HourTransform: "h",
}
_MICROS_PER_HOUR = 3_600_000_000
_INT32 = np.iinfo(np.int32)

Indices = npt.NDArray[np.int64]


def partition_spec(partition_by: tuple[str, ...], schema: Schema) -> PartitionSpec:
    """The spec of `col`, `identity(col)`, `year|month|day|hour(col)`, `bucket(n, col)` and
    `truncate(n, col)`, in this order.

    Raises:
        ValidationError: Unknown transform or column, or the transform does not take its type.
    """
    fields: list[PartitionField] = []
    taken = {field.name for field in schema.fields}
    for text in partition_by:
        transform, column = _parse(text, schema)
        source = schema.find_field(column)
        identity = isinstance(transform, IdentityTransform)
        if not transform.can_transform(source.field_type):
            raise _invalid(text, f"{transform} does not take {source.field_type}")
        if any(f.source_id == source.field_id and f.transform == transform for f in fields):
            raise _invalid(text, "it is there twice")
        name = column if identity else _free_name(f"{column}_{_suffix(transform)}", taken)
        taken.add(name)
        fields.append(
            PartitionField(source.field_id, PARTITION_FIELD_ID_START + len(fields), transform, name)
        )
    return PartitionSpec(*fields)


def _parse(text: str, schema: Schema) -> tuple[Transform[Any, Any], str]:
    names = {field.name for field in schema.fields}
    if text in names:
        return IdentityTransform(), text
    transform: Transform[Any, Any]
    if match := _CALL.fullmatch(text.strip()):
        transform, column = _PLAIN[match[1]](), match[2].strip()
    elif match := _SIZED.fullmatch(text.strip()):
        size, column = int(match[2]), match[3].strip()
        limit = MAX_BUCKETS if match[1] == "bucket" else MAX_TRUNCATE_WIDTH
        if not 1 <= size <= limit:
            raise _invalid(text, f"the number must be between 1 and {limit}")
        transform = BucketTransform(size) if match[1] == "bucket" else TruncateTransform(size)
    else:
        raise _invalid(text, "expected a column, day(column), bucket(16, column) or the like")
    if column not in names:
        raise _invalid(text, f"there is no column {column!r}")
    return transform, column


def _suffix(transform: Transform[Any, Any]) -> str:
    return str(transform).replace("truncate", "trunc").replace("[", "_").rstrip("]")


def _free_name(name: str, taken: set[str]) -> str:
    return name if name not in taken else _free_name(f"{name}_part", taken)


def _invalid(text: str, why: str) -> ValidationError:
    return ValidationError(f"partitionBy {text!r}: {why}", field="partitionBy")


class Partitioner:
    """Splits batches by a table's partition spec."""

    def __init__(self, spec: PartitionSpec, schema: Schema) -> None:
        columns = [field.name for field in schema.fields]
        self._fields = [
            (field.transform, schema.find_field(field.source_id)) for field in spec.fields
        ]
        names = [source.name for _, source in self._fields]
        if missing := [name for name in names if name not in columns]:
            raise ValidationError(
                f"the table is partitioned by the nested column {missing[0]!r}, which this sink "
                "cannot do",
                field="partitionBy",
            )
        self._positions = [columns.index(name) for name in names]

    @property
    def is_partitioned(self) -> bool:
        """Whether there is anything to split by."""
        return bool(self._fields)

    def split(self, rows: pa.Table) -> Iterator[tuple[Record, pa.Table]]:
        """The partitions of some rows of the table, each with its rows.

        The parts share memory: of the rows if their partitions are already together, else of one
        sorted copy of them.
        """
        if not self._fields:
            yield Record(), rows
            return
        keys = [
            _transformed(transform, source.field_type, rows.column(position).combine_chunks())
            for (transform, source), position in zip(self._fields, self._positions, strict=True)
        ]
        codes = _codes(keys)
        order: Indices | None = None
        if np.any(codes[1:] < codes[:-1]):
            order = np.argsort(codes, kind="stable")
            rows, codes = rows.take(pa.array(order)), codes[order]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=True):
            row = int(start if order is None else order[start])
            record = Record(*(key[row].as_py() for key in keys))
            yield record, rows.slice(int(start), int(end - start))


def _codes(keys: list[pa.Array]) -> Indices:
    """A number for each row; rows of equal keys, and only they, have equal numbers."""
    codes = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        encoded = key.dictionary_encode(null_encoding="encode")
        column = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        # dense again after each column, so that the product stays below rows squared
        codes = np.unique(codes * len(encoded.dictionary) + column, return_inverse=True)[1]
    return codes


def _transformed(transform: Transform[Any, Any], kind: Any, column: pa.Array) -> pa.Array:
    """The partition values of a column as Iceberg's physical values."""
    if isinstance(transform, VoidTransform):
        return pa.nulls(len(column), pa.int32())
    if isinstance(transform, IdentityTransform):
        return _physical(column)
    if unit := _NUMPY_UNIT.get(type(transform)):
        return _time_units(column, unit)
    result: pa.Array = transform.pyarrow_transform(kind)(column)
    return result


def _physical(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        return column.storage
    if pa.types.is_date32(column.type):
        return column.cast(pa.int32())
    if pa.types.is_timestamp(column.type) or pa.types.is_time(column.type):
        return column.cast(pa.int64())
    return column


def _time_units(column: pa.Array, unit: str) -> pa.Array:
    """Whole years, months, days or hours since 1970, rounded down, in Iceberg's 32 bits."""
    numbers = pc.fill_null(_physical(column).cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    if pa.types.is_date32(column.type):
        units = numbers
    else:  # numpy's own rounding of microseconds overflows at their lower end
        units = numbers // (_MICROS_PER_HOUR if unit == "h" else 24 * _MICROS_PER_HOUR)
    if unit in ("Y", "M"):
        units = units.astype("M8[D]").astype(f"M8[{unit}]").astype(np.int64)
    units = np.clip(units, _INT32.min, _INT32.max)  # the hour of infinity needs more bits
    mask = column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(units.astype(np.int32), mask=mask)
