"""The metadata contract, on SQLite and PostgreSQL."""

import pytest
from pydantic import SecretStr

from matih_ray.state.sql import open_metadata
from matih_ray.testing.contracts.state import MetadataContract
from matih_ray.testing.devstack.postgres import PostgresServer


@pytest.fixture(scope="module")
def sqlite_store(tmp_path_factory):
    store = open_metadata(SecretStr(f"sqlite:///{tmp_path_factory.mktemp('db')}/m.db"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def postgres_store():
    with PostgresServer() as server:
        url = f"postgresql://{server.user}@{server.host}:{server.port}/postgres"
        store = open_metadata(SecretStr(url))
        yield store
        store.close()


class TestSqlite(MetadataContract):
    @pytest.fixture
    def metadata(self, sqlite_store):
        return sqlite_store


class TestPostgres(MetadataContract):
    @pytest.fixture
    def metadata(self, postgres_store):
        return postgres_store
