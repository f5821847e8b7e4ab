"""Arrow types of columns: which there are, how a unit spells them, what else becomes one of them.
Pure."""

from __future__ import annotations

import re

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import ColumnDescriptor, Fidelity

DECIMAL_DIGITS = 38
UTC_MICROSECONDS = pa.timestamp("us", "UTC")

FILE_PATH = "_file_path"
FILE_MODIFIED_AT = "_file_modified_at"
# Where a row came from. The price is small, both are constant within a file, and without them
# nobody can take back a file that was wrong. A row's number is left out: sinks do not keep order,
# and files are read in parts.
LINEAGE = {FILE_PATH: pa.string(), FILE_MODIFIED_AT: UTC_MICROSECONDS}

_NAMED = {
    str(kind): kind
    for kind in (
        pa.bool_(),
        pa.int32(),
        pa.int64(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.binary(),
        pa.date32(),
        pa.time64("us"),
        pa.timestamp("us"),
        UTC_MICROSECONDS,
    )
}
_DECIMAL = re.compile(r"decimal128\((\d{1,2}), ?(\d{1,2})\)")
_WIDENED = {
    pa.int8(): pa.int32(),
    pa.int16(): pa.int32(),
    pa.uint8(): pa.int32(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.time32("s"): pa.time64("us"),
    pa.time32("ms"): pa.time64("us"),
    pa.time64("ns"): pa.time64("us"),
}


def parsed(text: str, column: str) -> pa.DataType:
    """The type of that spelling.

    Raises:
        ValidationError: There is no such type of column.
    """
    found = _NAMED.get(text)
    if found is not None:
        return found
    match = _DECIMAL.fullmatch(text)
    if match and 1 <= int(match[1]) <= DECIMAL_DIGITS and int(match[2]) <= int(match[1]):
        return pa.decimal128(int(match[1]), int(match[2]))
    known = ", ".join([*_NAMED, "decimal128(p, s)"])
    raise ValidationError(
        f"column {column!r} cannot have the type {text!r}; types are {known}",
        field="datasets.columns",
        column=column,
    )


def arriving(kind: pa.DataType) -> pa.DataType | None:
    """What a Parquet column of that type arrives as; None when it has no exact form here."""
    if pa.types.is_dictionary(kind):
        return arriving(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us") if kind.tz is None else UTC_MICROSECONDS
    if pa.types.is_decimal(kind) and kind.precision <= DECIMAL_DIGITS and kind.scale >= 0:
        return pa.decimal128(kind.precision, kind.scale)
    if kind in _WIDENED:
        return _WIDENED[kind]
    return kind if str(kind) in _NAMED else None


def described(name: str, native: str, kind: pa.DataType | None) -> ColumnDescriptor:
    """A column as a unit shows it."""
    if kind is None:
        return ColumnDescriptor(
            name=name,
            native_type=native,
            arrow_type="null",
            fidelity=Fidelity.REFUSED,
            encoding=f"columns of type {native} are not loaded",
        )
    is_json = native == "json"
    exact = Fidelity.EXACT if native == str(kind) else Fidelity.WIDENED
    return ColumnDescriptor(
        name=name,
        native_type=native,
        arrow_type=str(kind),
        fidelity=Fidelity.ENCODED if is_json else exact,
        encoding="JSON text" if is_json else None,
    )
