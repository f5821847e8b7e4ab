"""What the catalogs say about tables. Never touches a row of them.

Redshift's SVV_ views have the columns of the standard's information_schema, and external and shared
tables besides. Keys are in pg_constraint, because the standard's views show those of one's own
tables only. Estimates are pg_class's, since SVV_TABLE_INFO is for administrators.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from matih_ray.sources.redshift.decoding import TextRow
from matih_ray.sources.redshift.dialect import text_literal
from matih_ray.sources.sql.dialect import SqlColumn, SqlRelation

Ask = Callable[[str], Sequence[TextRow]]
Name = tuple[str, str]

KINDS = {
    "BASE TABLE": "table",
    "VIEW": "view",
    "EXTERNAL TABLE": "external table",
    "SHARED TABLE": "shared table",
    "FOREIGN": "foreign table",  # PostgreSQL's
}
_HIDDEN = ("pg_catalog", "information_schema", "pg_internal", "catalog_history", "pg_automv")
# Names per catalog query: a page of units is read in few queries of bounded length.
_NAMES_PER_QUERY = 500


@dataclass(frozen=True)
class Catalog:
    """The catalogs of a server: their names, and how they are asked."""

    ask: Ask
    tables: str
    columns: str

    @classmethod
    def of(cls, ask: Ask, *, is_redshift: bool) -> Catalog:
        """The catalogs that the server has."""
        if is_redshift:
            return cls(ask, "svv_tables", "svv_columns")
        return cls(ask, "information_schema.tables", "information_schema.columns")

    def names(self) -> list[Name]:
        """Schema and name of all tables and views that the account may see."""
        kinds, hidden = _literals(KINDS), _literals(_HIDDEN)
        rows = self.ask(_NAMES.format(tables=self.tables, kinds=kinds, hidden=hidden))
        return [(str(schema), str(name)) for schema, name in rows]

    def relations(self, names: Sequence[Name]) -> list[SqlRelation]:
        """Those that exist, in the order of the names."""
        found: list[SqlRelation] = []
        for start in range(0, len(names), _NAMES_PER_QUERY):
            found += self._relations(names[start : start + _NAMES_PER_QUERY])
        return found

    def _relations(self, names: Sequence[Name]) -> list[SqlRelation]:
        wanted = {
            "schemas": _literals(sorted({schema for schema, _ in names})),
            "names": _literals(sorted({name for _, name in names})),
        }
        kinds = _literals(KINDS)
        heads = self.ask(_TABLES.format(tables=self.tables, kinds=kinds, **wanted))
        columns = self.ask(_COLUMNS.format(columns=self.columns, **wanted))
        kind_of = _by_name(heads)
        columns_of = _by_name(columns)
        key_of = _by_name(self.ask(_KEYS.format(**wanted)))
        rows_of = _by_name(self.ask(_ROWS.format(**wanted)))
        return [
            SqlRelation(
                schema=name[0],
                name=name[1],
                kind=KINDS[str(kind_of[name][0][0])],
                columns=tuple(_column(row) for row in columns_of[name]),
                primary_key=_key(key_of[name]),
                rows=_estimate(rows_of[name]),
            )
            for name in names
            if name in kind_of
        ]


def _by_name(rows: Iterable[TextRow]) -> defaultdict[Name, list[TextRow]]:
    found: defaultdict[Name, list[TextRow]] = defaultdict(list)
    for schema, name, *rest in rows:
        found[str(schema), str(name)].append(tuple(rest))
    return found


def _column(row: TextRow) -> SqlColumn:
    name, type_, length, precision, scale, nullable = row
    native_type = str(type_)
    if native_type == "numeric" and precision is not None:
        native_type = f"numeric({precision},{scale or 0})"
    elif length is not None and native_type.startswith(("character", "binary", "bit")):
        native_type = f"{native_type}({length})"
    # an empty answer, as for columns of views, is no promise that there are no NULLs
    return SqlColumn(str(name), native_type, nullable != "NO")


def _key(rows: list[TextRow]) -> tuple[str, ...]:
    """Columns in the key's order: each row has a column, its number and all numbers of the key."""
    places = {str(number): str(column) for column, number, _ in rows}
    order = str(rows[0][2]).split(",") if rows else []
    return tuple(places[number] for number in order)


def _estimate(rows: list[TextRow]) -> int | None:
    """Rows as counted by ANALYZE; before the first one it is below 1."""
    known = float(rows[0][0] or 0) if rows else 0.0
    return round(known) if known >= 1 else None


def _literals(names: Iterable[str]) -> str:
    return ", ".join([text_literal(name) for name in names])


_NAMES = """
    SELECT table_schema, table_name FROM {tables}
    WHERE table_type IN ({kinds}) AND table_schema NOT IN ({hidden})
      AND table_schema NOT LIKE 'pg!_t%' ESCAPE '!'
"""
_TABLES = """
    SELECT table_schema, table_name, table_type FROM {tables}
    WHERE table_schema IN ({schemas}) AND table_name IN ({names}) AND table_type IN ({kinds})
"""
_COLUMNS = """
    SELECT table_schema, table_name, column_name, data_type, character_maximum_length,
           numeric_precision, numeric_scale, is_nullable
    FROM {columns}
    WHERE table_schema IN ({schemas}) AND table_name IN ({names})
    ORDER BY table_schema, table_name, ordinal_position
"""
_KEYS = """
    SELECT n.nspname, c.relname, a.attname, a.attnum, array_to_string(k.conkey, ',')
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (k.conkey)
    WHERE k.contype = 'p' AND n.nspname IN ({schemas}) AND c.relname IN ({names})
"""
_ROWS = """
    SELECT n.nspname, c.relname, c.reltuples
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND n.nspname IN ({schemas}) AND c.relname IN ({names})
"""
