"""The upsert: what arriving rows do to held ones.

A live row replaces the held one if its version is not older and something is different. A deleted
row only marks the held one: what it held stays readable. A row without a version counts as current.
Versions never go back, and what would change nothing changes nothing, not even `run_id`.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from matih_ray.sinks.cdm_postgres.tables import DELETED, KEY, LOADED, RUN, SCOPE, VERSION

_VERSION = sql.SQL("coalesce(excluded.{version}, held.{version})").format(
    version=sql.Identifier(VERSION)
)


def upsert_live(
    table: sql.Identifier, stage: sql.Identifier, columns: Sequence[str], *, distinct: bool
) -> sql.Composable:
    """Rows of a stage that are not deleted into the table.

    `distinct` keeps one row for each key, the newest; without it, a stage that has a key twice is
    refused by PostgreSQL with a cardinality violation.
    """
    names = [name for name in columns if name not in (KEY, VERSION)]
    compared = [name for name in names if name != RUN]
    return sql.SQL(
        """
        INSERT INTO {table} AS held ({columns}) SELECT {distinct} {columns} FROM {stage}
        WHERE NOT {deleted} {order}
        ON CONFLICT ({key}) DO UPDATE SET {changes}, {version} = {newest}, {loaded} = now()
        WHERE excluded.{version} > held.{version} OR (
            (excluded.{version} = held.{version}) IS NOT FALSE
            AND ({held}, held.{version}) IS DISTINCT FROM ({arriving}, {newest}))
        """
    ).format(
        table=table,
        stage=stage,
        columns=_list(columns),
        distinct=sql.SQL("DISTINCT ON ({})").format(_id(KEY)) if distinct else sql.SQL(""),
        order=_newest_first() if distinct else sql.SQL(""),
        deleted=_id(DELETED),
        key=_id(KEY),
        version=_id(VERSION),
        newest=_VERSION,
        loaded=_id(LOADED),
        changes=sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(_id(name)) for name in names
        ),
        held=_of("held", compared),
        arriving=_of("excluded", compared),
    )


def upsert_deleted(
    table: sql.Identifier, stage: sql.Identifier, columns: Sequence[str]
) -> sql.Composable:
    """Deleted rows of a stage into the table; a key that was never seen is kept as deleted."""
    return sql.SQL(
        """
        INSERT INTO {table} AS held ({columns}) SELECT DISTINCT ON ({key}) {columns} FROM {stage}
        WHERE {deleted} {order}
        ON CONFLICT ({key}) DO UPDATE SET {deleted} = true, {version} = {newest},
            {run} = excluded.{run}, {loaded} = now()
        WHERE excluded.{version} > held.{version}
            OR ((excluded.{version} = held.{version}) IS NOT FALSE AND NOT held.{deleted})
        """
    ).format(
        table=table,
        stage=stage,
        columns=_list(columns),
        key=_id(KEY),
        deleted=_id(DELETED),
        order=_newest_first(),
        version=_id(VERSION),
        newest=_VERSION,
        run=_id(RUN),
        loaded=_id(LOADED),
    )


def remember_seen(stages: Sequence[sql.Identifier]) -> sql.Composable:
    """A temporary table of all keys that some stages hold."""
    key = _id(KEY)
    selects = [sql.SQL("SELECT {} FROM {}").format(key, stage) for stage in stages]
    none = sql.SQL("SELECT ''::text AS {} WHERE false").format(key)
    union = sql.SQL(" UNION ").join([none, *selects])
    return sql.SQL(
        "CREATE TEMPORARY TABLE matih_seen ON COMMIT DROP AS {}; ANALYZE matih_seen"
    ).format(union)


def sweep(table: sql.Identifier) -> sql.Composable:
    """Mark as deleted what a whole load of (tenant, endpoint, unit) has not brought.

    Values: the run, then the three of the scope.
    """
    return sql.SQL(
        """
        UPDATE {table} AS held SET {deleted} = true, {run} = %s, {loaded} = now()
        WHERE {scope} AND NOT {deleted}
            AND NOT EXISTS (SELECT FROM pg_temp.matih_seen seen WHERE seen.{key} = held.{key})
        """
    ).format(
        table=table,
        deleted=_id(DELETED),
        run=_id(RUN),
        loaded=_id(LOADED),
        key=_id(KEY),
        scope=sql.SQL(" AND ").join(sql.SQL("{} = %s").format(_id(name)) for name in SCOPE),
    )


def _newest_first() -> sql.Composable:
    # of equal versions the one that was written last
    return sql.SQL("ORDER BY {}, {} DESC NULLS LAST, ctid DESC").format(_id(KEY), _id(VERSION))


def _of(relation: str, names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(relation, name) for name in names)


def _list(names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(_id, names))


def _id(name: str) -> sql.Identifier:
    return sql.Identifier(name)
