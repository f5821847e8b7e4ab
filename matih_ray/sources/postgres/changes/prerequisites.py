"""What must be so before changes can be read, each with a remedy.

A publication is made when there is none. Making one has an effect on others: PostgreSQL refuses
updates and deletes of a published table in which rows cannot be told apart, so such a table is
refused first.
"""

from __future__ import annotations

from collections.abc import Collection

import psycopg2
from psycopg2 import sql

from matih_ray.errors import ReplicationNotReadyError, SourcePermissionError
from matih_ray.sources.postgres.catalog import Relation
from matih_ray.sources.postgres.failures import typed
from matih_ray.sources.postgres.names import unit_id_of
from matih_ray.sources.postgres.session import Session

# `pg_current_snapshot`, publications of partitioned tables and the state of a slot's log.
OLDEST_SERVER = 130000
_DENIED = "42501"
_TABLES = ("table", "partitioned_table")


def check_server(session: Session) -> None:
    """The server can decode its log, and the role may ask for it.

    Raises:
        ReplicationNotReadyError: It cannot.
        SourcePermissionError: The role may not.
    """
    wal_level, version, standby, user, allowed = session.row(_SERVER)
    if int(version) < OLDEST_SERVER:
        raise ReplicationNotReadyError(
            f"changes are read from PostgreSQL 13 and newer; this server has {version}"
        )
    if standby:
        raise ReplicationNotReadyError(
            "this server is a standby, on which no publication can be made; connect to the primary"
        )
    if wal_level != "logical":
        raise ReplicationNotReadyError(
            f"wal_level is {wal_level}; run ALTER SYSTEM SET wal_level = logical and restart the "
            "server"
        )
    if not allowed:
        raise SourcePermissionError(
            f"role {user} may not replicate; run ALTER ROLE {user} REPLICATION "
            "(on Amazon RDS: GRANT rds_replication)"
        )


def check_table(session: Session, relation: Relation) -> None:
    """The table's rows are in the log, all of them, and the role may see all of them.

    Raises:
        ReplicationNotReadyError: They are not.
    """
    name = unit_id_of(relation.schema, relation.name)
    if relation.kind not in _TABLES:
        raise ReplicationNotReadyError(f"{name} is a {relation.kind}; only tables have changes")
    oid = sql.Literal(relation.oid)
    persistence, hidden, readable = session.row(_TABLE.format(oid=oid))
    if persistence != "p":
        raise ReplicationNotReadyError(
            f"{name} is unlogged or temporary, so its changes are in no log; run ALTER TABLE "
            f"{name} SET LOGGED"
        )
    if hidden:
        raise ReplicationNotReadyError(
            f"row security hides rows of {name} from this role, and the stream would show them; "
            "use a role with BYPASSRLS"
        )
    if not readable:
        raise SourcePermissionError(
            f"this role may not read {name}; run GRANT SELECT ON {name} TO it"
        )


def ensure_publication(
    session: Session, publication: str, relation: Relation, wanted: Collection[str]
) -> None:
    """There is a publication of all changes of the table's wanted columns.

    Raises:
        ReplicationNotReadyError: The one of this name leaves something out, or one must not be
            made as the table is.
        SourcePermissionError: The role may not make one.
    """
    named = sql.Literal(publication)
    found = session.rows(_PUBLICATION.format(name=named))
    if not found:
        _create(session, publication, relation)
        return
    ((whole, via_root),) = found
    name = unit_id_of(relation.schema, relation.name)
    if not whole:
        raise ReplicationNotReadyError(
            f"publication {publication} leaves out inserts, updates or deletes; run ALTER "
            f"PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate')"
        )
    if relation.kind == "partitioned_table" and not via_root:
        raise ReplicationNotReadyError(
            f"publication {publication} names the partitions of {name} and not itself; run ALTER "
            f"PUBLICATION {publication} SET (publish_via_partition_root = true)"
        )
    tables = session.rows(
        _PUBLISHED.format(
            name=named, schema=sql.Literal(relation.schema), table=sql.Literal(relation.name)
        )
    )
    if not tables:
        raise ReplicationNotReadyError(
            f"publication {publication} does not have {name}; run ALTER PUBLICATION {publication} "
            f"ADD TABLE {name}"
        )
    ((facts,),) = tables  # columns and filters are in it from PostgreSQL 15 on
    _check_whole(facts, publication, name, wanted)


def is_published(session: Session, publication: str, relation: Relation) -> bool:
    """Whether the table is still there and still in the publication."""
    tables = session.rows(
        _STILL.format(
            name=sql.Literal(publication),
            schema=sql.Literal(relation.schema),
            table=sql.Literal(relation.name),
            oid=sql.Literal(relation.oid),
        )
    )
    return bool(tables)


def _check_whole(
    facts: dict[str, object], publication: str, name: str, wanted: Collection[str]
) -> None:
    columns = facts.get("attnames")
    left_out = [one for one in wanted if isinstance(columns, list) and one not in columns]
    if left_out or facts.get("rowfilter") is not None:
        what = f"column {left_out[0]!r}" if left_out else "rows"
        raise ReplicationNotReadyError(
            f"publication {publication} leaves out {what} of {name}; use another publication, or "
            f"ALTER PUBLICATION {publication} SET TABLE {name}"
        )


def _create(session: Session, publication: str, relation: Relation) -> None:
    name = unit_id_of(relation.schema, relation.name)
    (identity,) = session.row(_IDENTITY.format(oid=sql.Literal(relation.oid)))
    if identity == "n" or (identity == "d" and not relation.primary_key):
        raise ReplicationNotReadyError(
            f"rows of {name} cannot be told apart, and once it were published the database would "
            f"refuse to update or delete them; run ALTER TABLE {name} REPLICA IDENTITY FULL, or "
            "add a primary key"
        )
    options = sql.SQL(
        " WITH (publish_via_partition_root = true)" if relation.kind == "partitioned_table" else ""
    )
    statement = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}{}").format(
        sql.Identifier(publication), relation.identifier, options
    )
    try:
        session.rows(statement)
    except psycopg2.Error as error:
        if error.pgcode != _DENIED:
            raise typed(error, f"making publication {publication}") from None
        raise SourcePermissionError(
            f"this role may not make publication {publication}: {error.diag.message_primary}; let "
            f"the owner of {name} run CREATE PUBLICATION {publication} FOR TABLE {name}"
        ) from None


_SERVER = """
    SELECT current_setting('wal_level'), current_setting('server_version_num'),
           pg_is_in_recovery(), current_user,
           (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)
           OR EXISTS (SELECT FROM pg_roles
                      WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'USAGE'))
"""
_TABLE = sql.SQL(
    """
    SELECT relpersistence::text, row_security_active(oid), has_table_privilege(oid, 'SELECT')
           OR has_any_column_privilege(oid, 'SELECT')
    FROM pg_class WHERE oid = {oid}
    """
)
_IDENTITY = sql.SQL("SELECT relreplident::text FROM pg_class WHERE oid = {oid}")
_PUBLICATION = sql.SQL(
    "SELECT pubinsert AND pubupdate AND pubdelete, pubviaroot FROM pg_publication "
    "WHERE pubname = {name}"
)
_PUBLISHED = sql.SQL(
    "SELECT to_jsonb(t) FROM pg_publication_tables t "
    "WHERE pubname = {name} AND schemaname = {schema} AND tablename = {table}"
)
_STILL = sql.SQL(
    "SELECT 1 FROM pg_publication_tables t JOIN pg_class c ON c.relname = t.tablename "
    "JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname "
    "WHERE pubname = {name} AND schemaname = {schema} AND tablename = {table} AND c.oid = {oid}"
)
