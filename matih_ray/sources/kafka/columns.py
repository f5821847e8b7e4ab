"""A message as columns: its envelope, and for JSON the fields of its value.

| column       | Arrow                     | what                                               |
|--------------|---------------------------|----------------------------------------------------|
| `_partition` | int32                     | with `_offset`: which message it is                |
| `_offset`    | int64                     |                                                    |
| `_timestamp` | timestamp[us, UTC]        | by producer or broker, in milliseconds; else NULL  |
| `_key`       | binary                    | as it is                                           |
| `_headers`   | list of (name, value)     | in their order, names may repeat                   |
| `_value`     | binary                    | as it is; under JSON only if it is no JSON object  |
| `_tombstone` | bool                      | JSON only: there is no value                       |
| others       | see `http.json_values`    | JSON only: fields of the value                     |
| `_extra`     | string                    | JSON only: fields without a column                 |

A value that is not one JSON object (broken, an array, a name twice) loses nothing and stops
nothing: nobody can repair a message, and a run that failed at it would fail for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor, Fidelity
from matih_ray.sources.documents.columns import (
    EXTRA,
    Dialect,
    SelectedColumn,
    observed_columns,
    selected_columns,
)
from matih_ray.sources.http.json_values import dialect_of, with_decimals

PARTITION, OFFSET, TIMESTAMP = "_partition", "_offset", "_timestamp"
KEY, HEADERS, VALUE, TOMBSTONE = "_key", "_headers", "_value", "_tombstone"

HEADER_LIST = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
MICROSECONDS = pa.timestamp("us", tz="UTC")
# Native type of `_value` where the others are made of it.
NOT_AN_OBJECT = "bytes that are no JSON object"

_ENVELOPE = (
    ColumnDescriptor(name=PARTITION, native_type="int32", arrow_type="int32", nullable=False),
    ColumnDescriptor(name=OFFSET, native_type="int64", arrow_type="int64", nullable=False),
    ColumnDescriptor(
        name=TIMESTAMP,
        native_type="milliseconds",
        arrow_type=str(MICROSECONDS),
        fidelity=Fidelity.WIDENED,
    ),
    ColumnDescriptor(name=KEY, native_type="bytes", arrow_type="binary"),
    ColumnDescriptor(
        name=HEADERS, native_type="headers", arrow_type=str(HEADER_LIST), nullable=False
    ),
)
_RAW_VALUE = ColumnDescriptor(name=VALUE, native_type="bytes", arrow_type="binary")
_OTHER_VALUE = ColumnDescriptor(name=VALUE, native_type=NOT_AN_OBJECT, arrow_type="binary")
_TOMBSTONE = ColumnDescriptor(
    name=TOMBSTONE, native_type="no value", arrow_type="bool", nullable=False
)
ENVELOPE_NAMES = frozenset({PARTITION, OFFSET, TIMESTAMP, KEY, HEADERS, VALUE, TOMBSTONE})
_ARROW: dict[str, pa.DataType] = {
    PARTITION: pa.int32(),
    OFFSET: pa.int64(),
    TIMESTAMP: MICROSECONDS,
    KEY: pa.binary(),
    HEADERS: HEADER_LIST,
    VALUE: pa.binary(),
    TOMBSTONE: pa.bool_(),
}
# `policy.encodings` of envelope columns.
_ENCODED: dict[tuple[str, str], pa.DataType] = {
    (KEY, "text"): pa.string(),
    (VALUE, "text"): pa.string(),
    (TIMESTAMP, "int64"): pa.int64(),
}


@dataclass(frozen=True)
class Selection:
    """What is read of each message: columns of the envelope, and fields of its value."""

    envelope: tuple[pa.Field, ...]
    fields: tuple[SelectedColumn, ...]
    dialect: Dialect
    is_json: bool

    @property
    def schema(self) -> pa.Schema:
        """The schema of batches."""
        fields = [pa.field(column.name, column.arrival.arrow) for column in self.fields]
        return pa.schema([*self.envelope, *fields])


def raw_columns() -> tuple[ColumnDescriptor, ...]:
    """Columns of a topic whose values are bytes."""
    return (*_ENVELOPE, _RAW_VALUE)


def json_columns(
    sample: Iterable[dict[str, Any]], declared: dict[str, str]
) -> tuple[ColumnDescriptor, ...]:
    """Columns of a topic whose values are JSON objects.

    Args:
        sample: Values; a field that is named like a column of the envelope stays in `_extra`.
        declared: Types that are known, by field.
    """
    dialect = with_decimals(set(declared.values()))
    named = ({k: v for k, v in value.items() if k not in ENVELOPE_NAMES} for value in sample)
    return (*_ENVELOPE, _OTHER_VALUE, _TOMBSTONE, *observed_columns(dialect, named, declared))


def selection(unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> Selection:
    """The unit's columns that the policy asks for, in the unit's order.

    Raises:
        ValidationError: The policy names an unknown column, or an encoding that does not exist.
    """
    _refuse_unknown(unit, policy)
    own = tuple(column for column in unit.columns if column.name not in ENVELOPE_NAMES)
    own_names = {column.name for column in own}
    fields: tuple[SelectedColumn, ...] = ()
    if own:
        inner = unit.model_copy(update={"columns": own, "primary_key": ()})
        wanted = policy.columns
        choice = IngestionPolicy(
            columns=None if wanted is None else tuple(n for n in wanted if n in own_names),
            encodings={k: v for k, v in policy.encodings.items() if k in own_names},
        )
        fields = selected_columns(dialect_of(inner), inner, choice)
    envelope = tuple(
        _envelope_field(column, policy.encodings.get(column.name))
        for column in unit.columns
        if column.name in ENVELOPE_NAMES
        and (policy.columns is None or column.name in policy.columns)
    )
    return Selection(envelope, fields, dialect_of(unit), is_json=EXTRA in own_names)


def _envelope_field(column: ColumnDescriptor, encoding: str | None) -> pa.Field:
    if encoding is None:
        return pa.field(column.name, _ARROW[column.name])
    kind = _ENCODED.get((column.name, encoding))
    if kind is None:
        raise ValidationError(
            f"column {column.name!r} has no encoding {encoding!r}; there is `text` for {KEY} and "
            f"{VALUE}, and `int64` (milliseconds) for {TIMESTAMP}",
            field=f"encodings.{column.name}",
        )
    return pa.field(column.name, kind)


def _refuse_unknown(unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> None:
    names = {column.name for column in unit.columns}
    for option, asked in (("columns", policy.columns or ()), ("encodings", policy.encodings)):
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise ValidationError(
                f"{unit.unit_id} has no column {unknown[0]!r} for {option}; it has "
                f"{', '.join(sorted(names))}",
                field=option,
                column=unknown[0],
            )
