"""How each type arrives: from BigQuery's spelling of a type to Arrow. Pure.

| BigQuery                      | Arrow              | how     | encoding              |
|-------------------------------|--------------------|---------|-----------------------|
| BOOL                          | bool               | exact   |                       |
| INT64, FLOAT64                | int64, double      | exact   |                       |
| NUMERIC                       | decimal128(38,9)   | exact   |                       |
| NUMERIC(p,s), BIGNUMERIC(p,s) | decimal128(p,s)    | exact   | (p ≤ 38)              |
| BIGNUMERIC                    | string             | encoded | digits                |
| STRING, BYTES                 | string, binary     | exact   |                       |
| DATE, TIME                    | date32, time64[us] | exact   |                       |
| DATETIME                      | timestamp[us]      | exact   |                       |
| TIMESTAMP                     | timestamp[us, UTC] | exact   |                       |
| STRUCT, ARRAY                 | struct, list       | as what is in them              |
| JSON                          | string             | encoded | JSON text             |
| GEOGRAPHY                     | string             | encoded | WKT                   |
| INTERVAL                      | string             | encoded | Y-M D H:M:S           |
| everything else               | string             | encoded | BigQuery's own text   |

`policy.encodings` knows `text` for every type (JSON text for STRUCT and ARRAY, base64 for BYTES)
and `decimal` for BIGNUMERIC, which gives decimal256(76,38): exact, and more than tables of ours
hold. A STRING with a collation cannot bound slices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity
from matih_ray.sources.sql.dialect import BoundKind, TypeMapping

# Arrow's smaller decimal; Iceberg's ends here as well.
MAX_DECIMAL_DIGITS = 38
BIGNUMERIC = pa.decimal256(76, 38)
OWN_TEXT = "BigQuery's own text"
JSON_TEXT = "JSON text"

_PARAMETERS = re.compile(r"(NUMERIC|BIGNUMERIC)\((\d+)(?:, ?(\d+))?\)")
_NESTED = re.compile(r"(ARRAY|STRUCT)<(.*)>", re.DOTALL)
_FIELD = re.compile(r"`((?:[^`\\]|\\.)*)` (.*)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _exact(arrow: pa.DataType, bound: BoundKind | None = None) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.EXACT, None, "{}", bound)


def _text(
    encoding: str = OWN_TEXT, expression: str = "{}", bound: BoundKind | None = None
) -> TypeMapping:
    return TypeMapping(pa.string(), Fidelity.ENCODED, encoding, expression, bound)


_BY_NAME = {
    "BOOL": _exact(pa.bool_()),
    "INT64": _exact(pa.int64(), BoundKind.INTEGER),
    "FLOAT64": _exact(pa.float64()),
    "NUMERIC": _exact(pa.decimal128(38, 9), BoundKind.DECIMAL),
    "BIGNUMERIC": _text("digits", bound=BoundKind.DECIMAL),
    "STRING": _exact(pa.string(), BoundKind.TEXT),
    "BYTES": _exact(pa.binary(), BoundKind.BINARY),
    "DATE": _exact(pa.date32(), BoundKind.DATE),
    "TIME": _exact(pa.time64("us")),
    "DATETIME": _exact(pa.timestamp("us"), BoundKind.TIMESTAMP),
    "TIMESTAMP": _exact(pa.timestamp("us", tz="UTC"), BoundKind.TIMESTAMP_TZ),
    "JSON": _text(JSON_TEXT),
    "GEOGRAPHY": _text("WKT"),
    "INTERVAL": _text("Y-M D H:M:S"),
}
_AS_TEXT = {
    "BYTES": _text("base64", "TO_BASE64({})"),
    "STRUCT": _text(JSON_TEXT, "TO_JSON_STRING({})"),
    "ARRAY": _text(JSON_TEXT, "TO_JSON_STRING({})"),
    "JSON": _BY_NAME["JSON"],
    "GEOGRAPHY": _BY_NAME["GEOGRAPHY"],
}


def mapping_of(native_type: str) -> TypeMapping:
    """How a column of that type arrives by default."""
    nested = _NESTED.fullmatch(native_type)
    if nested is not None:
        return _array(nested[2]) if nested[1] == "ARRAY" else _struct(nested[2])
    decimal = _PARAMETERS.fullmatch(native_type)
    if decimal is not None:
        return _decimal(decimal[1], int(decimal[2]), int(decimal[3] or 0))
    known = _BY_NAME.get(native_type)
    if known is not None:
        return known
    if native_type.startswith("STRING COLLATE "):
        return _exact(pa.string())
    if native_type.startswith("TIMESTAMP("):  # twelve digits, of which pages show six
        return _text(expression="CAST({} AS STRING)")
    return _text()


def overridden(native_type: str, encoding: str, column: str) -> TypeMapping:
    """How a column arrives under an encoding of `policy.encodings`.

    Raises:
        ValidationError: There is no such encoding, or not for this type.
    """
    name = re.split(r"[<( ]", native_type, maxsplit=1)[0]
    if encoding == "text":
        return _AS_TEXT.get(name) or _text(expression="CAST({} AS STRING)")
    if encoding == "decimal" and name == "BIGNUMERIC":
        return _exact(BIGNUMERIC, BoundKind.DECIMAL)
    raise ValidationError(
        f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is `text` "
        "for all types and `decimal` for BIGNUMERIC",
        field=f"encodings.{column}",
    )


def _decimal(name: str, digits: int, scale: int) -> TypeMapping:
    if digits > MAX_DECIMAL_DIGITS:
        return _BY_NAME[name]
    return _exact(pa.decimal128(digits, scale), BoundKind.DECIMAL)


def _array(inner: str) -> TypeMapping:
    """NULL and an empty array are the same in BigQuery, and elements are never NULL."""
    element = mapping_of(inner)
    return TypeMapping(pa.list_(element.arrow), element.fidelity, element.encoding)


def _struct(inner: str) -> TypeMapping:
    fields, encodings = [], []
    for text in _split(inner):
        found = _FIELD.fullmatch(text)
        if found is None:  # a spelling that we did not write
            return _text()
        name = _ESCAPED.sub(r"\1", found[1])
        mapping = mapping_of(found[2])
        fields.append(pa.field(name, mapping.arrow))
        if mapping.encoding is not None:
            encodings.append(f"{name}: {mapping.encoding}")
    fidelity = Fidelity.ENCODED if encodings else Fidelity.EXACT
    return TypeMapping(pa.struct(fields), fidelity, "; ".join(encodings) or None)


def _split(inner: str) -> Iterator[str]:
    """The fields of a STRUCT, between the commas that are in no name and no other type."""
    depth, start, position = 0, 0, 0
    while position < len(inner):
        sign = inner[position]
        if sign == "`":
            name = _QUOTED.match(inner, position)
            position = len(inner) if name is None else name.end()
            continue
        depth += (sign in "<(") - (sign in ">)")
        if sign == "," and depth == 0:
            yield inner[start:position]
            start = position + 2
        position += 1
    yield inner[start:]


_QUOTED = re.compile(r"`(?:[^`\\]|\\.)*`", re.DOTALL)
