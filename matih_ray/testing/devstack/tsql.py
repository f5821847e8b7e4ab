"""T-SQL on DuckDB, and SQL Server's catalog of what was declared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import pyarrow as pa
from sqlglot import exp

from matih_ray.testing.devstack.duck_sql import DeclaredColumn, DeclaredTable, DuckSql, TypeOf

COLLATION = "SQL_Latin1_General_CP1_CI_AS"

_TYPE = re.compile(r"(\w+)(?:\((\w+)(?:,\s*(\d+))?\))?")
_STORED = {
    "tinyint": "UTINYINT",
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "bit": "BOOLEAN",
    "real": "FLOAT",
    "float": "DOUBLE",
    "money": "DECIMAL(19,4)",
    "smallmoney": "DECIMAL(10,4)",
    "date": "DATE",
    "datetime": "TIMESTAMP",
    "smalldatetime": "TIMESTAMP",
    "uniqueidentifier": "UUID",
    "binary": "BLOB",
    "varbinary": "BLOB",
    "image": "BLOB",
    "rowversion": "BIGINT",  # a number, which travels as eight bytes
}
_DECLARED = {
    "UTINYINT": "tinyint",
    "SMALLINT": "smallint",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "HUGEINT": "decimal(38,0)",
    "BOOLEAN": "bit",
    "FLOAT": "real",
    "DOUBLE": "float",
    "DATE": "date",
    "TIMESTAMP": "datetime2(6)",
    "TIMESTAMP_NS": "datetime2(7)",
    "UUID": "uniqueidentifier",
    "BLOB": "varbinary(max)",
}
# sys.types: system_type_id, and user_type_id where it is another.
TYPE_IDS: dict[str, tuple[int, int]] = {
    name: (number, number)
    for name, number in {
        "image": 34, "text": 35, "uniqueidentifier": 36, "date": 40, "time": 41, "datetime2": 42,
        "datetimeoffset": 43, "tinyint": 48, "smallint": 52, "int": 56, "smalldatetime": 58,
        "real": 59, "money": 60, "datetime": 61, "float": 62, "sql_variant": 98, "ntext": 99,
        "bit": 104, "decimal": 106, "numeric": 108, "smallmoney": 122, "bigint": 127,
        "varbinary": 165, "varchar": 167, "binary": 173, "char": 175, "timestamp": 189,
        "nvarchar": 231, "nchar": 239, "xml": 241,
    }.items()
} | {
    "sysname": (231, 256), "hierarchyid": (240, 128), "geometry": (240, 129),
    "geography": (240, 130),
}  # fmt: skip


class Tsql:
    """How T-SQL becomes DuckDB's SQL. Times and offsets are kept as the server's own text."""

    dialect = "tsql"
    default_schema = "dbo"

    def stored(self, declared: str) -> str:
        """DuckDB's type for the values of a declared type."""
        match = _TYPE.fullmatch(declared)
        assert match is not None, declared
        name, first, second = match.groups()
        if name in ("decimal", "numeric"):
            return f"DECIMAL({first or 18},{second or 0})"
        if name == "datetime2":
            return "TIMESTAMP_NS" if first in (None, "7") else "TIMESTAMP"
        return _STORED.get(name, "VARCHAR")

    def declared(self, stored: str) -> str:
        """The type of an expression."""
        return stored.lower() if stored.startswith("DECIMAL") else _DECLARED.get(stored, "nvarchar")

    def rewritten(self, node: exp.Expression, type_of: TypeOf) -> exp.Expr:
        """CONVERT, literals and catalogs."""
        if isinstance(node, exp.National):
            return exp.Literal.string(node.name)
        if isinstance(node, exp.Convert):
            value = node.expression.transform(lambda inner: self.rewritten(inner, type_of))
            return _converted(node, value, _declared_type(node.expression, type_of))
        if isinstance(node, exp.Anonymous) and node.name.upper() == "SWITCHOFFSET":
            # DuckDB takes no space in front of the offset; its sessions are in UTC
            pattern, group = exp.Literal.string(" ([+-])"), exp.Literal.string(r"\1")
            bare = exp.func("REGEXP_REPLACE", node.expressions[0], pattern, group)
            return exp.cast(bare, "TIMESTAMPTZ")
        if isinstance(node, exp.Cast) and node.to.is_type(exp.DType.DATETIME2):
            return exp.cast(node.this, exp.DataType.build("TIMESTAMP_NS", udt=True))
        if isinstance(node, exp.Cast) and node.to.is_type("text", "varchar", "nvarchar"):
            node.set("to", exp.DataType.build("VARCHAR"))  # in place, so that its parts come next
        if isinstance(node, exp.Table) and node.db == "sys":
            return exp.Table(this=exp.to_identifier(f"sys_{node.name}"), alias=node.args["alias"])
        return node


def _converted(node: exp.Convert, value: exp.Expr, declared: str) -> exp.Expr:
    """CONVERT, to text by styles that lose nothing; see "CAST and CONVERT" of the manual."""
    target = node.this
    if target.is_type(exp.DType.BIGINT):  # of a rowversion, which is stored as a number
        return value
    if target.is_type(exp.DType.VARBINARY):
        return value
    if target.is_type(exp.DType.DATETIME2):
        return exp.cast(value, "TIMESTAMP")
    style = node.args.get("style")
    text: exp.Expr
    text = exp.cast(value, "VARCHAR") if style is None else _styled(value, declared, style.name)
    size = target.expressions[0].name if target.expressions else "max"
    return exp.func("LEFT", text, exp.Literal.number(size)) if size.isdigit() else text


def _declared_type(value: exp.Expr, type_of: TypeOf) -> str:
    if isinstance(value, exp.Convert):
        return "datetime2(7)" if value.this.is_type(exp.DType.DATETIME2) else "varbinary(max)"
    return (type_of(value) if isinstance(value, exp.Expression) else None) or ""


def _styled(value: exp.Expr, declared: str, style: str) -> exp.Expr:
    if declared.startswith("datetime2") and style == "121":
        match = _TYPE.fullmatch(declared)
        digits = int((match[2] if match else None) or 7)
        size = len("2024-01-31 23:59:59") + (digits + 1 if digits else 0)
        text = exp.func("STRFTIME", value, exp.Literal.string(_FORMAT))
        return exp.func("LEFT", text, exp.Literal.number(size))
    if declared in ("datetime", "smalldatetime") and style == "121":
        return exp.func("STRFTIME", value, exp.Literal.string("%Y-%m-%d %H:%M:%S.%g"))
    if declared.startswith(("binary", "varbinary", "image")):
        return exp.func("HEX", value)
    return exp.cast(value, "VARCHAR")


_FORMAT = "%Y-%m-%d %H:%M:%S.%n"


def catalog(database: DuckSql) -> dict[str, pa.Table]:
    """The views of schema `sys` that a client needs, by name with `sys_` in front of it."""
    tables = dict(enumerate(database.tables.values(), 1000))
    schemas = {name: n for n, name in enumerate(sorted({t.schema for t in tables.values()}), 1)}
    keyed = {number: table for number, table in tables.items() if table.primary_key}
    return {
        "sys_schemas": _rows("name schema_id", schemas.items()),
        "sys_objects": _rows(
            "object_id schema_id name type is_ms_shipped",
            (
                (number, schemas[table.schema], table.name, "V" if table.is_view else "U", 0)
                for number, table in tables.items()
            ),
        ),
        "sys_types": _rows(
            "name system_type_id user_type_id", ((n, *ids) for n, ids in TYPE_IDS.items())
        ),
        "sys_columns": _rows(
            "object_id name column_id system_type_id user_type_id max_length precision scale "
            "is_nullable collation_name",
            _columns(tables),
        ),
        "sys_indexes": _rows(
            "object_id index_id is_primary_key", ((number, 1, 1) for number in keyed)
        ),
        "sys_index_columns": _rows(
            "object_id index_id column_id key_ordinal",
            (
                (number, 1, [c.name for c in table.columns].index(name) + 1, place)
                for number, table in keyed.items()
                for place, name in enumerate(table.primary_key, 1)
            ),
        ),
        "sys_partitions": _rows(
            "partition_id object_id index_id rows",
            (
                (number, number, 1 if number in keyed else 0, database.count(table))
                for number, table in tables.items()
                if not table.is_view
            ),
        ),
        "sys_allocation_units": _rows(
            "container_id used_pages",
            ((n, 2) for n, table in tables.items() if not table.is_view),
        ),
    }


def _columns(tables: Mapping[int, DeclaredTable]) -> Iterable[tuple[object, ...]]:
    for number, table in tables.items():
        for place, column in enumerate(table.columns, 1):
            yield (number, column.name, place, *_facts(column))


def _facts(column: DeclaredColumn) -> tuple[object, ...]:
    match = _TYPE.fullmatch(column.type)
    assert match is not None, column.type
    name, first, second = match.groups()
    name = "timestamp" if name == "rowversion" else name
    is_text = name.endswith(("char", "text"))
    length, precision, scale = -1, 0, 0
    if name in ("decimal", "numeric"):
        precision, scale = int(first or 18), int(second or 0)
    elif name in ("time", "datetime2", "datetimeoffset"):
        scale = int(first or 7)
    elif first not in (None, "max"):
        length = int(first) * (2 if name.startswith("n") else 1)
    collation = (column.collation or COLLATION) if is_text else None
    return (*TYPE_IDS[name], length, precision, scale, column.nullable, collation)


def _rows(names: str, rows: Iterable[tuple[object, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(names.split())
    return pa.table(dict(zip(names.split(), map(list, columns), strict=True)))
