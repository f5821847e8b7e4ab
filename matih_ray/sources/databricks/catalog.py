"""What the catalog says about tables. Never touches a row of them.

Why not the protocol's own requests for schemas, tables and columns: they know no keys, and their
types lack what is inside of a STRUCT.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from matih_ray.sources.databricks.dialect import quoted, text_literal
from matih_ray.sources.sql.dialect import SqlColumn, SqlRelation

Row = Mapping[str, object]
Ask = Callable[[str], Sequence[Row]]
Name = tuple[str, str]

# Names per catalog query: a page of units is read in few queries of bounded length.
_NAMES_PER_QUERY = 500
_TABLES = ("MANAGED", "EXTERNAL")


class Catalog:
    """The information schema of one catalog."""

    def __init__(self, ask: Ask, catalog: str) -> None:
        self._ask = ask
        self._schema = f"{quoted(catalog)}.information_schema"

    def names(self, schema: str | None) -> list[Name]:
        """Schema and name of all tables and views that the account may see, of one schema if
        given; metric views, which have no rows, are none."""
        only = "" if schema is None else f" AND table_schema = {text_literal(schema)}"
        rows = self._ask(_NAMES.format(self._schema) + only)
        return [(str(row["table_schema"]), str(row["table_name"])) for row in rows]

    def relations(self, wanted: Sequence[Name]) -> list[SqlRelation]:
        """Those that exist, in the order of the names."""
        found: list[SqlRelation] = []
        for start in range(0, len(wanted), _NAMES_PER_QUERY):
            found += self._relations(wanted[start : start + _NAMES_PER_QUERY])
        return found

    def _relations(self, wanted: Sequence[Name]) -> list[SqlRelation]:
        schemas = _literals(sorted({schema for schema, _ in wanted}))
        names = _literals(sorted({name for _, name in wanted}))
        tables, columns, keys = (
            _by_name(self._ask(query.format(self._schema, schemas, names)))
            for query in (_KINDS, _COLUMNS, _KEYS)
        )
        return [
            SqlRelation(
                schema=name[0],
                name=name[1],
                kind=_kind(str(tables[name][0]["table_type"])),
                columns=tuple(_column(row) for row in columns[name]),
                primary_key=tuple(str(row["column_name"]) for row in keys[name]),
            )
            for name in wanted
            if name in tables
        ]


def _by_name(rows: Iterable[Row]) -> defaultdict[Name, list[Row]]:
    found: defaultdict[Name, list[Row]] = defaultdict(list)
    for row in rows:
        found[str(row["table_schema"]), str(row["table_name"])].append(row)
    return found


def _kind(table_type: str) -> str:
    return "table" if table_type in _TABLES else table_type.replace("_", " ").lower()


def _column(row: Row) -> SqlColumn:
    nullable = row["is_nullable"] != "NO"
    return SqlColumn(str(row["column_name"]), str(row["full_data_type"]), nullable)


def _literals(texts: Iterable[str]) -> str:
    return ", ".join([text_literal(text) for text in texts])


_NAMES = (
    "SELECT table_schema, table_name FROM {0}.tables "
    "WHERE table_schema <> 'information_schema' AND table_type <> 'METRIC_VIEW'"
)
_KINDS = (
    "SELECT table_schema, table_name, table_type FROM {0}.tables "
    "WHERE table_schema IN ({1}) AND table_name IN ({2})"
)
_COLUMNS = (
    "SELECT table_schema, table_name, column_name, full_data_type, is_nullable FROM {0}.columns "
    "WHERE table_schema IN ({1}) AND table_name IN ({2}) ORDER BY ordinal_position"
)
_KEYS = (
    "SELECT k.table_schema, k.table_name, k.column_name FROM {0}.key_column_usage k "
    "JOIN {0}.table_constraints c ON c.constraint_schema = k.constraint_schema "
    "AND c.constraint_name = k.constraint_name AND c.table_name = k.table_name "
    "WHERE c.constraint_type = 'PRIMARY KEY' AND k.table_schema IN ({1}) "
    "AND k.table_name IN ({2}) ORDER BY k.ordinal_position"
)
