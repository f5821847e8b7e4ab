"""Brings the metadata database to the tables this software knows.

Every process does this when it opens the store, so the usual case is one small query; Alembic is
imported only when there is something to do. Processes that start together take turns: the upgrade
runs in one transaction that holds a PostgreSQL advisory lock, or SQLite's only write lock, and
looks at the version again once it has it. A process that dies in the middle leaves nothing behind.
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from matih_ray.errors import StateError, StateVersionError
from matih_ray.state.engine import BUSY_TIMEOUT_MS, Database
from matih_ray.state.migrations import HEAD, VERSION_TABLE

SCRIPTS = Path(__file__).parent / "migrations"
# Any number that nothing else in the same database locks: "matih" as ASCII.
ADVISORY_LOCK = 0x6D61746968
# An upgrade of a large ledger may rewrite it; a start that waits longer than this should be seen.
LOCK_TIMEOUT_S = 120
WAL_RETRY_S = 0.02


def upgrade(database: Database) -> None:
    """Create or upgrade the tables; at once done when they are current.

    Raises:
        StateVersionError: The tables were made by newer software.
        StateError: The database cannot be reached, or another upgrade does not end.
    """
    with database.read("look up the version of the metadata store") as connection:
        if stored_version(connection) == HEAD:
            return
    if database.is_sqlite:
        _use_wal(database)
    with database.write("upgrade the metadata store") as connection:
        _wait_for_turn(connection)
        version = stored_version(connection)
        if version != HEAD:
            _run_scripts(connection, version)


def stored_version(connection: Connection) -> str | None:
    """The revision the tables are at; None in a database without our tables."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(
        select(column("version_num")).select_from(table(VERSION_TABLE))
    )
    return version


def _wait_for_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")


def _run_scripts(connection: Connection, version: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise StateVersionError(
            f"the metadata store is at revision {version}, which this software does not know "
            f"(it knows up to {HEAD}); run the newer software that upgraded it",
            stored=version,
            known=HEAD,
        )
    command.upgrade(config, "head")


def _use_wal(database: Database) -> None:
    """Switch the file to WAL, which it then keeps.

    SQLite does not wait for its turn here, unlike everywhere else: the switch needs the file for
    itself and fails at once when another process has it open in the same moment.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    connection = database.engine.raw_connection()
    try:
        while True:
            try:
                mode = connection.cursor().execute("PRAGMA journal_mode=WAL").fetchone()[0]
            except database.engine.dialect.loaded_dbapi.OperationalError:
                mode = "busy"
            if mode == "wal":
                return
            if time.monotonic() > deadline:
                raise StateError(
                    "could not switch the metadata file to WAL: it stays "
                    f"{mode}; put it on a local disk and stop what holds it",
                    mode=mode,
                )
            time.sleep(WAL_RETRY_S)
    finally:
        connection.close()
