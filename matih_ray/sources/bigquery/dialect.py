"""How BigQuery's SQL is written; how types arrive is in `types`."""

from __future__ import annotations

from matih_ray.sources.bigquery import types
from matih_ray.sources.sql.dialect import BoundKind, SqlRelation, TypeMapping

# What NUMERIC holds before and after the point; more is a BIGNUMERIC.
_NUMERIC_DIGITS, _NUMERIC_SCALE = 29, 9
_LITERALS = {
    BoundKind.INTEGER: "{}",
    BoundKind.DATE: "DATE '{}'",
    BoundKind.TIMESTAMP: "DATETIME '{}'",
    BoundKind.TIMESTAMP_TZ: "TIMESTAMP '{}+00:00'",
    BoundKind.BINARY: "FROM_HEX('{}')",
}


class BigQueryDialect:
    """How BigQuery's SQL is written. Pure."""

    def __init__(self, project_id: str) -> None:
        self._project_id = project_id

    def quoted(self, name: str) -> str:
        """A name as an identifier."""
        return quoted(name)

    def identifier(self, relation: SqlRelation) -> str:
        """The relation's full name in SQL."""
        return ".".join([quoted(n) for n in (self._project_id, relation.schema, relation.name)])

    def literal(self, kind: BoundKind, text: str) -> str:
        """A checked bound as SQL of the type it is compared with."""
        if kind is BoundKind.TEXT:
            return text_literal(text)
        if kind is BoundKind.DECIMAL:
            return _decimal_literal(text)
        return _LITERALS[kind].format(text)

    def mapping(self, native_type: str) -> TypeMapping:
        """How a column of that type arrives by default."""
        return types.mapping_of(native_type)

    def overridden(self, native_type: str, encoding: str, column: str) -> TypeMapping:
        """How a column arrives under an encoding of `policy.encodings`.

        Raises:
            ValidationError: There is no such encoding, or not for this type.
        """
        return types.overridden(native_type, encoding, column)


def quoted(name: str) -> str:
    """A name in backticks."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def text_literal(text: str) -> str:
    """Text as an SQL literal; whatever is not a plain letter or digit is escaped."""
    return "'" + "".join([c if c.isalnum() else f"\\U{ord(c):08x}" for c in text]) + "'"


def _decimal_literal(text: str) -> str:
    whole, _, fraction = text.lstrip("-").partition(".")
    fits = len(whole) <= _NUMERIC_DIGITS and len(fraction.rstrip("0")) <= _NUMERIC_SCALE
    return f"{'NUMERIC' if fits else 'BIGNUMERIC'} '{text}'"
