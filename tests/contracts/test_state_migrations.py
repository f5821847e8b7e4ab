"""Migrations make the tables of the models, once, whoever else is starting, or not at all."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import text

from matih_ray.errors import StateError, StateVersionError
from matih_ray.state import migrate
from matih_ray.state.engine import open_database
from matih_ray.state.migrations import HEAD, VERSION_TABLE
from matih_ray.state.sql import open_metadata
from matih_ray.state.tables import metadata as tables
from matih_ray.testing.contracts.state_processes import finish_together, start_together
from matih_ray.testing.devstack.postgres import PostgresServer

PROCESSES = 6

SQLITE_CATALOG = [
    "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE :version"
]
POSTGRESQL_CATALOG = [
    """SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default
       FROM information_schema.columns
       WHERE table_schema = 'public' AND table_name NOT LIKE :version""",
    """SELECT indexname, indexdef FROM pg_indexes
       WHERE schemaname = 'public' AND tablename NOT LIKE :version""",
    """SELECT conname, pg_get_constraintdef(c.oid)
       FROM pg_constraint c JOIN pg_class t ON t.oid = conrelid
       WHERE connamespace = 'public'::regnamespace AND relname NOT LIKE :version""",
]


@pytest.fixture(scope="module")
def postgres():
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sub/metadata.db"
    server = request.getfixturevalue("postgres")
    name = f"db_{tmp_path.name}".replace("-", "_")[:60].lower()
    server.create_database(name)
    return f"postgresql://{server.user}@{server.host}:{server.port}/{name}"


def other_url(url: str, request, tmp_path) -> str:
    """A second empty database beside the first one."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/other.db"
    server = request.getfixturevalue("postgres")
    name = url.rpartition("/")[2] + "_b"
    server.create_database(name)
    return f"{url}_b"


def catalog_of(url: str) -> list[tuple[object, ...]]:
    """Every table, column, constraint and index, as the database itself describes them."""
    database = open_database(SecretStr(url))
    queries = SQLITE_CATALOG if database.is_sqlite else POSTGRESQL_CATALOG
    with database.read("look at the tables") as connection:
        rows = [
            tuple(" ".join(str(value).split()) for value in row)
            for query in queries
            for row in connection.execute(text(query), {"version": f"%{VERSION_TABLE}%"})
        ]
    database.close()
    return sorted(rows)


def test_migrations_and_models_agree(url):
    store = open_metadata(SecretStr(url))
    with store.database.read("compare") as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_server_default": True}
        )
        assert compare_metadata(context, tables) == []
    store.close()


def test_migrations_make_exactly_what_the_models_would(url, request, tmp_path):
    """Stricter than Alembic's comparison, which does not look at partial indexes or collations."""
    open_metadata(SecretStr(url)).close()
    direct = open_database(SecretStr(other_url(url, request, tmp_path)))
    with direct.write("create the tables") as connection:
        tables.create_all(connection)
    direct.close()
    migrated = catalog_of(url)
    assert migrated == catalog_of(direct.engine.url.render_as_string(hide_password=False))
    assert len(migrated) > 15


def test_the_newest_revision_is_the_known_head():
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [HEAD]


def test_opening_again_changes_nothing(url):
    open_metadata(SecretStr(url)).close()
    before = catalog_of(url)
    open_metadata(SecretStr(url)).close()
    assert catalog_of(url) == before


def test_an_up_to_date_store_opens_without_alembic(url):
    open_metadata(SecretStr(url)).close()
    code = (
        "import sys\n"
        "from pydantic import SecretStr\n"
        "from matih_ray.state.sql import open_metadata\n"
        "open_metadata(SecretStr(sys.argv[1])).close()\n"
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def _open(_number: int, url: str) -> None:
    store = open_metadata(SecretStr(url))
    with store.database.read("look") as connection:
        assert migrate.stored_version(connection) == HEAD
    store.close()


def test_processes_that_start_together_upgrade_once(url):
    finish_together(start_together(PROCESSES, _open, url))
    database = open_database(SecretStr(url))
    with database.read("count") as connection:
        rows = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).all()
    database.close()
    assert rows == [(HEAD,)]


def test_tables_of_newer_software_are_refused_and_left_alone(url):
    store = open_metadata(SecretStr(url))
    with store.database.write("pretend") as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    store.close()
    before = catalog_of(url)
    with pytest.raises(StateVersionError) as caught:
        open_metadata(SecretStr(url))
    assert caught.value.context == {"stored": "9999", "known": HEAD}
    assert catalog_of(url) == before


def test_an_upgrade_that_fails_leaves_nothing(url):
    """A table of somebody else with one of our names, which the third step runs into."""
    database = open_database(SecretStr(url))
    with database.write("be in the way") as connection:
        connection.execute(text("CREATE TABLE run_slices (x INTEGER)"))
    before = catalog_of(url)
    with pytest.raises(StateError, match="run_slices"):
        open_metadata(SecretStr(url))
    assert catalog_of(url) == before
    with database.write("get out of the way") as connection:
        connection.execute(text("DROP TABLE run_slices"))
    database.close()
    open_metadata(SecretStr(url)).close()


def test_a_sqlite_store_is_in_wal_mode_and_stays_there(tmp_path):
    path = tmp_path / "metadata.db"
    open_metadata(SecretStr(f"sqlite:///{path}")).close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough" * 50, b"{}" * 600])
def test_a_foreign_file_is_reported_and_left_alone(tmp_path, content):
    path = tmp_path / "metadata.db"
    path.write_bytes(content)
    with pytest.raises(StateVersionError, match="no SQLite database"):
        open_metadata(SecretStr(f"sqlite:///{path}"))
    assert path.read_bytes() == content
    assert [found.name for found in Path(tmp_path).iterdir()] == ["metadata.db"]
