"""The key-value contract, on memory, file, SQLite, PostgreSQL and Redis."""

import pytest
from pydantic import SecretStr

from matih_ray.state.kv_file import FileKeyValueStore
from matih_ray.state.kv_memory import MemoryKeyValueStore
from matih_ray.state.kv_redis import RedisKeyValueStore
from matih_ray.state.kv_sql import SqlKeyValueStore
from matih_ray.state.sql import open_metadata
from matih_ray.testing.contracts.state import KeyValueContract
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.redis import RedisServer


@pytest.fixture(scope="module")
def sqlite_kv(tmp_path_factory):
    metadata = open_metadata(SecretStr(f"sqlite:///{tmp_path_factory.mktemp('db')}/m.db"))
    yield SqlKeyValueStore(metadata.database)
    metadata.close()


@pytest.fixture(scope="module")
def postgres_kv():
    with PostgresServer() as server:
        url = f"postgresql://{server.user}@{server.host}:{server.port}/postgres"
        metadata = open_metadata(SecretStr(url))
        yield SqlKeyValueStore(metadata.database)
        metadata.close()


@pytest.fixture(scope="module")
def redis_kv():
    with RedisServer(password="p4ss") as server:
        store = RedisKeyValueStore(SecretStr(server.url))
        yield store
        store.close()


class TestMemory(KeyValueContract):
    @pytest.fixture
    def kv(self):
        return MemoryKeyValueStore()


class TestFile(KeyValueContract):
    @pytest.fixture
    def kv(self, tmp_path):
        return FileKeyValueStore(tmp_path / "metadata" / "kv-store.json")


class TestSqlite(KeyValueContract):
    @pytest.fixture
    def kv(self, sqlite_kv):
        return sqlite_kv


class TestPostgres(KeyValueContract):
    @pytest.fixture
    def kv(self, postgres_kv):
        return postgres_kv


class TestRedis(KeyValueContract):
    @pytest.fixture
    def kv(self, redis_kv):
        return redis_kv
