"""What the database's catalog says about tables. Never touches a row of them.

Type names are written independently of `search_path`: PostgreSQL's own types by their SQL names,
all others as `schema.type`, so that two descriptions compare equal exactly when nothing changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql

from matih_ray.errors import SourceChangedError, UnknownUnitError
from matih_ray.model.ids import EndpointId
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.sources.postgres.names import schema_and_table, unit_id_of
from matih_ray.sources.postgres.session import Row, Session
from matih_ray.sources.postgres.types import DOMAIN_OVER, mapping_of

KINDS = {
    "r": "table",
    "p": "partitioned_table",
    "v": "view",
    "m": "materialized_view",
    "f": "foreign_table",
}
# Kinds with pages of their own, which can be sampled and read by ctid.
STORED = frozenset({"table", "materialized_view"})
SAMPLEABLE = STORED | {"partitioned_table"}

_CURSOR_TYPES = ("smallint", "integer", "bigint", "timestamp", "numeric")


@dataclass(frozen=True)
class Column:
    """One column. `cast_type` is SQL that a text literal of its values is cast with."""

    name: str
    native_type: str
    cast_type: str
    nullable: bool

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
class Relation:
    """One table, view or the like. `rows` and `bytes` are as of its last ANALYZE or VACUUM.

    `primary_key` is what the database calls so; `key` is it, or else some other unique index
    whose columns are all NOT NULL. Both are empty for a parent of inheritance (not partitioning),
    because its children's rows need not obey them. `indexed` are the columns that lead an index.
    """

    oid: int
    schema: str
    name: str
    kind: str
    row_security: bool
    rows: int | None
    bytes: int | None
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    key: tuple[str, ...]
    indexed: frozenset[str]

    @property
    def identifier(self) -> sql.Composable:
        """The relation's name in SQL."""
        return sql.Identifier(self.schema, self.name)

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
                column.name
                for column in self.columns
                if column.cast_type.startswith(_CURSOR_TYPES) and not column.cast_type.endswith("]")
            ),
            estimated_rows=self.rows,
            estimated_bytes=self.bytes,
        )


@dataclass(frozen=True)
class StoredPart:
    """A table with pages of its own that holds rows of a unit. `pages` is its size now."""

    schema: str
    name: str
    stored: bool
    readable: bool
    pages: int


def unit_names(session: Session) -> list[tuple[int, str]]:
    """Object and unit ids of all that the role may read, ordered by unit id.

    Partitions are not listed: their rows are read through the partitioned table.
    """
    rows = session.rows(_NAMES)
    return sorted(
        ((oid, unit_id_of(schema, name)) for oid, schema, name in rows), key=lambda row: row[1]
    )


def relation_of(session: Session, unit_id: str) -> Relation:
    """The relation behind a unit id.

    Raises:
        UnknownUnitError: There is none.
    """
    schema, name = schema_and_table(unit_id)
    by_name = sql.SQL("n.nspname = {} AND c.relname = {}").format(
        sql.Literal(schema), sql.Literal(name)
    )
    found = _relations(session, by_name)
    if not found:
        raise UnknownUnitError(
            f"there is no table or view {unit_id} in this database", unit_id=unit_id
        )
    return found[0]


def relations_of(session: Session, oids: Sequence[int]) -> list[Relation]:
    """The relations with these object ids that still exist, in the order of the ids."""
    if not oids:
        return []
    found = _relations(session, sql.SQL("c.oid = ANY({})").format(sql.Literal(list(oids))))
    place = {oid: index for index, oid in enumerate(oids)}
    return sorted(found, key=lambda relation: place[relation.oid])


def stored_parts(session: Session, relation: Relation) -> list[StoredPart]:
    """The tables that hold the rows of a relation: itself, its partitions or its children."""
    statement = _PARTS.format(oid=sql.Literal(relation.oid))
    return [StoredPart(*row) for row in session.rows(statement)]


@dataclass(frozen=True)
class _Index:
    """One complete b-tree index. `is_key`: its columns identify a row."""

    primary: bool
    is_key: bool
    leading: str | None
    columns: tuple[str, ...]


def _relations(session: Session, condition: sql.Composable) -> list[Relation]:
    heads = session.rows(_RELATIONS.format(condition=condition))
    if not heads:
        return []
    oids = sql.Literal([head[0] for head in heads])
    columns: dict[int, list[Column]] = {}
    for oid, *column in session.rows(_COLUMNS.format(oids=oids, over=sql.Literal(DOMAIN_OVER))):
        columns.setdefault(oid, []).append(Column(*column))
    indexes: dict[int, list[_Index]] = {}
    for oid, primary, is_key, leading, names in session.rows(_INDEXES.format(oids=oids)):
        index = _Index(primary, is_key, leading, tuple(names))
        indexes.setdefault(oid, []).append(index)
    return [_relation(head, columns.get(head[0], []), indexes.get(head[0], [])) for head in heads]


def _relation(head: Row, columns: list[Column], indexes: list[_Index]) -> Relation:
    oid, schema, name, kind, row_security, has_children, rows, size = head
    inherited = has_children and KINDS[kind] == "table"
    keys = [] if inherited else [index for index in indexes if index.is_key]
    return Relation(
        oid=oid,
        schema=schema,
        name=name,
        kind=KINDS[kind],
        row_security=row_security,
        rows=rows,
        bytes=size,
        columns=tuple(columns),
        primary_key=next((index.columns for index in keys if index.primary), ()),
        key=keys[0].columns if keys else (),  # a primary key sorts first
        indexed=frozenset(index.leading for index in indexes if index.leading is not None),
    )


_NAMES = sql.SQL(
    """
    SELECT c.oid, n.nspname, c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
      AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
    """
)

# Estimates of a partitioned table are the sums of its partitions'. `relpages` instead of the real
# size, because asking for that waits for locks.
_RELATIONS = sql.SQL(
    """
    WITH RECURSIVE tree(root, oid) AS (
        SELECT c.oid, c.oid
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {condition}
        UNION ALL
        SELECT tree.root, i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
    ), sizes AS (
        SELECT root, sum(c.reltuples)::bigint AS rows, sum(c.relpages)::bigint AS pages
        FROM tree JOIN pg_class c ON c.oid = tree.oid
        WHERE c.relkind IN ('r', 'm') AND (c.relpages > 0 OR c.reltuples > 0)
        GROUP BY root
    )
    SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relrowsecurity, c.relhassubclass,
           s.rows, s.pages * current_setting('block_size')::bigint
    FROM tree JOIN pg_class c ON c.oid = tree.root JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN sizes s ON s.root = c.oid
    WHERE tree.oid = tree.root
    ORDER BY n.nspname, c.relname
    """
)

# Follows domains down to their base type.
_COLUMNS = sql.SQL(
    """
    WITH RECURSIVE base(relation, number, type, modifier) AS (
        SELECT attrelid, attnum, atttypid, atttypmod FROM pg_attribute
        WHERE attrelid = ANY({oids}) AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT b.relation, b.number, t.typbasetype, t.typtypmod
        FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
    ), named AS (
        SELECT b.relation, b.number,
               CASE WHEN n.nspname = 'pg_catalog' THEN format_type(t.oid, b.modifier)
                    ELSE format('%I.%I%s', n.nspname, coalesce(e.typname, t.typname), suffix)
               END AS native_name,
               CASE WHEN n.nspname = 'pg_catalog' THEN format_type(t.oid, -1)
                    ELSE format('%I.%I%s', n.nspname, coalesce(e.typname, t.typname), suffix)
               END AS cast_name
        FROM base b
        JOIN pg_type t ON t.oid = b.type
        LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
        JOIN pg_namespace n ON n.oid = coalesce(e.typnamespace, t.typnamespace)
        CROSS JOIN LATERAL (SELECT CASE WHEN e.oid IS NULL THEN '' ELSE '[]' END AS suffix) s
        WHERE t.typtype <> 'd'
    )
    SELECT a.attrelid, a.attname,
           CASE WHEN t.typtype = 'd'
                THEN format('%I.%I', n.nspname, t.typname) || {over} || named.native_name
                ELSE named.native_name END,
           named.cast_name,
           NOT (a.attnotnull OR t.typnotnull)
    FROM named
    JOIN pg_attribute a ON a.attrelid = named.relation AND a.attnum = named.number
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_namespace n ON n.oid = t.typnamespace
    ORDER BY a.attrelid, a.attnum
    """
)

_INDEXES = sql.SQL(
    """
    SELECT i.indrelid, i.indisprimary,
           i.indisunique AND i.indimmediate AND i.indexprs IS NULL AND names.not_null,
           (SELECT attname FROM pg_attribute WHERE attrelid = i.indrelid AND attnum = i.indkey[0]),
           names.list
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(a.attname::text ORDER BY k.position), '{{}}') AS list,
               bool_and(a.attnotnull) AS not_null
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, position)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE k.position <= i.indnkeyatts
    ) names
    WHERE i.indrelid = ANY({oids}) AND i.indisvalid AND i.indpred IS NULL
    ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, i.indexrelid
    """
)

_PARTS = sql.SQL(
    """
    WITH RECURSIVE tree(oid) AS (
        SELECT {oid}::oid
        UNION ALL
        SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
    )
    SELECT n.nspname, c.relname, c.relkind IN ('r', 'm'), has_table_privilege(c.oid, 'SELECT'),
           CASE WHEN c.relkind IN ('r', 'm')
                THEN pg_relation_size(c.oid) / current_setting('block_size')::bigint ELSE 0 END
    FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'f')
    ORDER BY n.nspname, c.relname
    """
)
