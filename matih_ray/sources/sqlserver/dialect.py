"""How T-SQL is written, and how each type arrives.

| SQL Server                   | Arrow              | how     | encoding                          |
|------------------------------|--------------------|---------|-----------------------------------|
| bit                          | bool               | exact   |                                   |
| tinyint, smallint            | int32              | widened |                                   |
| int, bigint                  | int32, int64       | exact   |                                   |
| decimal(p,s), numeric(p,s)   | decimal128(p,s)    | exact   |                                   |
| money, smallmoney            | decimal128(19,4), decimal128(10,4) | exact |                     |
| real, float                  | float, double      | exact   |                                   |
| (n)char, (n)varchar, (n)text | string             | exact   | char: padded with spaces          |
| binary, varbinary, image     | binary             | exact   |                                   |
| date                         | date32             | exact   |                                   |
| datetime2(p), p ≤ 6; smalldatetime | timestamp[us] | exact  |                                   |
| datetime                     | timestamp[ms]      | exact   | as the server rounds it           |
| datetime2(7)                 | string             | encoded | YYYY-MM-DD HH:MM:SS.fffffff       |
| datetimeoffset               | string             | encoded | the same and the offset           |
| time                         | string             | encoded | HH:MM:SS.fffffff                  |
| uniqueidentifier             | string             | encoded | canonical UUID text               |
| rowversion                   | int64              | encoded | its 8 bytes as a number           |
| xml                          | string             | encoded | XML text                          |
| everything else              | string             | encoded | the database's own text           |

"Everything else" is sql_variant, whose text loses the type of the value and digits of a float,
hierarchyid, and geometry and geography (WKT). `policy.encodings` knows `text` for every type, and
`timestamp` for datetime2 and datetimeoffset, which cuts them to microseconds, the latter in UTC.

Texts are no bounds, because they compare under a collation. A datetime is a multiple of 1/300 s and
equals its text of three decimals only as a datetime: such bounds, and they alone, have three.
"""

from __future__ import annotations

import re

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity
from matih_ray.sources.sql.dialect import BoundKind, SqlRelation, TypeMapping

OWN_TEXT = "the database's own text"
MICROSECOND_DIGITS = 6

_TYPE = re.compile(r"(\w+)(?:\((\w+)(?:,(\d+))?\))?")
_OF_DATETIME = re.compile(r".*\.\d{3}")
_AS_TEXT = "CONVERT(nvarchar(max), {})"
# 121 is the manual's "ODBC canonical" style: YYYY-MM-DD hh:mm:ss.ffffff, and the offset.
_MOMENT = "CONVERT(varchar(27), {}, 121)"
_IN_UTC = "CONVERT(varchar(27), CONVERT(datetime2(7), SWITCHOFFSET({}, '+00:00')), 121)"
_MICROSECOND_CHARS = len("2024-01-31 23:59:59.123456")
_NO_ZONE, _UTC = pa.timestamp("us"), pa.timestamp("us", tz="UTC")


def _exact(
    arrow: pa.DataType, bound: BoundKind | None = None, expression: str = "{}"
) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.EXACT, None, expression, bound)


def _text(
    encoding: str = OWN_TEXT, expression: str = _AS_TEXT, bound: BoundKind | None = None
) -> TypeMapping:
    return TypeMapping(pa.string(), Fidelity.ENCODED, encoding, expression, bound)


_PADDED = "padded with spaces to its length"
_BY_NAME: dict[str, TypeMapping] = {
    "bit": _exact(pa.bool_()),
    "tinyint": TypeMapping(pa.int32(), Fidelity.WIDENED, bound=BoundKind.INTEGER),
    "smallint": TypeMapping(pa.int32(), Fidelity.WIDENED, bound=BoundKind.INTEGER),
    "int": _exact(pa.int32(), BoundKind.INTEGER),
    "bigint": _exact(pa.int64(), BoundKind.INTEGER),
    "money": _exact(pa.decimal128(19, 4), BoundKind.DECIMAL),
    "smallmoney": _exact(pa.decimal128(10, 4), BoundKind.DECIMAL),
    "real": _exact(pa.float32()),
    "float": _exact(pa.float64()),
    # made UTF-16 by the server, which knows every code page
    "char": TypeMapping(pa.string(), Fidelity.EXACT, _PADDED, _AS_TEXT),
    "nchar": TypeMapping(pa.string(), Fidelity.EXACT, _PADDED),
    "varchar": _exact(pa.string(), expression=_AS_TEXT),
    "text": _exact(pa.string(), expression=_AS_TEXT),
    "ntext": _exact(pa.string(), expression=_AS_TEXT),
    "nvarchar": _exact(pa.string()),
    "binary": _exact(pa.binary(), BoundKind.BINARY),
    "varbinary": _exact(pa.binary(), BoundKind.BINARY),
    "image": _exact(pa.binary(), expression="CONVERT(varbinary(max), {})"),
    "date": _exact(pa.date32(), BoundKind.DATE),
    "datetime": _exact(pa.timestamp("ms"), BoundKind.TIMESTAMP, _MOMENT),
    "smalldatetime": _exact(_NO_ZONE, BoundKind.TIMESTAMP, _MOMENT),
    "datetimeoffset": _text(
        "YYYY-MM-DD HH:MM:SS.fffffff and the offset", "CONVERT(varchar(34), {}, 121)"
    ),
    "time": _text("HH:MM:SS.fffffff", "CONVERT(varchar(16), {}, 121)"),
    # the literal becomes a uniqueidentifier, so it compares as the server orders them
    "uniqueidentifier": _text(
        "canonical UUID text", "LOWER(CONVERT(nchar(36), {}))", BoundKind.TEXT
    ),
    "rowversion": TypeMapping(
        pa.int64(),
        Fidelity.ENCODED,
        "its 8 bytes as a number",
        "CONVERT(bigint, {})",
        BoundKind.INTEGER,
    ),
    "xml": _text("XML text"),
    "geometry": _text("WKT"),
    "geography": _text("WKT"),
}


class SqlServerDialect:
    """How T-SQL is written. Pure."""

    def quoted(self, name: str) -> str:
        """A name as an identifier."""
        escaped = name.replace("]", "]]")
        return f"[{escaped}]"

    def identifier(self, relation: SqlRelation) -> str:
        """The relation's full name in SQL."""
        return f"{self.quoted(relation.schema)}.{self.quoted(relation.name)}"

    def literal(self, kind: BoundKind, text: str) -> str:
        """A checked bound as SQL of the type it is compared with."""
        if kind is BoundKind.INTEGER:
            # without a type it would be a decimal beyond int, and no index of a bigint would do
            return f"CAST({text} AS bigint)"
        if kind is BoundKind.DATE:
            return f"CAST('{text}' AS date)"
        if kind is BoundKind.TIMESTAMP:
            type_ = "datetime" if _OF_DATETIME.fullmatch(text) else "datetime2(7)"
            return f"CAST('{text}' AS {type_})"
        if kind is BoundKind.BINARY:
            return f"0x{text}"
        return text_literal(text) if kind is BoundKind.TEXT else text

    def mapping(self, native_type: str) -> TypeMapping:
        """How a column of that type arrives by default."""
        name, size, scale = _parts(native_type)
        if name in ("decimal", "numeric"):
            return _exact(pa.decimal128(int(size or 18), int(scale or 0)), BoundKind.DECIMAL)
        if name == "datetime2" and int(size or 7) <= MICROSECOND_DIGITS:
            return _exact(_NO_ZONE, BoundKind.TIMESTAMP, _MOMENT)
        if name == "datetime2":
            return _text("YYYY-MM-DD HH:MM:SS.fffffff", _MOMENT, BoundKind.TIMESTAMP)
        if native_type == "varbinary(max)":
            return _exact(pa.binary())
        return _BY_NAME.get(name) or _text()

    def overridden(self, native_type: str, encoding: str, column: str) -> TypeMapping:
        """How a column arrives under an encoding of `policy.encodings`.

        Raises:
            ValidationError: There is no such encoding, or not for this type.
        """
        name, _, _ = _parts(native_type)
        if encoding == "text":
            default = self.mapping(native_type)
            is_text = pa.types.is_string(default.arrow)
            return default if is_text else _text(expression=_text_of(name))
        if encoding == "timestamp" and name in ("datetime2", "datetimeoffset"):
            with_zone = name == "datetimeoffset"
            return TypeMapping(
                _UTC if with_zone else _NO_ZONE,
                Fidelity.ENCODED,
                "cut to microseconds",
                f"LEFT({_IN_UTC if with_zone else _MOMENT}, {_MICROSECOND_CHARS})",
            )
        raise ValidationError(
            f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is "
            "`text` for all types and `timestamp` for datetime2 and datetimeoffset",
            field=f"encodings.{column}",
        )


def _parts(native_type: str) -> tuple[str, str | None, str | None]:
    match = _TYPE.fullmatch(native_type)
    return (native_type, None, None) if match is None else (match[1], match[2], match[3])


def _text_of(name: str) -> str:
    """As text that loses nothing: without their styles floats have six digits, money has two
    decimals, and binaries become whatever characters their bytes are."""
    if name in ("float", "real"):
        return "CONVERT(nvarchar(max), {}, 3)"
    if name in ("money", "smallmoney"):
        return "CONVERT(nvarchar(max), {}, 2)"
    if name in ("binary", "varbinary"):
        return "CONVERT(nvarchar(max), {}, 2)"
    if name == "image":
        return "CONVERT(nvarchar(max), CONVERT(varbinary(max), {}), 2)"
    if name in ("datetime", "smalldatetime", "date"):
        return "CONVERT(nvarchar(max), {}, 121)"
    if name == "rowversion":
        return "CONVERT(nvarchar(max), CONVERT(bigint, {}))"
    return _AS_TEXT


def text_literal(text: str) -> str:
    """Text as an SQL literal."""
    escaped = text.replace("'", "''")
    return f"N'{escaped}'"
