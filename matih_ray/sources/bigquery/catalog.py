"""What the catalog says about tables. Never touches a row of them."""

from __future__ import annotations

from google.cloud.bigquery import SchemaField, Table

from matih_ray.sources.bigquery.dialect import quoted
from matih_ray.sources.sql.dialect import SqlColumn, SqlRelation

# What can be read, and what it is called; models and routines are no tables.
KINDS = {
    "TABLE": "table",
    "VIEW": "view",
    "MATERIALIZED_VIEW": "materialized view",
    "EXTERNAL": "external table",
    "SNAPSHOT": "snapshot",
    "CLONE": "clone",
}
# The API's names of types, which are those of the old SQL.
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}


def relation_of(table: Table) -> SqlRelation:
    """One table or view with its columns, declared key and estimates."""
    constraints = table.table_constraints
    key = None if constraints is None else constraints.primary_key
    counted = table.table_type == "TABLE"
    return SqlRelation(
        schema=table.dataset_id,
        name=table.table_id,
        kind=KINDS.get(table.table_type or "TABLE", "table"),
        columns=tuple(column_of(field) for field in table.schema),
        primary_key=() if key is None else tuple(key.columns),
        rows=table.num_rows if counted else None,
        bytes=table.num_bytes if counted else None,
    )


def column_of(field: SchemaField) -> SqlColumn:
    """A column, its type as SQL spells it."""
    return SqlColumn(field.name, native_type_of(field), field.mode != "REQUIRED")


def native_type_of(field: SchemaField) -> str:
    """The type as SQL spells it, with the names inside a STRUCT in backticks."""
    name = _scalar(field)
    if name == "STRUCT":
        inner = [f"{quoted(each.name)} {native_type_of(each)}" for each in field.fields]
        name = f"STRUCT<{', '.join(inner)}>"
    return f"ARRAY<{name}>" if field.mode == "REPEATED" else name


def _scalar(field: SchemaField) -> str:
    name = _STANDARD.get(field.field_type, field.field_type)
    parts = field.to_api_repr()
    if name == "RANGE" and field.range_element_type is not None:
        return f"RANGE<{field.range_element_type.element_type}>"
    if name in ("NUMERIC", "BIGNUMERIC") and field.precision is not None:
        return f"{name}({field.precision},{field.scale or 0})"
    if name == "STRING" and parts.get("collation"):
        return f"STRING COLLATE '{parts['collation']}'"
    if name == "TIMESTAMP" and str(parts.get("timestampPrecision") or 6) != "6":
        return f"TIMESTAMP({parts['timestampPrecision']})"
    return str(name)
