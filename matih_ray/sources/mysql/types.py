"""How each MySQL type arrives, decided here and nowhere else.

| MySQL, MariaDB               | Arrow              | how     | encoding                        |
|------------------------------|--------------------|---------|---------------------------------|
| tinyint (so bool), smallint  | int32              | widened | tinyint(1) holds -128 to 127    |
| mediumint, year              | int32              | widened |                                 |
| int                          | int32              | exact   |                                 |
| int unsigned                 | int64              | widened |                                 |
| bigint                       | int64              | exact   |                                 |
| bigint unsigned              | decimal128(20,0)   | widened |                                 |
| decimal(p,s), p ≤ 38         | decimal128(p,s)    | exact   |                                 |
| decimal(p,s), p > 38         | string             | encoded | decimal digits                  |
| float, double                | float, double      | exact   |                                 |
| bit(n)                       | string             | encoded | n digits 0 and 1                |
| date                         | date32             | exact   | a zero date is an error         |
| datetime                     | timestamp[us]      | exact   | a zero date is an error         |
| timestamp                    | timestamp[us, UTC] | exact   | a zero date is an error         |
| time                         | string             | encoded | [-]HHH:MM:SS.ffffff             |
| char, varchar, …text         | string             | exact   | any charset, converted to UTF-8 |
| enum, set                    | string             | encoded | labels                          |
| json                         | string             | encoded | JSON text as the server keeps it|
| binary, varbinary, …blob     | binary             | exact   |                                 |
| geometry and its kinds       | binary             | encoded | WKB without the SRID            |
| everything else              | string             | encoded | the server's own text           |

"Everything else" is MariaDB's uuid, inet4, inet6 and the like. MariaDB's json is a longtext.

Why so: an Iceberg table (format 2) must hold the result, and it has no unsigned type and no integer
under 32 bits. A `tinyint(1)` stays a number, because nothing keeps 2 out of it. A float's own text
has six digits, too few, so it is read as the double that equals it. A `char` loses the spaces at
its end, as in every SELECT.

`policy.encodings` overrides per column: `text` for all but binary types; `decimal(p,s)` for
decimal; `bool` for tinyint(1) and bit(1), where another value than 0 and 1 is an error;
`zero_as_null` for date, datetime and timestamp, where `0000-00-00` becomes NULL and other
impossible dates (2024-02-00, any of the year 0000) stay errors. Nothing is ever rounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity

# Arrow's decimal128 and Iceberg's decimal end here.
MAX_DECIMAL_DIGITS = 38

_NATIVE = re.compile(r"(?P<name>[a-z0-9_]+)(?:\((?P<modifier>\d+(?:,\d+)?)\))?")
_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")

# A float times one is the double that equals it; plus zero would lose the sign of -0.
_AS_DOUBLE = "({} * 1e0)"
_BITS = "LPAD(BIN({0} + 0), {1}, '0')"
_AS_TEXT = "CAST({} AS CHAR)"

TEMPORAL = ("date", "datetime", "timestamp")
_ZERO_DATES = "0000-00-00 and other impossible dates are errors"
_GEOMETRIES = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"}
    | {"multipolygon", "geometrycollection", "geomcollection"}
)
_STRINGS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
BINARIES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})


class Decoding(str, Enum):
    """What is done to the server's text beyond parsing it as the Arrow type."""

    PLAIN = "plain"
    WKB = "wkb"  # drop the four bytes of the SRID that the server stores in front
    ZERO_AS_NULL = "zero_as_null"
    BOOL = "bool"


@dataclass(frozen=True)
class TypeMapping:
    """How a column arrives. `expression` is SQL with `{}` for the column's quoted name."""

    arrow: pa.DataType
    fidelity: Fidelity
    encoding: str | None = None
    expression: str = "{}"
    decoding: Decoding = Decoding.PLAIN


def _exact(arrow: pa.DataType, encoding: str | None = None) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.EXACT, encoding)


def _widened(arrow: pa.DataType) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.WIDENED)


def _text(encoding: str, expression: str = "{}") -> TypeMapping:
    return TypeMapping(pa.string(), Fidelity.ENCODED, encoding, expression)


_UNSIGNED: dict[str, TypeMapping] = {
    "int": _widened(pa.int64()),
    "bigint": _widened(pa.decimal128(20, 0)),
}
_BY_NAME: dict[str, TypeMapping] = {
    "tinyint": _widened(pa.int32()),
    "smallint": _widened(pa.int32()),
    "mediumint": _widened(pa.int32()),
    "year": _widened(pa.int32()),
    "int": _exact(pa.int32()),
    "bigint": _exact(pa.int64()),
    "float": TypeMapping(pa.float32(), Fidelity.EXACT, None, _AS_DOUBLE),
    "double": TypeMapping(pa.float64(), Fidelity.EXACT, None, _AS_DOUBLE),
    "date": _exact(pa.date32(), _ZERO_DATES),
    "datetime": _exact(pa.timestamp("us"), _ZERO_DATES),
    "timestamp": _exact(pa.timestamp("us", tz="UTC"), _ZERO_DATES),
    "time": _text("[-]HHH:MM:SS.ffffff, up to 838:59:59"),
    "enum": _text("label; empty for a value that is none of the labels"),
    "set": _text("labels with commas between"),
    "json": _text("JSON text as the server keeps it"),
    **{name: _exact(pa.string()) for name in _STRINGS},
    "char": _exact(pa.string(), "without spaces at the end"),
    **{name: _exact(pa.binary()) for name in BINARIES},
    **{
        name: TypeMapping(
            pa.binary(), Fidelity.ENCODED, "WKB; the SRID is not part of it", "{}", Decoding.WKB
        )
        for name in _GEOMETRIES
    },
}


def base_name(native_type: str) -> str:
    """The type's name alone: `decimal(10,2) unsigned` → `decimal`."""
    return _parts(native_type)[0]


def mapping_of(native_type: str) -> TypeMapping:
    """How a column of a native type (the catalog's COLUMN_TYPE) arrives by default."""
    name, modifier = _parts(native_type)
    if name == "decimal":
        return _decimal(modifier)
    if name == "bit":
        width = int(modifier or 1)
        return _text(f"{width} digit(s) 0 and 1", _BITS.format("{}", width))
    if " unsigned" in native_type and name in _UNSIGNED:
        return _UNSIGNED[name]
    return _BY_NAME.get(name) or _text("the server's own text", _AS_TEXT)


def overridden(native_type: str, encoding: str, column: str) -> TypeMapping:
    """How a column arrives under `policy.encodings[column]`.

    Raises:
        ValidationError: There is no such encoding, or not for this type.
    """
    name, modifier = _parts(native_type)
    default = mapping_of(native_type)
    if encoding == "text" and not pa.types.is_binary(default.arrow):
        return _text("the server's own text", default.expression)
    if encoding == "bool" and (name, modifier or "1") in (("tinyint", "1"), ("bit", "1")):
        return TypeMapping(pa.bool_(), Fidelity.ENCODED, encoding, "({} + 0)", Decoding.BOOL)
    if encoding == "zero_as_null" and name in TEMPORAL:
        return TypeMapping(default.arrow, Fidelity.ENCODED, encoding, "{}", Decoding.ZERO_AS_NULL)
    decimal = _DECIMAL.fullmatch(encoding)
    if decimal is not None and name == "decimal":
        precision, scale = int(decimal[1]), int(decimal[2])
        if 1 <= precision <= MAX_DECIMAL_DIGITS and scale <= precision:
            return TypeMapping(pa.decimal128(precision, scale), Fidelity.ENCODED, encoding)
    raise ValidationError(
        f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is `text` "
        "for all but binary types, `decimal(p,s)` with s ≤ p ≤ 38 for decimal, `bool` for "
        "tinyint(1) and bit(1), `zero_as_null` for date, datetime and timestamp",
        field=f"encodings.{column}",
    )


def _decimal(modifier: str | None) -> TypeMapping:
    precision, _, scale = (modifier or "10,0").partition(",")
    if int(precision) > MAX_DECIMAL_DIGITS:
        return _text("decimal digits")
    return _exact(pa.decimal128(int(precision), int(scale or 0)))


def _parts(native_type: str) -> tuple[str, str | None]:
    match = _NATIVE.match(native_type)
    return (native_type, None) if match is None else (match["name"], match["modifier"])
