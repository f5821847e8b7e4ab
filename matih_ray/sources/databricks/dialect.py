"""How Databricks' SQL is written, and how each type arrives.

| Databricks                     | Arrow              | how     | encoding                        |
|--------------------------------|--------------------|---------|---------------------------------|
| TINYINT, SMALLINT, INT, BIGINT | int8 … int64       | exact   |                                 |
| DECIMAL(p,s)                   | decimal128(p,s)    | exact   |                                 |
| FLOAT, DOUBLE                  | float, double      | exact   |                                 |
| BOOLEAN                        | bool               | exact   |                                 |
| STRING, VARCHAR, CHAR          | string             | exact   |                                 |
| BINARY                         | binary             | exact   |                                 |
| DATE                           | date32             | exact   |                                 |
| TIMESTAMP                      | timestamp[us, UTC] | exact   |                                 |
| TIMESTAMP_NTZ                  | timestamp[us]      | exact   |                                 |
| ARRAY, STRUCT, MAP             | string             | encoded | JSON text                       |
| VARIANT                        | string             | encoded | JSON text                       |
| INTERVAL, everything else      | string             | encoded | the database's own text         |

In JSON text, NULL fields are there, timestamps have six decimals, binaries are in base64, and a MAP
is an object. Keys that are times, binaries or nested have no exact form there: a MAP with such keys
arrives as an array of objects with `key` and `value`, and where it is inside of another value, that
arrives as the database's own text. `policy.encodings` knows `text` for every type.

Why not nested Arrow: a struct's fields come and go without a change that a catalog would show, and
rows of one table would have several schemas.
"""

from __future__ import annotations

import re

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity
from matih_ray.sources.sql.dialect import BoundKind, SqlRelation, TypeMapping

OWN_TEXT = "the database's own text"
JSON_TEXT = "JSON text"

_DECIMAL = re.compile(r"(?:DECIMAL|DEC|NUMERIC)(?:\((\d+)(?:,\s*(\d+))?\))?")
# DECIMAL without digits, by the manual of its type
_DEFAULT_DECIMAL = (10, 0)
_NAME = re.compile(r"\w+")
_MAP_KEY = re.compile(r"MAP\s*<\s*(\w+)")
# Keys that are the same in JSON, which has texts for keys only.
_PLAIN_KEYS = frozenset(
    ("STRING", "VARCHAR", "CHAR", "TINYINT", "SMALLINT", "INT", "BIGINT", "DECIMAL", "BOOLEAN")
)
_AS_TEXT = "CAST({} AS STRING)"
# Without these, fractions of a second are cut to milliseconds and NULL fields are left out.
_JSON_OPTIONS = (
    "map('ignoreNullFields', 'false', "
    "'timestampFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSSXXX', "
    "'timestampNTZFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSS')"
)
_AS_JSON = f"to_json({{}}, {_JSON_OPTIONS})"
_ENTRIES_AS_JSON = f"to_json(map_entries({{}}), {_JSON_OPTIONS})"
_LITERALS = {
    BoundKind.DATE: "DATE'{}'",
    BoundKind.TIMESTAMP: "TIMESTAMP_NTZ'{}'",
    BoundKind.TIMESTAMP_TZ: "TIMESTAMP'{}Z'",
    BoundKind.BINARY: "X'{}'",
}


def _exact(arrow: pa.DataType, bound: BoundKind | None = None) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.EXACT, None, "{}", bound)


def _text(encoding: str = OWN_TEXT, expression: str = _AS_TEXT) -> TypeMapping:
    return TypeMapping(pa.string(), Fidelity.ENCODED, encoding, expression)


_BY_NAME: dict[str, TypeMapping] = {
    "TINYINT": _exact(pa.int8(), BoundKind.INTEGER),
    "SMALLINT": _exact(pa.int16(), BoundKind.INTEGER),
    "INT": _exact(pa.int32(), BoundKind.INTEGER),
    "BIGINT": _exact(pa.int64(), BoundKind.INTEGER),
    "FLOAT": _exact(pa.float32()),
    "DOUBLE": _exact(pa.float64()),
    "BOOLEAN": _exact(pa.bool_()),
    "STRING": _exact(pa.string(), BoundKind.TEXT),
    "VARCHAR": _exact(pa.string(), BoundKind.TEXT),
    "CHAR": _exact(pa.string()),  # no bound: comparisons fill it up with spaces
    "BINARY": _exact(pa.binary(), BoundKind.BINARY),
    "DATE": _exact(pa.date32(), BoundKind.DATE),
    "TIMESTAMP": _exact(pa.timestamp("us", "UTC"), BoundKind.TIMESTAMP_TZ),
    "TIMESTAMP_NTZ": _exact(pa.timestamp("us"), BoundKind.TIMESTAMP),
    "VARIANT": _text(JSON_TEXT, "to_json({})"),
    "OBJECT": _text(JSON_TEXT, "to_json({})"),
}
# Other names of the same types, which catalogs use.
_SYNONYMS = {
    "BYTE": "TINYINT",
    "SHORT": "SMALLINT",
    "INTEGER": "INT",
    "LONG": "BIGINT",
    "REAL": "FLOAT",
    "TIMESTAMP_LTZ": "TIMESTAMP",
}
_NESTED = ("ARRAY", "MAP", "STRUCT")


class DatabricksDialect:
    """How Databricks' SQL is written; names of tables begin with the catalog's. Pure."""

    def __init__(self, catalog: str) -> None:
        self._catalog = catalog

    def quoted(self, name: str) -> str:
        """A name as an identifier."""
        return quoted(name)

    def identifier(self, relation: SqlRelation) -> str:
        """The relation's full name in SQL."""
        return ".".join([quoted(part) for part in (self._catalog, relation.schema, relation.name)])

    def literal(self, kind: BoundKind, text: str) -> str:
        """A checked bound as SQL of the type it is compared with."""
        if kind is BoundKind.INTEGER:
            return text
        if kind is BoundKind.DECIMAL:
            return f"{text}BD"  # a decimal whatever its digits are, where others would be integers
        if kind is BoundKind.TEXT:
            return text_literal(text)
        return _LITERALS[kind].format(text)

    def mapping(self, native_type: str) -> TypeMapping:
        """How a column of that type arrives by default."""
        spelled = native_type.upper()
        decimal = _DECIMAL.fullmatch(spelled)
        if decimal is not None:
            digits, places = _DEFAULT_DECIMAL
            if decimal[1] is not None:
                digits, places = int(decimal[1]), int(decimal[2] or 0)
            return _exact(pa.decimal128(digits, places), BoundKind.DECIMAL)
        match = _NAME.match(spelled)
        name = "" if match is None else match[0]
        if name in _NESTED:
            return _nested(spelled, name)
        found = _BY_NAME.get(_SYNONYMS.get(name, name)) or _text()
        if found.bound is BoundKind.TEXT and "COLLATE" in spelled:
            return _exact(pa.string())
        return found

    def overridden(self, native_type: str, encoding: str, column: str) -> TypeMapping:
        """How a column arrives under an encoding of `policy.encodings`.

        Raises:
            ValidationError: There is no such encoding.
        """
        if encoding == "text":
            return _text()
        raise ValidationError(
            f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is "
            "`text` for all types",
            field=f"encodings.{column}",
        )


def _nested(spelled: str, name: str) -> TypeMapping:
    keys = _MAP_KEY.findall(spelled)
    outer = keys[:1] if name == "MAP" else []
    if not _PLAIN_KEYS.issuperset(keys[len(outer) :]):
        return _text()
    return _text(JSON_TEXT, _AS_JSON if _PLAIN_KEYS.issuperset(outer) else _ENTRIES_AS_JSON)


def quoted(name: str) -> str:
    """A name as an identifier."""
    escaped = name.replace("`", "``")
    return f"`{escaped}`"


def text_literal(text: str) -> str:
    """Text as an SQL literal.

    The backslash is an escape, two quotes are none, and `${…}` would be replaced by a setting.
    """
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("$", "\\u0024")
    return f"'{escaped}'"
