"""Do two tables hold the same rows? Order-independent checksums, computed where the rows are.

A row becomes one canonical text, the same whoever writes it: each value in a form that depends on
neither server's settings, prefixed with its length, so that no two rows share a text. The checksum
is the number of rows and the sum of 60 bits of each row's MD5. PostgreSQL computes it in SQL over
the source; DuckDB computes it over Arrow batches, so over whatever reader a table has. The two
share the choice of canonical form per column and nothing else: none of the product's code is on
either path, so a fault in it cannot hide itself.

Adding the hashes keeps duplicates apart from single rows, which XOR would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import duckdb
import psycopg2.extensions
import pyarrow as pa
import pyarrow.types as pt


@dataclass(frozen=True)
class TableChecksum:
    """Equal, but for chance below 2**-50, only if two tables hold the same multiset of rows."""

    rows: int
    total: int


class CanonicalForm(Protocol):
    """One value's canonical text as an SQL expression over the column expression `x`."""

    def postgres(self, x: str) -> str: ...

    def duckdb(self, x: str) -> str: ...


@dataclass(frozen=True)
class Form:
    """A canonical form given by two templates with the placeholder `{x}`."""

    postgres_template: str
    duckdb_template: str

    def postgres(self, x: str) -> str:
        return self.postgres_template.format(x=x)

    def duckdb(self, x: str) -> str:
        return self.duckdb_template.format(x=x)


@dataclass(frozen=True)
class ListOf:
    """One-dimensional arrays: the framed texts of the elements, in order."""

    element: CanonicalForm

    def postgres(self, x: str) -> str:
        part = _frame_postgres(self.element.postgres("v"))
        return (
            f"CASE WHEN {x} IS NOT NULL THEN (SELECT"
            f" coalesce(string_agg({part}, '' ORDER BY n), '')"
            f" FROM unnest({x}) WITH ORDINALITY AS e(v, n)) END"
        )

    def duckdb(self, x: str) -> str:
        part = _frame_duckdb(self.element.duckdb("v"))
        return (
            f"CASE WHEN {x} IS NOT NULL THEN coalesce("
            f"list_aggregate(list_transform({x}, lambda v: {part}), 'string_agg', ''), '') END"
        )


TEXT = Form("{x}::text", "{x}::VARCHAR")
# char(n): the padding is not part of the value, and PostgreSQL's cast to text drops it
PADDED = Form("{x}::text", "rtrim({x}::VARCHAR, ' ')")
# 1.50, 1.5 and 1.500 are one number
NUMBER = Form(
    "trim_scale({x}::numeric)::text",
    "CASE WHEN contains({x}::VARCHAR, '.') THEN rtrim(rtrim({x}::VARCHAR, '0'), '.')"
    " ELSE {x}::VARCHAR END",
)
# the bits, since the two disagree on decimal text; all NaNs are one
FLOAT4 = Form(
    "CASE WHEN {x} = 'NaN' THEN 'NaN'"
    " ELSE ('x' || encode(float4send({x}), 'hex'))::bit(32)::text END",
    "CASE WHEN isnan({x}) THEN 'NaN' ELSE {x}::FLOAT::BIT::VARCHAR END",
)
FLOAT8 = Form(
    "CASE WHEN {x} = 'NaN' THEN 'NaN'"
    " ELSE ('x' || encode(float8send({x}::float8), 'hex'))::bit(64)::text END",
    "CASE WHEN isnan({x}) THEN 'NaN' ELSE {x}::DOUBLE::BIT::VARCHAR END",
)
# days and microseconds since 1970, whatever the session's time zone and date style
DATE = Form(
    "CASE WHEN isfinite({x}) THEN ({x} - DATE '1970-01-01')::text ELSE {x}::text END",
    "CASE WHEN isfinite({x}) THEN date_diff('day', DATE '1970-01-01', {x})::VARCHAR"
    " ELSE {x}::VARCHAR END",
)
TIMESTAMP = Form(
    "CASE WHEN isfinite({x}) THEN (extract(epoch FROM {x}) * 1000000)::bigint::text"
    " ELSE {x}::text END",
    "CASE WHEN isfinite({x}) THEN epoch_us({x})::VARCHAR ELSE {x}::VARCHAR END",
)
TIME = Form("(extract(epoch FROM {x}) * 1000000)::bigint::text", "epoch_us({x})::VARCHAR")
BYTES = Form("encode({x}, 'hex')", "lower(hex({x}))")
UUID_TEXT = Form("replace({x}::text, '-', '')", "replace({x}::VARCHAR, '-', '')")
UUID_BYTES = Form("replace({x}::text, '-', '')", "lower(hex({x}))")

_NUMBERS = {"money", "numeric"}
_BY_NATIVE: dict[str, CanonicalForm] = {
    "bool": TEXT,
    "bytea": BYTES,
    "date": DATE,
    "int2": TEXT,
    "int4": TEXT,
    "int8": TEXT,
    "oid": TEXT,
    "time": TIME,
    "timestamp": TIMESTAMP,
    "timestamptz": TIMESTAMP,
}


def form_of(native: str, arrow: pa.DataType) -> CanonicalForm:
    """How a PostgreSQL type (its `typname`) that arrived as an Arrow type is compared.

    A column that arrived as text is compared with PostgreSQL's own text.

    Raises:
        ValueError: No canonical form is known for this pair.
    """
    if pt.is_dictionary(arrow):
        arrow = arrow.value_type
    if native in _NUMBERS and not pt.is_floating(arrow):
        return NUMBER
    if pt.is_string(arrow) or pt.is_large_string(arrow):
        return PADDED if native == "bpchar" else UUID_TEXT if native == "uuid" else TEXT
    if native == "uuid":
        return UUID_BYTES if pt.is_fixed_size_binary(arrow) else UUID_TEXT
    if native in ("float4", "float8"):
        return FLOAT4 if pt.is_float32(arrow) else FLOAT8
    if native.startswith("_") and (pt.is_list(arrow) or pt.is_large_list(arrow)):
        return ListOf(form_of(native[1:], arrow.value_type))
    if native not in _BY_NATIVE:
        raise ValueError(f"no canonical form for PostgreSQL {native} as Arrow {arrow}")
    return _BY_NATIVE[native]


def forms_of(
    connection: psycopg2.extensions.connection, relation: str, schema: pa.Schema
) -> dict[str, CanonicalForm]:
    """The canonical form of each column of `schema`, from the types of the source's `relation`.

    `relation` is SQL text: `lineitem`, `public."Odd name"`.

    Raises:
        ValueError: A column is not in the source, or has no canonical form.
    """
    with connection.cursor() as cursor:
        cursor.execute(_COLUMN_TYPES, (relation,))
        native: dict[str, str] = dict(cursor.fetchall())
    if unknown := [name for name in schema.names if name not in native]:
        raise ValueError(f"{relation} has no columns {unknown}")
    return {field.name: form_of(native[field.name], field.type) for field in schema}


def postgres_checksum(
    connection: psycopg2.extensions.connection,
    relation: str,
    forms: Mapping[str, CanonicalForm],
    where: str = "true",
) -> TableChecksum:
    """The checksum of a table or view in PostgreSQL 14 or later; `where` is an SQL condition."""
    texts = ", ".join(
        f"{form.postgres(_quoted(name))} AS {_quoted(name)}" for name, form in forms.items()
    )
    row = " || ".join(_frame_postgres(_quoted(name)) for name in forms)
    # OFFSET 0 keeps the planner from writing each text expression twice into the row's
    query = f"""
        SELECT count(*), coalesce(sum(('x' || left(md5({row}), 15))::bit(60)::bigint), 0)
        FROM (SELECT {texts} FROM {relation} WHERE {where} OFFSET 0) AS t
    """
    with connection.cursor() as cursor:
        cursor.execute(query)
        rows, total = cursor.fetchone() or (0, 0)
    return TableChecksum(int(rows), int(total))


def arrow_checksum(
    batches: pa.RecordBatchReader | pa.Table, forms: Mapping[str, CanonicalForm]
) -> TableChecksum:
    """The checksum of Arrow batches, read once and as a stream."""
    texts = ", ".join(
        f"{form.duckdb(_quoted(name))} AS {_quoted(name)}" for name, form in forms.items()
    )
    row = " || ".join(_frame_duckdb(_quoted(name)) for name in forms)
    query = f"""
        SELECT count(*), coalesce(sum(('0x' || left(md5({row}), 15))::BIGINT), 0)
        FROM (SELECT {texts} FROM batches) AS t
    """
    with duckdb.connect() as database:
        database.register("batches", batches)
        rows, total = database.execute(query).fetchone() or (0, 0)
    return TableChecksum(int(rows), int(total))


_COLUMN_TYPES = """
WITH RECURSIVE resolved AS (
    SELECT attname, atttypid AS type FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT attname, typbasetype FROM resolved JOIN pg_type ON oid = type WHERE typtype = 'd'
)
SELECT attname, typname FROM resolved JOIN pg_type ON oid = type WHERE typtype <> 'd'
"""


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _frame_postgres(text: str) -> str:
    return f"coalesce(octet_length({text}) || ':' || {text}, '~')"


def _frame_duckdb(text: str) -> str:
    return f"coalesce(strlen({text}) || ':' || {text}, '~')"
