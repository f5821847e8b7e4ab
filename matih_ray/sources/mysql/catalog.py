"""What the database's catalog says about tables. Never touches a row of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pymysql.converters import escape_string

from matih_ray.errors import SourceChangedError, UnknownUnitError
from matih_ray.model.ids import EndpointId
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.sources.mysql.names import quoted, schema_and_table, unit_id_of
from matih_ray.sources.mysql.session import Session, TextRow
from matih_ray.sources.mysql.types import base_name, mapping_of

KINDS = {"BASE TABLE": "table", "SYSTEM VERSIONED": "table", "VIEW": "view"}

_CURSOR_TYPES = frozenset(
    {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "datetime", "timestamp"}
)
# Names per catalog query: a page of units is read in few queries of bounded length.
_NAMES_PER_QUERY = 500


@dataclass(frozen=True)
class Column:
    """One column. `native_type` is the catalog's COLUMN_TYPE."""

    name: str
    native_type: str
    nullable: bool

    @property
    def base(self) -> str:
        """The type's name alone."""
        return base_name(self.native_type)

    def descriptor(self) -> ColumnDescriptor:
        """The column as a unit shows it."""
        mapping = mapping_of(self.native_type)
        return ColumnDescriptor(
            name=self.name,
            native_type=self.native_type,
            arrow_type=str(mapping.arrow),
            nullable=self.nullable,
            fidelity=mapping.fidelity,
            encoding=mapping.encoding,
        )


@dataclass(frozen=True)
class Index:
    """A B-tree index over whole columns."""

    name: str
    unique: bool
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Relation:
    """One table or view. `rows` and `bytes` are the storage engine's estimates.

    `primary_key` is what the database calls so; `key` is it, or else some other unique index whose
    columns are all NOT NULL. `indexed` are the columns that lead an index.
    """

    schema: str
    name: str
    kind: str
    rows: int | None
    bytes: int | None
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    key: tuple[str, ...]
    indexed: frozenset[str]

    @property
    def identifier(self) -> str:
        """The relation's name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def column(self, name: str) -> Column | None:
        """The column of that name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)

    def existing_column(self, name: str) -> Column:
        """The column of that name, which was there when the plan was made.

        Raises:
            SourceChangedError: It is not there.
        """
        column = self.column(name)
        if column is None:
            raise SourceChangedError(
                f"column {name!r} of {unit_id_of(self.schema, self.name)} is gone since planning; "
                "start a new run",
                column=name,
            )
        return column

    def unit(self, endpoint_id: EndpointId) -> EndpointUnitDescriptor:
        """The relation as a unit of an endpoint."""
        return EndpointUnitDescriptor(
            endpoint_id=endpoint_id,
            unit_id=unit_id_of(self.schema, self.name),
            namespace=self.schema,
            name=self.name,
            kind=self.kind,
            columns=tuple(column.descriptor() for column in self.columns),
            primary_key=self.primary_key,
            cursor_candidates=tuple(
                column.name for column in self.columns if column.base in _CURSOR_TYPES
            ),
            estimated_rows=self.rows,
            estimated_bytes=self.bytes,
        )


def text_literal(text: str) -> str:
    """Text as an SQL literal; the session's sql_mode lets backslashes escape."""
    return f"'{escape_string(text)}'"


def unit_names(session: Session) -> list[tuple[str, str]]:
    """Unit ids and table names of all that the account may see, ordered by unit id."""
    rows = session.rows(_NAMES.format(kinds=_literals(KINDS)))
    return sorted((unit_id_of(str(schema), str(name)), str(name)) for schema, name in rows)


def relation_of(session: Session, unit_id: str) -> Relation:
    """The relation behind a unit id.

    Raises:
        UnknownUnitError: The connector's database has no such table or view, or the account may
            not see it.
    """
    schema, name = schema_and_table(unit_id)
    found = [relation for relation in relations_of(session, [name]) if relation.schema == schema]
    if not found:
        raise UnknownUnitError(
            f"there is no table or view {unit_id} in the connector's database, or its account has "
            "no right on it",
            unit_id=unit_id,
        )
    return found[0]


def relations_of(session: Session, names: list[str]) -> list[Relation]:
    """The relations of these names in the connector's database, in the order of the names."""
    found: list[Relation] = []
    for start in range(0, len(names), _NAMES_PER_QUERY):
        found += _relations(session, names[start : start + _NAMES_PER_QUERY])
    return found


def _relations(session: Session, names: list[str]) -> list[Relation]:
    wanted = _literals(names)
    kinds = _literals(KINDS)
    tables = {str(row[1]): row for row in session.rows(_TABLES.format(names=wanted, kinds=kinds))}
    columns = _by_table(session.rows(_COLUMNS.format(names=wanted)))
    indexes = _by_table(session.rows(_INDEXES.format(names=wanted)))
    return [
        _relation(tables[name], columns[name], indexes[name]) for name in names if name in tables
    ]


def _by_table(rows: list[TextRow]) -> defaultdict[str, list[TextRow]]:
    """Rows by their first column, which comparisons of the catalog may ignore the case of."""
    found: defaultdict[str, list[TextRow]] = defaultdict(list)
    for row in rows:
        found[str(row[0])].append(row[1:])
    return found


def _relation(table: TextRow, column_rows: list[TextRow], index_rows: list[TextRow]) -> Relation:
    schema, name, kind, row_count, size = table
    columns = tuple(
        Column(str(column), str(native_type), nullable == "YES")
        for column, native_type, nullable in column_rows
    )
    indexes = _indexes(index_rows)
    nullable = {column.name for column in columns if column.nullable}
    primary = next((index.columns for index in indexes if index.name == "PRIMARY"), ())
    unique = (
        index.columns for index in indexes if index.unique and not nullable & set(index.columns)
    )
    return Relation(
        schema=str(schema),
        name=str(name),
        kind=KINDS[str(kind)],
        rows=None if row_count is None else int(row_count),
        bytes=None if size is None else int(size),
        columns=columns,
        primary_key=primary,
        key=primary or next(unique, ()),
        indexed=frozenset(index.columns[0] for index in indexes),
    )


def _indexes(rows: list[TextRow]) -> list[Index]:
    """Indexes from the catalog's rows, without those over prefixes or expressions."""
    parts: dict[str, list[TextRow]] = {}
    for name, *part in rows:
        parts.setdefault(str(name), []).append(tuple(part))
    return [
        Index(name, columns[0][0] == "0", tuple(str(column) for _, column, _ in columns))
        for name, columns in parts.items()
        if all(column is not None and prefix is None for _, column, prefix in columns)
    ]


def _literals(names: Iterable[str]) -> str:
    return ", ".join([text_literal(name) for name in names])


_NAMES = """
    SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES
    WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN ({kinds})
"""
_TABLES = """
    SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, TABLE_ROWS, DATA_LENGTH
    FROM information_schema.TABLES
    WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({names}) AND TABLE_TYPE IN ({kinds})
"""
_COLUMNS = """
    SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE
    FROM information_schema.COLUMNS
    WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({names})
    ORDER BY TABLE_NAME, ORDINAL_POSITION
"""
_INDEXES = """
    SELECT TABLE_NAME, INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART
    FROM information_schema.STATISTICS
    WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({names}) AND INDEX_TYPE = 'BTREE'
    ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX
"""
