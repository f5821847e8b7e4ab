"""How Snowflake's SQL is written, and how each type arrives.

| Snowflake                    | Arrow              | how     | encoding                          |
|------------------------------|--------------------|---------|-----------------------------------|
| NUMBER(p,s)                  | decimal128(p,s)    | exact   |                                   |
| FLOAT                        | double             | exact   |                                   |
| BOOLEAN                      | bool               | exact   |                                   |
| TEXT                         | string             | exact   |                                   |
| BINARY                       | binary             | exact   |                                   |
| DATE                         | date32             | exact   |                                   |
| TIMESTAMP_NTZ                | timestamp[us]      | exact   |                                   |
| TIMESTAMP_LTZ                | timestamp[us, UTC] | exact   |                                   |
| TIMESTAMP_TZ                 | string             | encoded | …SS.fffffffff and the offset      |
| TIME                         | string             | encoded | HH:MM:SS.fffffffff                |
| VARIANT, OBJECT, ARRAY       | string             | encoded | JSON text                         |
| GEOGRAPHY, GEOMETRY          | string             | encoded | WKT                               |
| everything else              | string             | encoded | the database's own text           |

A timestamp may have nine decimals unless it is declared with fewer, and tables of ours have six. It
arrives as a timestamp all the same, and a value that would lose a digit is an error.
`policy.encodings` knows `text` for every type, which keeps all digits, and `timestamp` for those of
timestamps, which cuts them to microseconds, and TIMESTAMP_TZ to UTC. Timestamps are selected as
text, because the driver's nanoseconds end in the year 2262; bounds of slices have nine decimals.
"""

from __future__ import annotations

import re

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity
from matih_ray.sources.sql.dialect import BoundKind, SqlRelation, TypeMapping

OWN_TEXT = "the database's own text"
# What CREATE TABLE makes of a timestamp without a precision.
DEFAULT_DIGITS = 9
MICROSECOND_DIGITS = 6

_NUMBER = re.compile(r"NUMBER\((\d+),(\d+)\)")
_MOMENT = re.compile(r"TIMESTAMP_(NTZ|LTZ)(?:\((\d)\))?")
_AS_TEXT = "CAST({} AS VARCHAR)"
# the session is in UTC; cast at once, the time of day would stay and the offset be gone
_IN_UTC = "CAST(CAST({} AS TIMESTAMP_LTZ) AS TIMESTAMP_NTZ)"
_UTC_MICROSECONDS = f"TO_VARCHAR({_IN_UTC}, 'YYYY-MM-DD HH24:MI:SS.FF6')"
_UTC_NANOSECONDS = f"TO_VARCHAR({_IN_UTC}, 'YYYY-MM-DD HH24:MI:SS.FF9')"
_IN_MICROSECONDS = "TO_VARCHAR(CAST({} AS TIMESTAMP_NTZ), 'YYYY-MM-DD HH24:MI:SS.FF6')"
_IN_NANOSECONDS = "TO_VARCHAR(CAST({} AS TIMESTAMP_NTZ), 'YYYY-MM-DD HH24:MI:SS.FF9')"
_LITERALS = {
    BoundKind.DATE: "CAST('{}' AS DATE)",
    BoundKind.TIMESTAMP: "CAST('{}' AS TIMESTAMP_NTZ)",
    BoundKind.TIMESTAMP_TZ: "CAST('{}' AS TIMESTAMP_LTZ)",  # the session is in UTC
}


def _exact(arrow: pa.DataType, bound: BoundKind | None = None) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.EXACT, None, "{}", bound)


def _text(encoding: str = OWN_TEXT, expression: str = _AS_TEXT) -> TypeMapping:
    return TypeMapping(pa.string(), Fidelity.ENCODED, encoding, expression)


_BY_NAME: dict[str, TypeMapping] = {
    "FLOAT": _exact(pa.float64()),
    "BOOLEAN": _exact(pa.bool_()),
    # no bound: a column may have a collation, which the catalog does not say for certain
    "TEXT": _exact(pa.string()),
    "BINARY": _exact(pa.binary()),
    "DATE": _exact(pa.date32(), BoundKind.DATE),
    "TIME": _text("HH:MM:SS.fffffffff", "TO_VARCHAR({}, 'HH24:MI:SS.FF9')"),
    "TIMESTAMP_TZ": TypeMapping(
        pa.string(),
        Fidelity.ENCODED,
        "YYYY-MM-DD HH:MM:SS.fffffffff and the offset",
        "TO_VARCHAR({}, 'YYYY-MM-DD HH24:MI:SS.FF9 TZHTZM')",
        BoundKind.TIMESTAMP_TZ,  # compared as a moment, whatever its offset
        _UTC_NANOSECONDS,
    ),
    "VARIANT": _text("JSON text", "TO_JSON({})"),
    "OBJECT": _text("JSON text", "TO_JSON({})"),
    "ARRAY": _text("JSON text", "TO_JSON({})"),
    "GEOGRAPHY": _text("WKT", "ST_ASWKT({})"),
    "GEOMETRY": _text("WKT", "ST_ASWKT({})"),
}


class SnowflakeDialect:
    """How Snowflake's SQL is written. Pure."""

    def quoted(self, name: str) -> str:
        """A name as an identifier."""
        escaped = name.replace('"', '""')
        return f'"{escaped}"'

    def identifier(self, relation: SqlRelation) -> str:
        """The relation's full name in SQL."""
        return f"{self.quoted(relation.schema)}.{self.quoted(relation.name)}"

    def literal(self, kind: BoundKind, text: str) -> str:
        """A checked bound as SQL of the type it is compared with."""
        if kind in (BoundKind.INTEGER, BoundKind.DECIMAL):
            return text
        if kind is BoundKind.TEXT:
            return text_literal(text)
        return _LITERALS[kind].format(text)

    def mapping(self, native_type: str) -> TypeMapping:
        """How a column of that type arrives by default."""
        number = _NUMBER.fullmatch(native_type)
        if number is not None:
            return _exact(pa.decimal128(int(number[1]), int(number[2])), BoundKind.DECIMAL)
        moment = _MOMENT.fullmatch(native_type)
        if moment is not None:
            return _moment(moment[1], int(moment[2] or DEFAULT_DIGITS))
        return _BY_NAME.get(native_type.partition("(")[0]) or _text()

    def overridden(self, native_type: str, encoding: str, column: str) -> TypeMapping:
        """How a column arrives under an encoding of `policy.encodings`.

        Raises:
            ValidationError: There is no such encoding, or not for this type.
        """
        moment = _MOMENT.fullmatch(native_type)
        if encoding == "text":
            if moment is not None:
                return _moment_text(moment[1])
            default = self.mapping(native_type)
            return default if pa.types.is_string(default.arrow) else _text()
        if encoding == "timestamp" and moment is not None:
            arrow = _moment(moment[1], MICROSECOND_DIGITS).arrow
            return TypeMapping(arrow, Fidelity.ENCODED, "cut to microseconds", _IN_MICROSECONDS)
        if encoding == "timestamp" and native_type.startswith("TIMESTAMP_TZ"):
            arrow = pa.timestamp("us", tz="UTC")
            how = "in UTC, cut to microseconds"
            return TypeMapping(arrow, Fidelity.ENCODED, how, _UTC_MICROSECONDS)
        raise ValidationError(
            f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is "
            "`text` for all types and `timestamp` for those of timestamps",
            field=f"encodings.{column}",
        )


def _moment(zone: str, digits: int) -> TypeMapping:
    bound = BoundKind.TIMESTAMP if zone == "NTZ" else BoundKind.TIMESTAMP_TZ
    arrow = pa.timestamp("us", tz=None if zone == "NTZ" else "UTC")
    if digits <= MICROSECOND_DIGITS:
        return TypeMapping(arrow, Fidelity.EXACT, None, _IN_MICROSECONDS, bound)
    # decoded only if no digit is lost
    return TypeMapping(arrow, Fidelity.EXACT, None, _IN_NANOSECONDS, bound, _IN_NANOSECONDS)


def _moment_text(zone: str) -> TypeMapping:
    encoding = "YYYY-MM-DD HH:MM:SS.fffffffff" + ("" if zone == "NTZ" else " in UTC")
    return _text(encoding, _IN_NANOSECONDS)


def text_literal(text: str) -> str:
    """Text as an SQL literal; the backslash is an escape in Snowflake."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
