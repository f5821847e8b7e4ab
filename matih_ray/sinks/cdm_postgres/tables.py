"""The DDL: idempotent, only ever adding, and only sent when something is missing.

Beside the tables of the models are two of our own: `…matih_streams`, one row for each stream with
its marker, and `…matih_stages`, one row for each stage table. A stream's row also names the table
it loads by its object id: a table that was dropped and made anew has no markers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
from psycopg2 import sql

from matih_ray.errors import SchemaMismatchError, ValidationError
from matih_ray.sinks.cdm_postgres.columns import column_type
from matih_ray.sinks.cdm_postgres.config import MAX_NAME_CHARS, Place
from matih_ray.sinks.cdm_postgres.session import Session

KEY = "cdm_id"
VERSION = "source_version"
DELETED = "is_deleted"
RUN = "run_id"
SCOPE = ("tenant_id", "source_endpoint_id", "source_unit_id")
# The database's own time of the last change, for whoever reads incrementally.
LOADED = "loaded_at"
_NEEDED = (KEY, VERSION, DELETED, RUN, *SCOPE)

_MODEL_ID = re.compile(r"cdm(\.[a-z][a-z0-9_]*)+")


@dataclass(frozen=True)
class Names:
    """The tables of one place, as SQL."""

    place: Place

    @property
    def schema(self) -> sql.Identifier:
        """The schema of all tables."""
        return sql.Identifier(self.place.schema)

    @property
    def streams(self) -> sql.Identifier:
        """What each stream has committed."""
        return self.table(f"{self.place.prefix}matih_streams")

    @property
    def stages(self) -> sql.Identifier:
        """Which stage tables there are."""
        return self.table(f"{self.place.prefix}matih_stages")

    def table(self, name: str) -> sql.Identifier:
        """A table of this schema."""
        return sql.Identifier(self.place.schema, name)

    def model_table(self, model_id: str) -> str:
        """The name of a model's table.

        Raises:
            ValidationError: It is no model's id, or the name would be too long.
        """
        if not _MODEL_ID.fullmatch(model_id):
            raise ValidationError(
                f"{model_id!r} is no model of the canonical data model; a name such as "
                "cdm.work.item is needed",
                field="cdmModelId",
            )
        name = self.place.prefix + model_id.removeprefix("cdm.").replace(".", "_")
        if len(name) > MAX_NAME_CHARS:
            raise ValidationError(
                f"the table of {model_id} would be called {name}, which is too long for PostgreSQL",
                field="tablePrefix",
            )
        return name


def provision(session: Session, names: Names, table: str, schema: pa.Schema) -> int:
    """Create or extend what is missing; the object id of the table.

    Raises:
        SchemaMismatchError: A column that is there has another type.
    """
    if missing := [name for name in _NEEDED if name not in schema.names]:
        raise SchemaMismatchError(f"rows of the canonical data model need {', '.join(missing)}")
    wanted = {field.name: column_type(field) for field in schema}
    if not _is_complete(session, names, table, wanted):
        with session.transaction():
            # whoever else provisions here waits: IF NOT EXISTS does not survive a race
            session.rows("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [_place(names)])
            _create(session, names, table, schema, wanted)
            _extend(session, names, table, wanted)
    return _relation(session, names, table)


def _is_complete(session: Session, names: Names, table: str, wanted: dict[str, str]) -> bool:
    found = _columns(session, names, table)
    if not wanted.keys() <= found.keys():
        return False
    _check_types(table, wanted, found)
    [(ours,)] = session.rows(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = %s AND relname = ANY(%s)",
        [
            names.place.schema,
            [f"{names.place.prefix}matih_streams", f"{names.place.prefix}matih_stages"],
        ],
    )
    return bool(ours == 2)


def _columns(session: Session, names: Names, table: str) -> dict[str, str]:
    return dict(
        session.rows(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = %s AND relname = %s AND attnum > 0 AND NOT attisdropped",
            [names.place.schema, table],
        )
    )


def _create(
    session: Session, names: Names, table: str, schema: pa.Schema, wanted: dict[str, str]
) -> None:
    if not session.rows(
        "SELECT 1 FROM pg_namespace WHERE nspname = %s", [names.place.schema]
    ):  # the statement below wants a right that a role without DDL need not have
        session.rows(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(names.schema))
    columns = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(field.name),
            _type(field.name, wanted),
            sql.SQL("" if field.nullable else " NOT NULL"),
        )
        for field in schema
    ]
    session.rows(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} ({}, {} timestamptz NOT NULL DEFAULT now(), "
            "PRIMARY KEY ({}))"
        ).format(names.table(table), sql.SQL(", ").join(columns), _id(LOADED), _id(KEY))
    )
    session.rows(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (stream text PRIMARY KEY, relation bigint NOT NULL, "
            "marker text, runs text NOT NULL DEFAULT '[]', loading text[] NOT NULL DEFAULT '{{}}');"
            "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, stream text NOT NULL, "
            "predecessor text NOT NULL)"
        ).format(names.streams, names.stages)
    )


def _extend(session: Session, names: Names, table: str, wanted: dict[str, str]) -> None:
    """Add the columns that the table lacks, as NULL; none is ever changed or taken away."""
    found = _columns(session, names, table)
    _check_types(table, wanted, found)
    for name in [name for name in wanted if name not in found]:
        session.rows(
            sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}").format(
                names.table(table), _id(name), _type(name, wanted)
            )
        )


def _check_types(table: str, wanted: dict[str, str], found: dict[str, str]) -> None:
    wrong = [name for name, kind in wanted.items() if found.get(name, kind) != kind]
    if wrong:
        name = wrong[0]
        raise SchemaMismatchError(
            f"column {name} of table {table} is {found[name]}, and {wanted[name]} is needed; "
            "change its type, or choose another tablePrefix",
            column=name,
        )


def _relation(session: Session, names: Names, table: str) -> int:
    [(relation,)] = session.rows(
        "SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = %s AND relname = %s",
        [names.place.schema, table],
    )
    return int(relation)


def _type(name: str, wanted: dict[str, str]) -> sql.SQL:
    # compared and sorted as bytes: the locale's rules would make the key's index twice as slow
    collation = ' COLLATE "C"' if name == KEY else ""
    return sql.SQL(wanted[name] + collation)


def _id(name: str) -> sql.Identifier:
    return sql.Identifier(name)


def _place(names: Names) -> str:
    return f"matih-ray {names.place.schema}.{names.place.prefix}"
