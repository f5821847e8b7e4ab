"""The names of types that the stream knows by number."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from matih_ray.sources.postgres.changes.messages import RelationColumn
from matih_ray.sources.postgres.session import Session


def native_types(session: Session, columns: Sequence[RelationColumn]) -> list[str | None]:
    """The type of each column as `catalog` writes it, a domain as its base type; None if it is
    gone."""
    statement = _TYPES.format(
        oids=sql.Literal([column.type_oid for column in columns]),
        modifiers=sql.Literal([column.modifier for column in columns]),
    )
    found: dict[int, str] = dict(session.rows(statement)) if columns else {}
    return [found.get(number) for number in range(1, len(columns) + 1)]


_TYPES = sql.SQL(
    """
    WITH RECURSIVE base(number, type, modifier) AS (
        SELECT number, type, modifier
        FROM unnest({oids}::bigint[], {modifiers}::int[]) WITH ORDINALITY
             AS u(type, modifier, number)
        UNION ALL
        SELECT b.number, t.typbasetype::bigint, t.typtypmod
        FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
    )
    SELECT b.number,
           CASE WHEN n.nspname = 'pg_catalog' THEN format_type(t.oid, b.modifier)
                ELSE format('%I.%I', n.nspname, t.typname) END
    FROM base b JOIN pg_type t ON t.oid = b.type JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype <> 'd'
    """
)
