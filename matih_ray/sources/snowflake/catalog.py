"""What the catalog says about tables. Never touches a row of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from matih_ray.sources.snowflake.dialect import SnowflakeDialect, text_literal
from matih_ray.sources.sql.dialect import SqlColumn, SqlRelation

Row = Mapping[str, object]
Ask = Callable[[str], Sequence[Row]]
Name = tuple[str, str]

# Names per catalog query: a page of units is read in few queries of bounded length.
_NAMES_PER_QUERY = 500


def names(ask: Ask, schema: str | None) -> list[Name]:
    """Schema and name of all tables and views that the role may see, of one schema if given."""
    only = "" if schema is None else f" AND table_schema = {text_literal(schema)}"
    rows = ask(_NAMES + only)
    return [(str(row["TABLE_SCHEMA"]), str(row["TABLE_NAME"])) for row in rows]


def relations(ask: Ask, wanted: Sequence[Name]) -> list[SqlRelation]:
    """Those that exist, in the order of the names."""
    found: list[SqlRelation] = []
    for start in range(0, len(wanted), _NAMES_PER_QUERY):
        found += _relations(ask, wanted[start : start + _NAMES_PER_QUERY])
    return found


def _relations(ask: Ask, wanted: Sequence[Name]) -> list[SqlRelation]:
    schemas = sorted({schema for schema, _ in wanted})
    where = _WHERE.format(_literals(schemas), _literals(sorted({name for _, name in wanted})))
    tables = _by_name(ask(_TABLES + where))
    columns = _by_name(ask(f"{_COLUMNS}{where} ORDER BY ordinal_position"))
    present = sorted({schema for schema, _ in tables})
    keys = {name: key for schema in present for name, key in _keys(ask, schema).items()}
    return [
        SqlRelation(
            schema=name[0],
            name=name[1],
            kind=str(tables[name][0]["TABLE_TYPE"]).replace("BASE ", "").lower(),
            columns=tuple(_column(row) for row in columns[name]),
            primary_key=keys.get(name, ()),
            rows=_number(tables[name][0], "ROW_COUNT"),
            bytes=_number(tables[name][0], "BYTES"),
        )
        for name in wanted
        if name in tables
    ]


def _keys(ask: Ask, schema: str) -> dict[Name, tuple[str, ...]]:
    """Declared keys of a schema's tables; information_schema has their names only."""
    rows = ask(f"SHOW PRIMARY KEYS IN SCHEMA {SnowflakeDialect().quoted(schema)}")
    found: defaultdict[Name, list[str]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(str(row["key_sequence"]))):
        name = (str(row["schema_name"]), str(row["table_name"]))
        found[name].append(str(row["column_name"]))
    return {name: tuple(columns) for name, columns in found.items()}


def _by_name(rows: Iterable[Row]) -> dict[Name, list[Row]]:
    found: defaultdict[Name, list[Row]] = defaultdict(list)
    for row in rows:
        found[str(row["TABLE_SCHEMA"]), str(row["TABLE_NAME"])].append(row)
    return found


def _column(row: Row) -> SqlColumn:
    native_type = str(row["DATA_TYPE"])
    digits = row.get("DATETIME_PRECISION")
    if native_type == "NUMBER":
        native_type = f"NUMBER({row['NUMERIC_PRECISION']},{row['NUMERIC_SCALE']})"
    elif native_type.startswith("TIMESTAMP") and digits is not None:
        native_type = f"{native_type}({digits})"
    return SqlColumn(str(row["COLUMN_NAME"]), native_type, row["IS_NULLABLE"] != "NO")


def _number(row: Row, name: str) -> int | None:
    """An estimate, which views do not have."""
    value = row.get(name)
    return None if value is None or "VIEW" in str(row["TABLE_TYPE"]) else int(str(value))


def _literals(texts: Iterable[str]) -> str:
    return ", ".join([text_literal(text) for text in texts])


_NAMES = (
    "SELECT table_schema, table_name FROM information_schema.tables "
    "WHERE table_schema <> 'INFORMATION_SCHEMA'"
)
_TABLES = "SELECT * FROM information_schema.tables"
_COLUMNS = "SELECT * FROM information_schema.columns"
_WHERE = " WHERE table_schema IN ({}) AND table_name IN ({})"
