"""Tables and views as `DESCRIBE` shows them."""

from __future__ import annotations

from sqlglot import exp

from matih_ray.control.stream_jobs import Rows
from matih_ray.errors import SqlInvalidError
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.dialect import Flink
from matih_ray.streaming.sql.script import ColumnDefinition, CreateTable, Query

# A name's parts from the inside out, as sqlglot calls them.
_PARTS = ("this", "db", "catalog")


def described(script: Script, name: str) -> Rows:
    """A row for each column: name, type, whether it may be NULL, key, extras, watermark.

    Raises:
        SqlInvalidError: The script declares no such table or view.
    """
    path = tuple(part.strip("`") for part in name.split("."))
    if len(path) > len(_PARTS):
        raise SqlInvalidError(f"{name} is no name of a table")
    names = zip(_PARTS, reversed(path), strict=False)
    named = exp.Table(**{key: exp.to_identifier(part, quoted=True) for key, part in names})
    everything = exp.select("*").from_(named)
    table = script.tables.get(path)
    columns = {} if table is None else {one.name: one for one in table.columns}
    return tuple(
        (column, str(kind), *_facts(table, columns.get(column)))
        for column, kind in script.plan(Query(everything)).schema.items()
    )


def _facts(
    table: CreateTable | None, column: ColumnDefinition | None
) -> tuple[bool, str | None, str | None, str | None]:
    if table is None or column is None:
        return True, None, None, None
    is_key = column.name in table.primary_key
    key = f"PRI({', '.join(table.primary_key)})" if is_key else None
    time, expression = table.watermark or ("", None)
    watermark = expression.sql(Flink) if expression is not None and time == column.name else None
    return not (column.not_null or is_key), key, _extras(column), watermark


def _extras(column: ColumnDefinition) -> str | None:
    if column.value is not None:
        return f"AS {column.value.sql(Flink)}"
    if column.metadata is None:
        return None
    return f"METADATA FROM '{column.metadata}'" + (" VIRTUAL" if column.virtual else "")
