"""How Oracle's SQL is written, and how each type arrives.

| Oracle                         | Arrow              | how     | encoding                        |
|--------------------------------|--------------------|---------|---------------------------------|
| NUMBER(p,s), 0 ≤ s ≤ p         | decimal128(p,s)    | exact   |                                 |
| NUMBER(p,s) otherwise          | decimal128, wider  | exact   |                                 |
| NUMBER, FLOAT                  | string             | encoded | decimal digits                  |
| BINARY_FLOAT, BINARY_DOUBLE    | float, double      | exact   |                                 |
| BOOLEAN                        | bool               | exact   |                                 |
| VARCHAR2, NVARCHAR2, CLOB, NCLOB, LONG | string     | exact   |                                 |
| CHAR, NCHAR                    | string             | exact   | padded with spaces              |
| RAW, BLOB, LONG RAW            | binary             | exact   |                                 |
| DATE                           | timestamp[s]       | exact   |                                 |
| TIMESTAMP(p), p ≤ 6            | timestamp[us]      | exact   |                                 |
| … WITH LOCAL TIME ZONE, p ≤ 6  | timestamp[us, UTC] | exact   |                                 |
| both, p > 6                    | string             | encoded | YYYY-MM-DD HH:MM:SS.fffffffff   |
| TIMESTAMP(p) WITH TIME ZONE    | string             | encoded | the same and the offset         |
| INTERVAL …                     | string             | encoded | the database's own text         |
| ROWID, UROWID                  | string             | encoded | the database's own text         |
| JSON                           | string             | encoded | JSON text                       |
| XMLTYPE                        | string             | encoded | XML text                        |
| SDO_GEOMETRY                   | string             | encoded | WKT                             |
| everything else                | string             | encoded | the database's own text         |

A NUMBER without a precision has up to 40 digits wherever they are, so no decimal of Arrow's holds
all of them; `policy.encodings` knows `decimal(p,s)` for it. For timestamps it knows `timestamp`,
which cuts them to microseconds, those WITH TIME ZONE in UTC, and `text` for every type. The empty
text is NULL in Oracle. A time before the year 1 is an error where it becomes a timestamp, and a
minus sign in a text.

Texts are compared by their bytes, which the session asks for; a bound without decimals is of a
DATE, and compared as one, so that an index of it is of use.
"""

from __future__ import annotations

import re

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity
from matih_ray.sources.sql.dialect import BoundKind, SqlRelation, TypeMapping

OWN_TEXT = "the database's own text"
MAX_DECIMAL_DIGITS = 38
MICROSECOND_DIGITS = 6

_NUMBER = re.compile(r"NUMBER\((\d+),(-?\d+)\)")
_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")
_TIMESTAMP = re.compile(r"TIMESTAMP\((\d)\)( WITH TIME ZONE| WITH LOCAL TIME ZONE)?")
_AS_TEXT = "TO_CHAR({})"
# S writes a sign for years before the first, and a space otherwise.
_SECONDS = "LTRIM(TO_CHAR({}, 'SYYYY-MM-DD HH24:MI:SS'))"
_MICROSECONDS = "LTRIM(TO_CHAR({}, 'SYYYY-MM-DD HH24:MI:SS.FF6'))"
_NANOSECONDS = "LTRIM(TO_CHAR({}, 'SYYYY-MM-DD HH24:MI:SS.FF9'))"
_WITH_OFFSET = "LTRIM(TO_CHAR({}, 'SYYYY-MM-DD HH24:MI:SS.FF9 TZH:TZM'))"
_IN_UTC = "LTRIM(TO_CHAR(SYS_EXTRACT_UTC({}), 'SYYYY-MM-DD HH24:MI:SS.FF6'))"
_TO_DATE = "TO_DATE('{}', 'YYYY-MM-DD HH24:MI:SS')"
_TO_TIMESTAMP = "TO_TIMESTAMP('{}', 'YYYY-MM-DD HH24:MI:SS.FF9')"


def _exact(arrow: pa.DataType, bound: BoundKind | None = None) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.EXACT, None, "{}", bound)


def _text(
    encoding: str = OWN_TEXT, expression: str = _AS_TEXT, bound: BoundKind | None = None
) -> TypeMapping:
    return TypeMapping(pa.string(), Fidelity.ENCODED, encoding, expression, bound)


_PADDED = TypeMapping(pa.string(), Fidelity.EXACT, "padded with spaces to its length")
_OF_DIGITS = _text("decimal digits", "{}", BoundKind.DECIMAL)
_BY_NAME: dict[str, TypeMapping] = {
    "NUMBER": _OF_DIGITS,
    "FLOAT": _OF_DIGITS,
    "BINARY_FLOAT": _exact(pa.float32()),
    "BINARY_DOUBLE": _exact(pa.float64()),
    "BOOLEAN": _exact(pa.bool_()),
    "VARCHAR2": _exact(pa.string(), BoundKind.TEXT),
    "NVARCHAR2": _exact(pa.string()),
    "CHAR": _PADDED,
    "NCHAR": _PADDED,
    "CLOB": _exact(pa.string()),
    "NCLOB": _exact(pa.string()),
    "LONG": _exact(pa.string()),
    "RAW": _exact(pa.binary(), BoundKind.BINARY),
    "BLOB": _exact(pa.binary()),
    "LONG RAW": _exact(pa.binary()),
    "DATE": TypeMapping(pa.timestamp("s"), Fidelity.EXACT, None, _SECONDS, BoundKind.TIMESTAMP),
    "JSON": _text("JSON text", "JSON_SERIALIZE({} RETURNING CLOB)"),
    "XMLTYPE": _text("XML text", "XMLSERIALIZE(CONTENT {} AS CLOB)"),
    "SDO_GEOMETRY": _text("WKT", "SDO_UTIL.TO_WKTGEOMETRY({})"),
    "VECTOR": _text("JSON text", "VECTOR_SERIALIZE({} RETURNING CLOB)"),
    "ROWID": _text(expression="ROWIDTOCHAR({})"),
}
# Nothing can be asked of these but their value.
_LONGS = frozenset({"LONG", "LONG RAW"})
_TEXT_EXPRESSIONS = {"RAW": "RAWTOHEX({})", "BLOB": "RAWTOHEX({})"}


class OracleDialect:
    """How Oracle's SQL is written. Pure."""

    def quoted(self, name: str) -> str:
        """A name as an identifier."""
        escaped = name.replace('"', '""')
        return f'"{escaped}"'

    def identifier(self, relation: SqlRelation) -> str:
        """The relation's full name in SQL."""
        return f"{self.quoted(relation.schema)}.{self.quoted(relation.name)}"

    def literal(self, kind: BoundKind, text: str) -> str:
        """A checked bound as SQL of the type it is compared with."""
        if kind is BoundKind.TEXT:
            return text_literal(text)
        if kind is BoundKind.BINARY:
            return f"HEXTORAW('{text}')"
        if kind is BoundKind.TIMESTAMP:
            return (_TO_TIMESTAMP if "." in text else _TO_DATE).format(text)
        if kind is BoundKind.TIMESTAMP_TZ:  # the session is in UTC
            return f"CAST({_TO_TIMESTAMP.format(text)} AS TIMESTAMP WITH LOCAL TIME ZONE)"
        return text

    def mapping(self, native_type: str) -> TypeMapping:
        """How a column of that type arrives by default."""
        number = _NUMBER.fullmatch(native_type)
        if number is not None:
            return _decimal(int(number[1]), int(number[2]))
        moment = _TIMESTAMP.fullmatch(native_type)
        if moment is not None:
            return _moment(int(moment[1]), moment[2])
        return _BY_NAME.get(native_type.partition("(")[0]) or _text()

    def overridden(self, native_type: str, encoding: str, column: str) -> TypeMapping:
        """How a column arrives under an encoding of `policy.encodings`.

        Raises:
            ValidationError: There is no such encoding, or not for this type.
        """
        name = native_type.partition("(")[0]
        if encoding == "text" and name not in _LONGS:
            return self._as_text(native_type, name)
        moment = _TIMESTAMP.fullmatch(native_type)
        if encoding == "timestamp" and moment is not None:
            arrow = pa.timestamp("us", tz="UTC" if moment[2] else None)
            expression = _IN_UTC if moment[2] == " WITH TIME ZONE" else _MICROSECONDS
            return TypeMapping(arrow, Fidelity.ENCODED, "cut to microseconds", expression)
        decimal = _DECIMAL.fullmatch(encoding)
        if decimal is not None and name in ("NUMBER", "FLOAT"):
            precision, scale = int(decimal[1]), int(decimal[2])
            if 1 <= precision <= MAX_DECIMAL_DIGITS and scale <= precision:
                arrow = pa.decimal128(precision, scale)
                return TypeMapping(arrow, Fidelity.ENCODED, encoding)
        raise ValidationError(
            f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is "
            "`text` for all types but LONG, `decimal(p,s)` with s ≤ p ≤ 38 for NUMBER, and "
            "`timestamp` for timestamps",
            field=f"encodings.{column}",
        )

    def _as_text(self, native_type: str, name: str) -> TypeMapping:
        default = self.mapping(native_type)
        if pa.types.is_string(default.arrow):
            return default
        if pa.types.is_decimal(default.arrow):
            return _OF_DIGITS
        if pa.types.is_timestamp(default.arrow):
            return _text(expression=default.expression)
        return _text(expression=_TEXT_EXPRESSIONS.get(name, _AS_TEXT))


def _decimal(precision: int, scale: int) -> TypeMapping:
    """NUMBER(5,-2) has hundreds of up to seven digits, NUMBER(2,5) hundred-thousandths of two."""
    digits = max(precision - min(scale, 0), scale)
    if digits > MAX_DECIMAL_DIGITS:
        return _OF_DIGITS
    return _exact(pa.decimal128(digits, max(scale, 0)), BoundKind.DECIMAL)


def _moment(digits: int, zone: str | None) -> TypeMapping:
    if zone == " WITH TIME ZONE":
        return _text("YYYY-MM-DD HH:MM:SS.fffffffff and the offset", _WITH_OFFSET)
    bound = BoundKind.TIMESTAMP if zone is None else BoundKind.TIMESTAMP_TZ
    if digits > MICROSECOND_DIGITS:
        encoding = "YYYY-MM-DD HH:MM:SS.fffffffff" + ("" if zone is None else " in UTC")
        return _text(encoding, _NANOSECONDS, bound)
    arrow = pa.timestamp("us", tz=None if zone is None else "UTC")
    return TypeMapping(arrow, Fidelity.EXACT, None, _MICROSECONDS, bound)


def text_literal(text: str) -> str:
    """Text as an SQL literal."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
