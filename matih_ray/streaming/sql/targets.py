"""Fitting a query to the columns of the table that it is inserted into, by position."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp

from matih_ray.errors import SqlInvalidError
from matih_ray.streaming.sql.expressions import Compiled, cast_to, compile_expression, constant
from matih_ray.streaming.sql.plan import Calc, Node
from matih_ray.streaming.sql.script import ColumnDefinition, CreateTable
from matih_ray.streaming.sql.types import BITS, FlinkType

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_WIDTH = ("TINYINT", "SMALLINT", "INT", "BIGINT", "DECIMAL", "FLOAT", "DOUBLE")


@dataclass(frozen=True)
class TargetColumn:
    """A column of a table that rows go to."""

    name: str
    type: pa.DataType
    not_null: bool = False


def target_columns(schema: pa.Schema) -> tuple[TargetColumn, ...]:
    """The columns of an existing table."""
    return tuple(TargetColumn(one.name, one.type, not one.nullable) for one in schema)


def declared_columns(table: CreateTable) -> tuple[TargetColumn, ...]:
    """The columns that a declaration takes rows for: those that are not computed."""
    return tuple(
        TargetColumn(one.name, one.type.arrow, one.not_null)
        for one in table.columns
        if one.type is not None
    )


def declaration(table: CreateTable) -> str:
    """The statement that declares a table of physical columns."""
    name = ".".join(_quoted(part) for part in table.path)
    columns = ", ".join(
        f"{_quoted(one.name)} {one.type}{' NOT NULL' if one.not_null else ''}"
        for one in table.columns
    )
    parts = f" PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
    options = ", ".join(
        f"{_literal(key)} = {_literal(value)}" for key, value in table.options.values.items()
    )
    return f"CREATE TABLE {name} ({columns}){parts}" + (f" WITH ({options})" if options else "")


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def query_columns(node: Node) -> tuple[ColumnDefinition, ...]:
    """The columns of a table that is made of a query; any may be NULL.

    Raises:
        SqlInvalidError: A column has no type that a table could have.
    """
    for name, kind in node.schema.items():
        if kind.kind in ("NULL", "INTERVAL"):
            raise SqlInvalidError(
                f"column {name} of the query is {kind}, which no table has; write a CAST",
                column=name,
            )
    return tuple(ColumnDefinition(name, kind) for name, kind in node.schema.items())


def fitted(node: Node, columns: tuple[TargetColumn, ...], named: tuple[str, ...]) -> Calc:
    """The query's columns under the table's names and types; columns not named become NULL.

    Raises:
        SqlInvalidError: Their number differs, or a type would lose values.
    """
    known = {one.name for one in columns}
    if not set(named) <= known:
        raise SqlInvalidError(f"there is no column {min(set(named) - known)!r}")
    targets = list(named) or [one.name for one in columns]
    if len(targets) != len(node.schema):
        raise SqlInvalidError(
            f"the query has {len(node.schema)} columns, the table takes {len(targets)}"
        )
    source = dict(zip(targets, node.schema, strict=True))
    projections = {one.name: _fitted(node, source.get(one.name), one) for one in columns}
    return Calc(node, None, projections, frozenset(), "to the table's columns")


def _fitted(node: Node, source: str | None, column: TargetColumn) -> Compiled:
    kind = flink_type(column.type)
    if source is None:
        return constant(None, kind)
    compiled = compile_expression(exp.column(source), node.schema)
    if not _goes_into(compiled.type, kind):
        raise SqlInvalidError(
            f"column {source} is {compiled.type}, column {column.name} of the table is {kind}; "
            "write a CAST",
            column=column.name,
        )
    return cast_to(compiled, kind)


def _goes_into(source: FlinkType, target: FlinkType) -> bool:
    if source.kind in ("NULL", target.kind):
        return source.element == target.element
    if source.is_numeric and target.is_numeric:
        return _WIDTH.index(source.kind) <= _WIDTH.index(target.kind)
    return False


def flink_type(kind: pa.DataType) -> FlinkType:
    """The type of an Arrow column.

    Raises:
        SqlInvalidError: No Flink type has it.
    """
    if pa.types.is_timestamp(kind):
        return FlinkType("TIMESTAMP_LTZ" if kind.tz else "TIMESTAMP", _DIGITS[kind.unit])
    if pa.types.is_decimal(kind):
        return FlinkType("DECIMAL", kind.precision, kind.scale)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return FlinkType("ARRAY", element=flink_type(kind.value_type))
    if pa.types.is_signed_integer(kind):
        return FlinkType(next(name for name, bits in BITS.items() if bits == kind.bit_width))
    for test, name in (
        (pa.types.is_boolean, "BOOLEAN"),
        (pa.types.is_float32, "FLOAT"),
        (pa.types.is_float64, "DOUBLE"),
        (pa.types.is_string, "STRING"),
        (pa.types.is_large_string, "STRING"),
        (pa.types.is_date32, "DATE"),
    ):
        if test(kind):
            return FlinkType(name)
    raise SqlInvalidError(f"the table's type {kind} is not supported")
