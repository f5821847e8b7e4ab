"""What the catalog says about tables. Never touches a row of them.

The views of schema `sys` show a login what it has some right on, and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from matih_ray.sources.sql.dialect import SqlColumn, SqlRelation
from matih_ray.sources.sqlserver.dialect import text_literal

Row = tuple[object, ...]
Ask = Callable[[str], Sequence[Row]]
Name = tuple[str, str]

# Names per catalog query: a page of units is read in few queries of bounded length.
_NAMES_PER_QUERY = 500
_PAGE_BYTES = 8192
_KINDS = {"U": "table", "V": "view"}
_BYTES_PER_CHAR = {"nchar": 2, "nvarchar": 2}
_DECLARED_WITH_LENGTH = frozenset({"char", "varchar", "nchar", "nvarchar", "binary", "varbinary"})


def names(ask: Ask, schema: str | None) -> list[Name]:
    """Schema and name of all tables and views that the login may see, of one schema if given."""
    only = "" if schema is None else f" AND s.name = {text_literal(schema)}"
    return [(str(schema), str(name)) for schema, name in ask(_NAMES + only)]


def relations(ask: Ask, wanted: Sequence[Name]) -> list[SqlRelation]:
    """Those that exist, in the order of the names."""
    found: list[SqlRelation] = []
    for start in range(0, len(wanted), _NAMES_PER_QUERY):
        found += _relations(ask, wanted[start : start + _NAMES_PER_QUERY])
    return found


def _relations(ask: Ask, wanted: Sequence[Name]) -> list[SqlRelation]:
    scope = _SCOPE.format(
        _literals(sorted({schema for schema, _ in wanted})),
        _literals(sorted({name for _, name in wanted})),
    )
    columns = _by_name(ask(_COLUMNS + scope + " ORDER BY c.column_id"))
    keys = _by_name(ask(_KEYS + scope + " ORDER BY ic.key_ordinal"))
    rows = _by_name(ask(_ROWS + scope + _GROUPED))
    pages = _by_name(ask(_PAGES + scope + _GROUPED))
    return [
        SqlRelation(
            schema=name[0],
            name=name[1],
            kind=_KINDS[str(columns[name][0][0]).strip()],
            columns=tuple(_column(row) for row in columns[name]),
            primary_key=tuple(str(column) for (column,) in keys[name]),
            rows=_number(rows[name]),
            bytes=_number(pages[name], _PAGE_BYTES),
        )
        for name in wanted
        if name in columns
    ]


def _by_name(rows: Iterable[Row]) -> defaultdict[Name, list[Row]]:
    found: defaultdict[Name, list[Row]] = defaultdict(list)
    for schema, name, *facts in rows:
        found[str(schema), str(name)].append(tuple(facts))
    return found


def _column(row: Row) -> SqlColumn:
    _, name, type_, length, precision, scale, nullable = row
    return SqlColumn(
        str(name), _native_type(str(type_), int(str(length)), precision, scale), bool(nullable)
    )


def _native_type(name: str, length: int, precision: object, scale: object) -> str:
    """The type as it would be declared."""
    if name == "timestamp":  # what the standard calls so is another type
        return "rowversion"
    if name in ("decimal", "numeric"):
        return f"{name}({precision},{scale})"
    if name in ("datetime2", "datetimeoffset", "time"):
        return f"{name}({scale})"
    if name in _DECLARED_WITH_LENGTH:
        size = "max" if length < 0 else length // _BYTES_PER_CHAR.get(name, 1)
        return f"{name}({size})"
    return name


def _number(rows: Sequence[Row], unit: int = 1) -> int | None:
    """An estimate, which views do not have."""
    return int(str(rows[0][0])) * unit if rows and rows[0][0] is not None else None


def _literals(texts: Iterable[str]) -> str:
    return ", ".join([text_literal(text) for text in texts])


_OBJECTS = "sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id"
_OURS = " WHERE o.type IN ('U', 'V') AND o.is_ms_shipped = 0"
_NAMES = f"SELECT s.name AS schema_name, o.name AS object_name FROM {_OBJECTS}{_OURS}"  # noqa: S608 no input
_SCOPE = _OURS + " AND s.name IN ({}) AND o.name IN ({})"
# A type of one's own has the number of what it stands for; those of the runtime share number 240.
_COLUMNS = (
    "SELECT s.name AS schema_name, o.name AS object_name, o.type AS kind, c.name AS column_name, "  # noqa: S608
    "t.name AS type_name, c.max_length, c.precision, c.scale, c.is_nullable "
    f"FROM {_OBJECTS} JOIN sys.columns c ON c.object_id = o.object_id "
    "JOIN sys.types t ON t.user_type_id = "
    "CASE WHEN c.system_type_id = 240 THEN c.user_type_id ELSE c.system_type_id END"
)
_KEYS = (
    "SELECT s.name AS schema_name, o.name AS object_name, c.name AS column_name "  # noqa: S608
    f"FROM {_OBJECTS} JOIN sys.indexes i ON i.object_id = o.object_id AND i.is_primary_key = 1 "
    "JOIN sys.index_columns ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id "
    "JOIN sys.columns c ON c.object_id = ic.object_id AND c.column_id = ic.column_id"
)
# Index 0 is the heap and 1 the clustered index: the rows themselves.
_PARTITIONS = (
    f"FROM {_OBJECTS} JOIN sys.partitions p ON p.object_id = o.object_id AND p.index_id IN (0, 1)"
)
_ROWS = f"SELECT s.name AS schema_name, o.name AS object_name, SUM(p.rows) AS facts {_PARTITIONS}"
_PAGES = (
    "SELECT s.name AS schema_name, o.name AS object_name, SUM(a.used_pages) AS facts "
    f"{_PARTITIONS} JOIN sys.allocation_units a ON a.container_id = p.partition_id"
)
_GROUPED = " GROUP BY s.name, o.name"
