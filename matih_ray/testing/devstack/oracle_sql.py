"""Oracle's SQL on DuckDB, and Oracle's data dictionary of what was declared."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
from sqlglot import exp

from matih_ray.testing.devstack.duck_sql import DeclaredColumn, DuckSql, TypeOf

_NUMBER = re.compile(r"NUMBER\((\d+)(?:,(-?\d+))?\)")
_TYPE = re.compile(r"([A-Z0-9_ ]+?)(?:\((\d+)(?: CHAR)?\))?")
_TIMESTAMP = re.compile(r"TIMESTAMP\((\d)\)( WITH TIME ZONE| WITH LOCAL TIME ZONE)?")
_STORED = {
    "NUMBER": "DECIMAL(38,10)",
    "INTEGER": "DECIMAL(38,0)",
    "FLOAT": "DECIMAL(38,10)",
    "BINARY_FLOAT": "FLOAT",
    "BINARY_DOUBLE": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "RAW": "BLOB",
    "BLOB": "BLOB",
    "LONG RAW": "BLOB",
    "DATE": "TIMESTAMP",
}
_SIZED = frozenset({"CHAR", "NCHAR", "VARCHAR2", "NVARCHAR2", "RAW"})
_DECLARED = {"TIMESTAMP": "TIMESTAMP(6)", "FLOAT": "BINARY_FLOAT", "DOUBLE": "BINARY_DOUBLE"}
# What sqlglot cannot read, and what it is for the text that is stored here.
_UNREAD = (
    (re.compile(r"XMLSERIALIZE\(CONTENT (\"[^\"]*\") AS CLOB\)"), r"\1"),
    (re.compile(r"(?:JSON|VECTOR)_SERIALIZE\((\"[^\"]*\") RETURNING CLOB\)"), r"\1"),
    (re.compile(r"SDO_UTIL\.TO_WKTGEOMETRY\((\"[^\"]*\")\)"), r"\1"),
)
_CHARS = {"FF9": 29, "FF6": 26}
_SECONDS_CHARS = len("2024-01-31 23:59:59")


class OracleSql:
    """How Oracle's SQL becomes DuckDB's. Times with an offset are kept as the server's own text."""

    dialect = "oracle"
    default_schema = "SHOP"

    def stored(self, declared: str) -> str:
        """DuckDB's type for the values of a declared type."""
        number, moment = _NUMBER.fullmatch(declared), _TIMESTAMP.fullmatch(declared)
        if number is not None:
            precision, scale = int(number[1]), int(number[2] or 0)
            return f"DECIMAL({max(precision - min(scale, 0), scale)},{max(scale, 0)})"
        if moment is not None and moment[2] is None:
            return "TIMESTAMP_NS" if int(moment[1]) > 6 else "TIMESTAMP"
        if moment is not None:
            return "TIMESTAMPTZ" if moment[2] == " WITH LOCAL TIME ZONE" else "VARCHAR"
        match = _TYPE.fullmatch(declared)
        return _STORED.get(match[1] if match else declared, "VARCHAR")

    def declared(self, stored: str) -> str:
        """The type of an expression."""
        if stored.startswith("DECIMAL") or stored in ("BIGINT", "INTEGER"):
            return "NUMBER"
        return _DECLARED.get(stored, "VARCHAR2(4000)")

    def rewritten(self, node: exp.Expression, type_of: TypeOf) -> exp.Expr:  # noqa: ARG002 a Vendor's shape
        """Conversions to and from text."""
        if isinstance(node, exp.ToChar):
            return _text(node)
        if isinstance(node, (exp.StrToTime, exp.StrToDate, exp.TsOrDsToTimestamp)):
            return exp.cast(node.this, "TIMESTAMP")
        if isinstance(node, exp.Anonymous) and len(node.expressions) >= 1:
            return _function(node)
        return node


def readable(statement: str) -> str:
    """A statement without what sqlglot cannot read."""
    for pattern, instead in _UNREAD:
        statement = pattern.sub(instead, statement)
    return statement


def _text(node: exp.ToChar) -> exp.Expr:
    value, style = node.this, node.args.get("format")
    if style is None:
        return exp.cast(value, "VARCHAR")
    if style.name.endswith("TZM"):  # stored as this text
        return exp.cast(value, "VARCHAR")
    if isinstance(value, exp.Anonymous):
        value = _function(value)
    size = next((n for suffix, n in _CHARS.items() if suffix in style.name), _SECONDS_CHARS)
    written = exp.func("STRFTIME", value, exp.Literal.string("%Y-%m-%d %H:%M:%S.%n"))
    return exp.func("LEFT", written, exp.Literal.number(size))


def _function(node: exp.Anonymous) -> exp.Expr:
    name, argument = node.name.upper(), node.expressions[0]
    if name == "SYS_EXTRACT_UTC":
        # DuckDB takes no space in front of the offset; its sessions are in UTC
        pattern, group = exp.Literal.string(" ([+-])"), exp.Literal.string(r"\1")
        return exp.cast(exp.func("REGEXP_REPLACE", argument, pattern, group), "TIMESTAMPTZ")
    if name == "ROWIDTOCHAR":
        return exp.cast(argument, "VARCHAR")
    if name in ("TO_TIMESTAMP", "TO_DATE"):
        return exp.cast(argument, "TIMESTAMP")
    return {"HEXTORAW": exp.func("UNHEX", argument), "RAWTOHEX": exp.func("HEX", argument)}.get(
        name, node
    )


def dictionary(database: DuckSql) -> dict[str, pa.Table]:
    """The views that a client needs, by name."""
    tables = list(database.tables.values())
    keyed = [table for table in tables if table.primary_key]
    return {
        "all_objects": _rows(
            "owner object_name object_type oracle_maintained secondary",
            ((t.schema, t.name, "VIEW" if t.is_view else "TABLE", "N", "N") for t in tables),
        ),
        "all_tab_columns": _rows(
            "owner table_name column_id column_name data_type data_length char_length "
            "data_precision data_scale nullable",
            (
                (table.schema, table.name, place, *_facts(column))
                for table in tables
                for place, column in enumerate(table.columns, 1)
            ),
        ),
        "all_constraints": _rows(
            "owner table_name constraint_name constraint_type",
            ((t.schema, t.name, f"PK_{t.name}", "P") for t in keyed),
        ),
        "all_cons_columns": _rows(
            "owner constraint_name column_name position",
            (
                (table.schema, f"PK_{table.name}", column, place)
                for table in keyed
                for place, column in enumerate(table.primary_key, 1)
            ),
        ),
        "all_tables": _rows(
            "owner table_name num_rows avg_row_len",
            ((t.schema, t.name, database.count(t), 20) for t in tables if not t.is_view),
        ),
    }


def _facts(column: DeclaredColumn) -> tuple[object, ...]:
    nullable = "Y" if column.nullable else "N"
    if column.type == "INTEGER":
        return (column.name, "NUMBER", 22, 0, None, 0, nullable)
    number = _NUMBER.fullmatch(column.type)
    if number is not None:
        return (column.name, "NUMBER", 22, 0, int(number[1]), int(number[2] or 0), nullable)
    match = _TYPE.fullmatch(column.type)
    if match is None or match[1] not in _SIZED:
        # the dictionary spells times and intervals with their digits
        return (column.name, column.type, 11, 0, None, None, nullable)
    size = int(match[2] or 0)
    return (column.name, match[1], size, size, None, None, nullable)


def _rows(names: str, rows: Iterable[tuple[object, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(names.split())
    return pa.table(dict(zip(names.split(), map(list, columns), strict=True)))
