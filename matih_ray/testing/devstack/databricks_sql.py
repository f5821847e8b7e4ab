"""Databricks' SQL on DuckDB, its information schema, and its types on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
from sqlglot import exp

from matih_ray.testing.devstack.duck_sql import DuckSql, TypeOf

VERSION = "2025.40 (stand-in on DuckDB)"

_DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")
_DECLARED = {
    "TINYINT": "tinyint",
    "SMALLINT": "smallint",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "HUGEINT": "decimal(38,0)",
    "BOOLEAN": "boolean",
    "FLOAT": "float",
    "DOUBLE": "double",
    "DATE": "date",
    "TIMESTAMP": "timestamp_ntz",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
    "BLOB": "binary",
}
_ARROW = {
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "Etc/UTC"),
    "timestamp_ntz": pa.timestamp("us"),
    "binary": pa.binary(),
}


class DatabricksSql:
    """How Databricks' SQL becomes DuckDB's. JSON text is written as DuckDB does."""

    dialect = "databricks"
    default_schema = "default"

    def stored(self, declared: str) -> str:
        """DuckDB's type for the values of a declared type."""
        if declared.startswith("interval"):
            return "INTERVAL"
        if declared == "variant":
            return "JSON"
        return exp.DataType.build(declared, dialect="databricks").sql("duckdb")

    def declared(self, stored: str) -> str:
        """The type of an expression."""
        return stored.lower() if stored.startswith("DECIMAL") else _DECLARED.get(stored, "string")

    def rewritten(self, node: exp.Expression, type_of: TypeOf) -> exp.Expression:  # noqa: ARG002 a Vendor's shape
        """Functions that DuckDB has not, and names without the catalog."""
        if isinstance(node, exp.JSONFormat):
            return exp.JSONFormat(this=node.this)
        if isinstance(node, exp.Dot) and isinstance(node.this, exp.CurrentVersion):
            is_warehouse = node.expression.name == "dbsql_version"
            return exp.Literal.string(VERSION) if is_warehouse else exp.null()
        if isinstance(node, exp.Table) and node.db == "information_schema":
            name = exp.to_identifier(f"information_schema_{node.name}")
            return exp.Table(this=name, alias=node.args.get("alias"))
        if isinstance(node, exp.Table) and node.catalog:
            node.set("catalog", None)
        return node


def arrow_type(declared: str) -> pa.DataType:
    """How values of a declared type are in an answer; nested ones and intervals as text."""
    match = _DECIMAL.fullmatch(declared)
    if match is not None:
        return pa.decimal128(int(match[1]), int(match[2]))
    return _ARROW.get(declared, pa.string())


def information_schema(database: DuckSql) -> dict[str, pa.Table]:
    """Its views that a client needs, by name with `information_schema_` in front of it."""
    tables = list(database.tables.values())
    keyed = [table for table in tables if table.primary_key]
    return {
        "information_schema_tables": _rows(
            "table_schema table_name table_type",
            ((t.schema, t.name, "VIEW" if t.is_view else "MANAGED") for t in tables),
        ),
        "information_schema_columns": _rows(
            "table_schema table_name column_name full_data_type is_nullable ordinal_position",
            (
                (t.schema, t.name, c.name, c.type, "YES" if c.nullable else "NO", place)
                for t in tables
                for place, c in enumerate(t.columns)
            ),
        ),
        "information_schema_table_constraints": _rows(
            "constraint_schema constraint_name table_schema table_name constraint_type",
            ((t.schema, f"{t.name}_pk", t.schema, t.name, "PRIMARY KEY") for t in keyed),
        ),
        "information_schema_key_column_usage": _rows(
            "constraint_schema constraint_name table_schema table_name column_name "
            "ordinal_position",
            (
                (t.schema, f"{t.name}_pk", t.schema, t.name, name, place)
                for t in keyed
                for place, name in enumerate(t.primary_key, 1)
            ),
        ),
    }


def _rows(names: str, rows: Iterable[tuple[object, ...]]) -> pa.Table:
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    empty = [pa.array([], pa.string())] * len(names.split())
    return pa.table(columns or empty, names=names.split())
