"""How Redshift's SQL is written, and how each type arrives.

| Redshift                     | Arrow              | how     | encoding                      |
|------------------------------|--------------------|---------|-------------------------------|
| boolean                      | bool               | exact   |                               |
| smallint                     | int32              | widened |                               |
| integer, bigint              | int32, int64       | exact   |                               |
| real, double precision       | float, double      | exact   |                               |
| numeric(p,s), p ≤ 38         | decimal128(p,s)    | exact   | NaN (PostgreSQL) is an error  |
| char(n), varchar(n)          | string             | exact   |                               |
| date                         | date32             | exact   |                               |
| timestamp                    | timestamp[us]      | exact   |                               |
| timestamptz                  | timestamp[us, UTC] | exact   |                               |
| varbyte                      | binary             | exact   |                               |
| time                         | string             | encoded | HH:MM:SS.ffffff               |
| timetz                       | string             | encoded | HH:MM:SS.ffffff and offset    |
| everything else              | string             | encoded | the database's own text       |

"Everything else" is interval, super (JSON text), geometry and geography (hexadecimal EWKB),
hllsketch, and what an external catalog may show. `policy.encodings` knows `text` for every type,
and `decimal(p,s)` for numeric.

Bounds are numbers, times and varchar, which Redshift compares by its bytes; a char compares
without its padding, floats are inexact as text, and binaries have no MAX.
"""

from __future__ import annotations

import re

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity
from matih_ray.sources.sql.dialect import BoundKind, SqlRelation, TypeMapping

MAX_DECIMAL_DIGITS = 38
OWN_TEXT = "the database's own text"

_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")
_LITERALS = {
    BoundKind.DATE: "CAST('{}' AS date)",
    BoundKind.TIMESTAMP: "CAST('{}' AS timestamp)",
    BoundKind.TIMESTAMP_TZ: "CAST('{}+00' AS timestamptz)",
}


def _exact(
    arrow: pa.DataType, bound: BoundKind | None = None, expression: str = "{}"
) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.EXACT, None, expression, bound)


def _text(encoding: str = OWN_TEXT) -> TypeMapping:
    return TypeMapping(pa.string(), Fidelity.ENCODED, encoding)


_BY_NAME: dict[str, TypeMapping] = {
    "boolean": _exact(pa.bool_()),
    "smallint": TypeMapping(pa.int32(), Fidelity.WIDENED, bound=BoundKind.INTEGER),
    "integer": _exact(pa.int32(), BoundKind.INTEGER),
    "bigint": _exact(pa.int64(), BoundKind.INTEGER),
    # eight digits are all that Redshift writes of a real, and nine are needed
    "real": _exact(pa.float32(), expression="CAST({} AS double precision)"),
    "double precision": _exact(pa.float64()),
    "character": TypeMapping(pa.string(), Fidelity.EXACT, "padded with spaces to its length"),
    "character varying": _exact(pa.string(), BoundKind.TEXT),
    "text": _exact(pa.string(), BoundKind.TEXT),
    "date": _exact(pa.date32(), BoundKind.DATE),
    "timestamp without time zone": _exact(pa.timestamp("us"), BoundKind.TIMESTAMP),
    "timestamp with time zone": _exact(pa.timestamp("us", tz="UTC"), BoundKind.TIMESTAMP_TZ),
    "binary varying": _exact(pa.binary(), expression="FROM_VARBYTE({}, 'hex')"),
    "bytea": _exact(pa.binary(), expression="ENCODE({}, 'hex')"),  # PostgreSQL's
    "time without time zone": _text("HH:MM:SS.ffffff, 24:00:00 included"),
    "time with time zone": _text("HH:MM:SS.ffffff and offset"),
    "super": _text("JSON text"),
    "geometry": _text("hexadecimal EWKB"),
    "geography": _text("hexadecimal EWKB"),
}


class RedshiftDialect:
    """How Redshift's SQL is written. Pure."""

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
        numeric = _NUMERIC.fullmatch(native_type)
        if numeric is not None and int(numeric[2]) <= int(numeric[1]) <= MAX_DECIMAL_DIGITS:
            return _exact(pa.decimal128(int(numeric[1]), int(numeric[2])), BoundKind.DECIMAL)
        return _BY_NAME.get(native_type.partition("(")[0]) or _text()

    def overridden(self, native_type: str, encoding: str, column: str) -> TypeMapping:
        """How a column arrives under an encoding of `policy.encodings`.

        Raises:
            ValidationError: There is no such encoding, or not for this type.
        """
        decimal = _DECIMAL.fullmatch(encoding)
        if encoding == "text":
            return _text()
        if decimal is not None and native_type.startswith("numeric"):
            precision, scale = int(decimal[1]), int(decimal[2])
            if 1 <= precision <= MAX_DECIMAL_DIGITS and scale <= precision:
                return TypeMapping(pa.decimal128(precision, scale), Fidelity.ENCODED, encoding)
        raise ValidationError(
            f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is "
            "`text` for all types and `decimal(p,s)` with s ≤ p ≤ 38 for numeric",
            field=f"encodings.{column}",
        )


def text_literal(text: str) -> str:
    """Text as an SQL literal, for servers that take a backslash for an escape and for others."""
    escaped = text.replace("'", "''")
    parts = [f"'{part}'" for part in escaped.split("\\")]
    return f"({' || CHR(92) || '.join(parts)})" if len(parts) > 1 else parts[0]
