"""DuckDB answering in a vendor's SQL: what our own stand-ins for servers have in common.

sqlglot translates queries; what it does not know of a vendor is in the vendor's `Vendor`. Tables
keep the types that they were declared with (DuckDB has fewer, and sqlglot rewrites some), so that a
stand-in can say them in its catalog and on the wire.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import duckdb
import sqlglot
from sqlglot import exp

Name = tuple[str, str]
TypeOf = Callable[[exp.Expression], "str | None"]

_SPEC = re.compile(r"(?P<type>.+?)(?: COLLATE (?P<collation>\w+))?(?P<required> NOT NULL)?")


@dataclass(frozen=True)
class DeclaredColumn:
    """A column as it was declared; `type` is the vendor's spelling."""

    name: str
    type: str
    nullable: bool = True
    collation: str | None = None


@dataclass(frozen=True)
class DeclaredTable:
    """A table or view as it was declared."""

    schema: str
    name: str
    columns: tuple[DeclaredColumn, ...]
    primary_key: tuple[str, ...] = ()
    is_view: bool = False


@dataclass(frozen=True)
class Result:
    """Columns with the vendor's types, and DuckDB's cursor, which has the rows."""

    columns: tuple[tuple[str, str], ...]
    cursor: Any


class Vendor(Protocol):
    """What a vendor's SQL needs beyond sqlglot. `dialect` is sqlglot's name for it."""

    dialect: str
    default_schema: str

    def stored(self, declared: str) -> str:
        """DuckDB's type for the values of a declared type."""

    def declared(self, stored: str) -> str:
        """The vendor's type for an expression of one of DuckDB's."""

    def rewritten(self, node: exp.Expression, type_of: TypeOf) -> exp.Expr:
        """A node of a query as DuckDB means it; `type_of` knows columns' declared types."""


class DuckSql:
    """One database in memory. Each thread has a `session` of its own."""

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor
        self.tables: dict[Name, DeclaredTable] = {}
        self._connection = duckdb.connect()
        self._lock = threading.Lock()
        self.run("SET TimeZone = 'UTC'")

    def create_table(
        self, schema: str, name: str, columns: Mapping[str, str], key: tuple[str, ...] = ()
    ) -> None:
        """A new table; columns are `type [COLLATE collation] [NOT NULL]` by name."""
        found = tuple(_declared(column, spec) for column, spec in columns.items())
        declared = tuple(replace(c, nullable=False) if c.name in key else c for c in found)
        stored = ", ".join(f"{quoted(c.name)} {self.vendor.stored(c.type)}" for c in declared)
        self.run(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        self.run(f"CREATE TABLE {quoted(schema, name)} ({stored})")
        self.tables[schema, name] = DeclaredTable(schema, name, declared, key)

    def create_view(self, schema: str, name: str, query: str) -> None:
        """A new view of a query in the vendor's SQL."""
        with self.session() as session:
            parsed = session.parsed(query)
            columns = session.query(parsed).columns
            self.run(f"CREATE VIEW {quoted(schema, name)} AS {session.translated(parsed)}")
        declared = tuple(DeclaredColumn(column, type_) for column, type_ in columns)
        self.tables[schema, name] = DeclaredTable(schema, name, declared, is_view=True)

    def drop_table(self, schema: str, name: str) -> None:
        """Drop a table if there is one."""
        self.run(f"DROP TABLE IF EXISTS {quoted(schema, name)}")
        self.tables.pop((schema, name), None)

    def drop_column(self, schema: str, name: str, column: str) -> None:
        """Drop a column."""
        self.run(f"ALTER TABLE {quoted(schema, name)} DROP COLUMN {quoted(column)}")
        table = self.tables[schema, name]
        columns = tuple(known for known in table.columns if known.name != column)
        self.tables[schema, name] = replace(table, columns=columns)

    def change_column(self, schema: str, name: str, column: str, spec: str) -> None:
        """Give a column another type."""
        new = _declared(column, spec)
        stored = self.vendor.stored(new.type)
        self.run(f"ALTER TABLE {quoted(schema, name)} ALTER {quoted(column)} TYPE {stored}")
        table = self.tables[schema, name]
        columns = tuple(new if known.name == column else known for known in table.columns)
        self.tables[schema, name] = replace(table, columns=columns)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement of DuckDB's own, such as an INSERT; its rows, if it has any."""
        with self._lock:
            found: list[tuple[Any, ...]] = self._connection.execute(statement).fetchall()
        return found

    def session(self) -> DuckSession:
        """A session of its own, which its user closes."""
        with self._lock:
            return DuckSession(self, self._connection.cursor())

    def count(self, table: DeclaredTable) -> int:
        """The number of a table's rows."""
        [(rows,)] = self.run(f"SELECT count(*) FROM {quoted(table.schema, table.name)}")
        return int(rows)

    def name_of(self, table: exp.Table) -> Name:
        """Schema and name of a table in a query, as they were declared."""
        asked = (table.db or self.vendor.default_schema, table.name)
        folded = tuple(part.lower() for part in asked)
        same = (name for name in self.tables if tuple(part.lower() for part in name) == folded)
        return next(same, asked)


class DuckSession:
    """One session: queries in the vendor's SQL."""

    def __init__(self, database: DuckSql, cursor: Any) -> None:
        self._database = database
        self._cursor = cursor

    def parsed(self, statement: str) -> exp.Expression:
        """One statement.

        Raises:
            sqlglot.errors.SqlglotError: It is not the vendor's SQL, as far as sqlglot knows.
        """
        parsed = sqlglot.parse_one(statement, read=self._database.vendor.dialect)
        assert isinstance(parsed, exp.Expression), statement
        return parsed

    def offer(self, name: str, rows: Any) -> None:
        """A table of Arrow's, for this session only."""
        self._cursor.register(name, rows)

    def query(self, statement: exp.Expression) -> Result:
        """Run a SELECT. The session's rows before it are gone.

        Raises:
            duckdb.Error: DuckDB cannot.
        """
        translated = self.translated(statement)
        columns = self._columns(statement, self._cursor.execute(translated).description)
        return Result(columns, self._cursor)

    def translated(self, statement: exp.Expression) -> str:
        """A query in DuckDB's SQL."""
        types, vendor = self._types(statement), self._database.vendor

        def type_of(node: exp.Expression) -> str | None:
            return types.get(node.name.lower()) if isinstance(node, exp.Column) else None

        changed = statement.copy().transform(lambda node: vendor.rewritten(node, type_of))
        return str(changed.sql("duckdb", identify=True))

    def _columns(self, statement: exp.Expression, found: Any) -> tuple[tuple[str, str], ...]:
        """Names and types: as declared, where an item is a table's own column."""
        types, declared = self._types(statement), self._database.vendor.declared
        items = statement.selects if isinstance(statement, exp.Query) else []
        if len(items) == len(found):
            types = {
                name: type_
                for name, type_ in types.items()
                if any(isinstance(i, exp.Column) and i.name.lower() == name for i in items)
            }
        return tuple(
            (str(name), types.get(str(name).lower()) or declared(str(stored)))
            for name, stored, *_ in found
        )

    def _types(self, statement: exp.Expression) -> dict[str, str]:
        """Declared types by column name, if the statement is about one table."""
        names = {self._database.name_of(table) for table in statement.find_all(exp.Table)}
        tables = [self._database.tables[name] for name in names if name in self._database.tables]
        if len(tables) != 1:
            return {}
        types = {column.name.lower(): column.type for column in tables[0].columns}
        for alias in statement.find_all(exp.Alias):
            inner = alias.this.this if isinstance(alias.this, exp.Max) else alias.this
            if isinstance(inner, exp.Column) and inner.name.lower() in types:
                types.setdefault(alias.alias.lower(), types[inner.name.lower()])
        return types

    def close(self) -> None:
        """End the session."""
        self._cursor.close()

    def __enter__(self) -> DuckSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def quoted(*parts: str) -> str:
    """A name in DuckDB's SQL."""
    return ".".join(['"' + part.replace('"', '""') + '"' for part in parts])


def _declared(name: str, spec: str) -> DeclaredColumn:
    match = _SPEC.fullmatch(spec)
    assert match is not None, spec
    return DeclaredColumn(name, match["type"], not match["required"], match["collation"])
