"""What goes wrong between us and a server becomes a typed error, and loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    Recovery,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.postgres import PostgresSource
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.postgres_ways import way  # noqa: F401

POLICY = IngestionPolicy()
PASSWORD = "hunter2 is secret"
HBA = """
host all nopass 127.0.0.1/32 reject
host all secure 127.0.0.1/32 scram-sha-256
host all all    127.0.0.1/32 trust
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(hba=HBA) as server:
        server.execute(
            f"CREATE ROLE secure LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE reader LOGIN;"
            "CREATE ROLE nopass LOGIN; CREATE ROLE nologin;"
            "CREATE TABLE big (id int PRIMARY KEY, note text);"
            "INSERT INTO big SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) n;"
            "GRANT SELECT ON big TO reader"
        )
        server.create_database("closed")
        server.execute("REVOKE CONNECT ON DATABASE closed FROM public")
        yield server


@pytest.fixture
def table(server: PostgresServer) -> str:
    server.execute(
        "DROP TABLE IF EXISTS t CASCADE; CREATE TABLE t (id int PRIMARY KEY, a int, b text);"
        "INSERT INTO t VALUES (1, 2, 'x'); GRANT SELECT ON t TO reader"
    )
    return "public.t"


def source_of(
    server: PostgresServer, password: str | None = None, **config: JsonValue
) -> PostgresSource:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="POSTGRESQL",
        config={
            "host": server.host,
            "port": server.port,
            "database": "postgres",
            "user": "postgres",
            **config,
        },
        secrets={} if password is None else {"password": password},
    )
    return PostgresSource(spec)


def planned(source: PostgresSource, unit_id: str) -> tuple[EndpointUnitDescriptor, IngestionSlice]:
    unit = source.describe_unit(UnitId(unit_id))
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 10_000_000).slices
    return unit, slice_


def rows(source: PostgresSource, unit: EndpointUnitDescriptor, slice_: IngestionSlice) -> int:
    return sum(batch.num_rows for batch in source.read(unit, slice_, POLICY))


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"port": 1}, ConnectionRefusedByHostError),
        ({"host": "no-such-host.invalid"}, DnsResolutionError),
        ({"user": "secure"}, AuthenticationFailedError),
        ({"user": "absent"}, AuthenticationFailedError),
        ({"user": "nologin"}, AuthenticationFailedError),
        ({"user": "nopass"}, AuthenticationFailedError),
        ({"database": "absent"}, DatabaseNotFoundError),
        ({"database": "closed", "user": "reader"}, SourcePermissionError),
        ({"sslMode": "require"}, TlsHandshakeError),
        ({"sslMode": "verify-full", "sslRootCert": "/no/such/file"}, TlsHandshakeError),
    ],
)
def test_each_way_of_not_connecting_has_its_code(
    server: PostgresServer, config: dict[str, JsonValue], error: type[SourceError]
) -> None:
    source = source_of(server, "a wrong password", **config)
    with pytest.raises(error) as caught:
        source.test()
    assert type(caught.value) is error
    assert "wrong password" not in f"{caught.value!r} {caught.value.context}"


def test_the_right_password_is_accepted(server: PostgresServer) -> None:
    assert source_of(server, PASSWORD, user="secure").test().server_version.startswith("PostgreSQL")
    with pytest.raises(AuthenticationFailedError):
        source_of(server, user="secure").test()


def test_a_server_that_does_not_answer_is_a_timeout(server: PostgresServer) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", free_port()))
        silent.listen()
        source = source_of(server, port=silent.getsockname()[1], connectTimeoutS=2)
        with pytest.raises(SourceTimeoutError):
            source.test()


@pytest.mark.parametrize(
    "config", [{"port": 0}, {"port": "x"}, {"sslMode": "off"}, {"surprise": 1}, {"host": ""}]
)
def test_a_wrong_configuration_is_refused_before_connecting(
    server: PostgresServer, config: dict[str, JsonValue]
) -> None:
    with pytest.raises(ValidationError):
        source_of(server, **config)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("DROP TABLE t", None),
        ("ALTER TABLE t RENAME TO elsewhere", None),
        ("ALTER TABLE t DROP COLUMN b", "b"),
        ("ALTER TABLE t RENAME COLUMN a TO z", "a"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint", "a"),
        ("ALTER TABLE t ALTER COLUMN a TYPE numeric(9,2)", "a"),
    ],
)
def test_a_change_between_plan_and_read_is_noticed(
    server: PostgresServer, table: str, change: str, column: str | None
) -> None:
    server.execute("DROP TABLE IF EXISTS elsewhere")
    source = source_of(server)
    unit, slice_ = planned(source, table)
    assert rows(source, unit, slice_) == 1
    server.execute(change)
    with pytest.raises(SourceChangedError) as caught:
        rows(source, unit, slice_)
    if column is not None:
        assert caught.value.context["column"] == column
    source.close()


def test_a_new_column_changes_nothing(server: PostgresServer, table: str) -> None:
    source = source_of(server)
    unit, slice_ = planned(source, table)
    server.execute("ALTER TABLE t ADD COLUMN c int DEFAULT 5")
    (batch,) = source.read(unit, slice_, POLICY)
    assert batch.schema.names == ["id", "a", "b"]
    source.close()


def test_a_table_dropped_before_planning_is_noticed(server: PostgresServer, table: str) -> None:
    source = source_of(server)
    unit = source.describe_unit(UnitId(table))
    server.execute("DROP TABLE t")
    with pytest.raises(SourceChangedError):
        source.plan_incremental_slices(unit, None, POLICY, 1000)
    source.close()


def test_a_revoked_permission_stops_reading_and_planning(
    server: PostgresServer, table: str
) -> None:
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, table)
    assert rows(source, unit, slice_) == 1
    server.execute("REVOKE SELECT ON t FROM reader")
    with pytest.raises(SourcePermissionError):
        rows(source, unit, slice_)
    with pytest.raises(SourcePermissionError):
        source.plan_incremental_slices(unit, None, POLICY, 1000)
    source.close()


def test_a_restart_in_the_middle_of_a_slice_can_be_retried(server: PostgresServer) -> None:
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, "public.big")
    batches = iter(source.read(unit, slice_, POLICY))
    next(batches)
    server.stop("immediate")
    try:
        with pytest.raises(SourceUnavailableError) as caught:
            list(batches)
        assert caught.value.recovery is Recovery.RETRY
        with pytest.raises(ConnectionRefusedByHostError):
            rows(source, unit, slice_)
    finally:
        server.start()
    assert rows(source, unit, slice_) == 60_000
    source.close()


def test_an_idle_connection_that_the_server_closed_is_replaced(
    server: PostgresServer, table: str
) -> None:
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, table)
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"
    )
    assert rows(source, unit, slice_) == 1
    source.close()


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("pg_cancel_backend", SourceTimeoutError),
        ("pg_terminate_backend", SourceUnavailableError),
    ],
)
def test_a_query_that_somebody_else_ends_can_be_retried(
    server: PostgresServer, function: str, error: type[SourceError]
) -> None:
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, "public.big")
    batches = iter(source.read(unit, slice_, POLICY))
    next(batches)
    server.execute(f"SELECT {function}(pid) FROM pg_stat_activity WHERE usename = 'reader'")
    with pytest.raises(error) as caught:
        list(batches)
    assert caught.value.recovery is Recovery.RETRY
    source.close()


def test_a_locked_table_is_waited_for_and_then_given_up(server: PostgresServer, table: str) -> None:
    source = source_of(server, lockTimeoutS=0.2)
    unit, slice_ = planned(source, table)
    other = server.connect(autocommit=False)
    other.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(SourceTimeoutError):
        rows(source, unit, slice_)
    unlock = threading.Timer(0.05, other.rollback)
    unlock.start()
    assert rows(source, unit, slice_) == 1
    unlock.join()
    other.close()
    source.close()


def test_a_role_with_a_short_statement_timeout_can_still_read(
    server: PostgresServer,
) -> None:
    server.execute("ALTER ROLE reader SET statement_timeout = '50ms'")
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, "public.big")
    assert rows(source, unit, slice_) == 60_000
    server.execute("ALTER ROLE reader RESET statement_timeout")
    source.close()


def test_several_slices_are_read_at_once_by_one_source(server: PostgresServer) -> None:
    source = source_of(server)
    unit = source.describe_unit(UnitId("public.big"))
    slices = source.plan_incremental_slices(unit, None, POLICY, 25_000).slices
    readers = [iter(source.read(unit, slice_, POLICY)) for slice_ in slices]
    assert len(readers) > 1
    total = 0
    while readers:
        for reader in list(readers):
            batch = next(reader, None)
            if batch is None:
                readers.remove(reader)
            else:
                total += batch.num_rows
    assert total == 60_000
    source.close()
