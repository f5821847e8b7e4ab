"""What the data dictionary says about tables. Never touches a row of them.

The views whose names begin with ALL show an account what it may read, and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from matih_ray.sources.oracle.dialect import text_literal
from matih_ray.sources.sql.dialect import SqlColumn, SqlRelation

Row = tuple[object, ...]
Ask = Callable[[str], Sequence[Row]]
Name = tuple[str, str]

# Names per catalog query; Oracle takes 1000 items in a list (ORA-01795).
_NAMES_PER_QUERY = 500
_OF_CHARACTERS = frozenset({"CHAR", "NCHAR", "VARCHAR2", "NVARCHAR2"})


def names(ask: Ask, schema: str | None) -> list[Name]:
    """Schema and name of all tables and views that the account may see, of one schema if given."""
    only = "" if schema is None else f" AND owner = {text_literal(schema)}"
    return [(str(owner), str(name)) for owner, name in ask(_NAMES + only)]


def relations(ask: Ask, wanted: Sequence[Name]) -> list[SqlRelation]:
    """Those that exist, in the order of the names."""
    found: list[SqlRelation] = []
    for start in range(0, len(wanted), _NAMES_PER_QUERY):
        found += _relations(ask, wanted[start : start + _NAMES_PER_QUERY])
    return found


def _relations(ask: Ask, wanted: Sequence[Name]) -> list[SqlRelation]:
    scope = _SCOPE.format(
        _literals(sorted({owner for owner, _ in wanted})),
        _literals(sorted({name for _, name in wanted})),
    )
    columns = _by_name(ask(_COLUMNS + scope + " ORDER BY t.column_id"))
    keys = _by_name(ask(_KEYS + scope + " ORDER BY c.position"))
    sizes = _by_name(ask(_SIZES + scope))
    return [
        SqlRelation(
            schema=name[0],
            name=name[1],
            kind=str(columns[name][0][0]).lower(),
            columns=tuple(_column(row) for row in columns[name]),
            primary_key=tuple(str(column) for (column,) in keys[name]),
            rows=_rows(sizes[name]),
            bytes=_bytes(sizes[name]),
        )
        for name in wanted
        if name in columns
    ]


def _by_name(rows: Iterable[Row]) -> defaultdict[Name, list[Row]]:
    found: defaultdict[Name, list[Row]] = defaultdict(list)
    for owner, name, *facts in rows:
        found[str(owner), str(name)].append(tuple(facts))
    return found


def _column(row: Row) -> SqlColumn:
    _, name, type_, length, characters, precision, scale, nullable = row
    declared = str(type_)
    if declared in _OF_CHARACTERS:
        declared = f"{declared}({characters})"
    elif declared == "RAW":
        declared = f"{declared}({length})"
    elif declared == "NUMBER" and scale is not None:
        # INTEGER has a scale and no precision: 38 digits
        declared = f"{declared}({38 if precision is None else precision},{scale})"
    return SqlColumn(str(name), declared, nullable != "N")


def _rows(sizes: Sequence[Row]) -> int | None:
    """The estimate of the last statistics, which views and new tables do not have."""
    return int(str(sizes[0][0])) if sizes and sizes[0][0] is not None else None


def _bytes(sizes: Sequence[Row]) -> int | None:
    rows = _rows(sizes)
    return None if rows is None or sizes[0][1] is None else rows * int(str(sizes[0][1]))


def _literals(texts: Iterable[str]) -> str:
    return ", ".join([text_literal(text) for text in texts])


# Dropped tables stay in the recycle bin under such names.
_NAMES = (
    "SELECT owner, object_name FROM all_objects WHERE object_type IN ('TABLE', 'VIEW') "
    "AND oracle_maintained = 'N' AND secondary = 'N' AND object_name NOT LIKE 'BIN$%'"
)
_SCOPE = " AND t.owner IN ({}) AND t.table_name IN ({})"
_COLUMNS = (
    "SELECT t.owner, t.table_name, o.object_type, t.column_name, t.data_type, t.data_length, "
    "t.char_length, t.data_precision, t.data_scale, t.nullable FROM all_tab_columns t "
    "JOIN all_objects o ON o.owner = t.owner AND o.object_name = t.table_name "
    "WHERE o.object_type IN ('TABLE', 'VIEW')"
)
_KEYS = (
    "SELECT t.owner, t.table_name, c.column_name FROM all_constraints t "
    "JOIN all_cons_columns c ON c.owner = t.owner AND c.constraint_name = t.constraint_name "
    "WHERE t.constraint_type = 'P'"
)
_SIZES = "SELECT t.owner, t.table_name, t.num_rows, t.avg_row_len FROM all_tables t WHERE 1 = 1"
