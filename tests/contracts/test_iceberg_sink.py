"""The Iceberg sink keeps the sink contract on every catalog that we support."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.testing.contracts.sink import LostReplyContract, SinkContract
from matih_ray.testing.contracts.sink_lab import TENANT
from matih_ray.testing.devstack.iceberg_java import IcebergJavaServer
from matih_ray.testing.devstack.iceberg_rest import CommitFault, IcebergRestServer
from matih_ray.testing.devstack.postgres import PostgresServer


class IcebergLab:
    """Endpoints on one catalog, read back through PyIceberg."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def sink(self) -> IcebergSink:
        return IcebergSink.from_settings(self.settings, TENANT)

    def catalog(self) -> Catalog:
        return open_catalog(CatalogConfig.from_settings(self.settings))

    def read(self, prepared: PreparedTarget) -> pa.Table:
        identifier = tuple(prepared.payload["identifier"])
        return self.catalog().load_table(identifier).scan().to_arrow()


class SqlLab(IcebergLab):
    """Loses replies between the SQL catalog and its database.

    SQLAlchemy's events around COMMIT stand for the network: an error before it means that the
    database never got it, an error after it that the answer got lost.
    """

    def lose_reply(self, *, applied: bool) -> None:
        moment = "after_commit" if applied else "before_commit"

        def lose(session: Session) -> None:
            event.remove(Session, moment, lose)
            raise OperationalError("COMMIT", None, Exception("connection lost"))

        event.listen(Session, moment, lose)


class RestLab(IcebergLab):
    """Loses replies of a REST catalog."""

    def __init__(self, server: IcebergRestServer, home: Path) -> None:
        super().__init__(
            Settings(home=home, iceberg_catalog_type="rest", iceberg_catalog_uri=server.uri)
        )
        self.server = server

    def lose_reply(self, *, applied: bool) -> None:
        self.server.fail_next(CommitFault.APPLY_THEN_DROP if applied else CommitFault.DROP)


@pytest.fixture(scope="module")
def sqlite_lab(tmp_path_factory: pytest.TempPathFactory) -> SqlLab:
    return SqlLab(Settings(home=tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def postgres_lab(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> SqlLab:
    postgres.create_database("iceberg catalog")
    user, host = postgres.user, f"{postgres.host}:{postgres.port}"
    uri = f"postgresql+psycopg2://{user}@{host}/iceberg catalog"
    return SqlLab(Settings(home=tmp_path_factory.mktemp("lake"), iceberg_catalog_uri=uri))


@pytest.fixture(scope="module")
def rest_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestLab]:
    with IcebergRestServer(tmp_path_factory.mktemp("rest")) as server:
        yield RestLab(server, tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def reference_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IcebergLab]:
    """Iceberg's own REST catalog: what it refuses, every catalog of the reference does."""
    with IcebergJavaServer(tmp_path_factory.mktemp("warehouse")) as server:
        yield IcebergLab(
            Settings(
                home=tmp_path_factory.mktemp("lake"),
                iceberg_catalog_type="rest",
                iceberg_catalog_uri=server.uri,
            )
        )


class TestIcebergOnSqlite(SinkContract, LostReplyContract):
    @pytest.fixture
    def lab(self, sqlite_lab: SqlLab) -> SqlLab:
        return sqlite_lab


class TestIcebergOnPostgres(SinkContract, LostReplyContract):
    @pytest.fixture
    def lab(self, postgres_lab: SqlLab) -> SqlLab:
        return postgres_lab


class TestIcebergOnRest(SinkContract, LostReplyContract):
    @pytest.fixture
    def lab(self, rest_lab: RestLab) -> RestLab:
        return rest_lab


class TestIcebergOnReferenceRest(SinkContract):
    @pytest.fixture
    def lab(self, reference_lab: IcebergLab) -> IcebergLab:
        return reference_lab
