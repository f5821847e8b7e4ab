"""What goes wrong between us and a server becomes a typed error, and loses nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    PlanError,
    Recovery,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceRejectedError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    UnknownUnitError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.base import TARGET_BATCH_BYTES, EndpointSpec, IngestionContext
from matih_ray.sources.mysql import MySqlSource
from matih_ray.testing.devstack.mariadb import MariaDbMissingError, MariaDbServer
from matih_ray.testing.devstack.ports import free_port

POLICY = IngestionPolicy()
PASSWORD = "hunter2 is secret"
# 60 MB: several batches, and more than all buffers between the server and a reader.
BIG_ROWS = 60_000
WAIT_S = 20.0

SETUP = (
    f"CREATE USER secure@'%' IDENTIFIED BY '{PASSWORD}'",
    "CREATE USER reader@'%'",
    f"CREATE USER locked@'%' IDENTIFIED BY '{PASSWORD}' ACCOUNT LOCK",
    "CREATE USER encrypted@'%' REQUIRE SSL",
    "CREATE DATABASE shop",
    "CREATE DATABASE closed",
    "GRANT SELECT ON shop.* TO secure@'%'",
    "CREATE TABLE shop.big (id int PRIMARY KEY, note text)",
    f"INSERT INTO shop.big SELECT seq, repeat('x', 1000) FROM mysql.seq_1_to_{BIG_ROWS}",
    "GRANT SELECT ON shop.big TO reader@'%'",
)


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDbServer]:
    try:
        server = MariaDbServer()
    except MariaDbMissingError as missing:
        pytest.skip(str(missing))
    with server:
        server.execute(*SETUP)
        yield server


@pytest.fixture
def table(server: MariaDbServer) -> str:
    server.execute(
        "DROP TABLE IF EXISTS t, elsewhere",
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text)",
        "INSERT INTO t VALUES (1, 2, 'x')",
        "GRANT SELECT ON t TO reader@'%'",
        database="shop",
    )
    return "shop.t"


def source_of(
    server: MariaDbServer, password: str | None = None, **config: JsonValue
) -> MySqlSource:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="MYSQL",
        config={
            "host": server.host,
            "port": server.port,
            "database": "shop",
            "user": "root",
            **config,
        },
        secrets={} if password is None else {"password": password},
    )
    return MySqlSource(spec)


def planned(source: MySqlSource, unit_id: str) -> tuple[EndpointUnitDescriptor, IngestionSlice]:
    unit = source.describe_unit(UnitId(unit_id))
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 10_000_000).slices
    return unit, slice_


def rows(source: MySqlSource, unit: EndpointUnitDescriptor, slice_: IngestionSlice) -> int:
    return sum(batch.num_rows for batch in source.read(unit, slice_, POLICY))


def connections_of(server: MariaDbServer, user: str) -> list[int]:
    found = server.execute(f"SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{user}'")
    return [int(str(row[0])) for row in found]


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"port": 1}, ConnectionRefusedByHostError),
        ({"host": "no-such-host.invalid"}, DnsResolutionError),
        ({"host": "a" * 64 + ".invalid"}, DnsResolutionError),
        ({"user": "secure"}, AuthenticationFailedError),
        ({"user": "absent"}, AuthenticationFailedError),
        ({"user": "locked"}, AuthenticationFailedError),
        ({"user": "encrypted"}, AuthenticationFailedError),
        ({"user": "secure", "database": "closed"}, AuthenticationFailedError),
        ({"sslMode": "require"}, TlsHandshakeError),
        ({"sslMode": "verify-ca"}, TlsHandshakeError),
        ({"sslMode": "verify-full", "sslRootCert": "/no/such/file"}, TlsHandshakeError),
    ],
)
def test_each_way_of_not_connecting_has_its_code(
    server: MariaDbServer, config: dict[str, JsonValue], error: type[SourceError]
) -> None:
    source = source_of(server, "a wrong password", **config)
    with pytest.raises(error) as caught:
        source.test()
    assert type(caught.value) is error
    assert "wrong password" not in f"{caught.value!r} {caught.value.context}"


def test_a_missing_database_and_a_forbidden_one_differ(server: MariaDbServer) -> None:
    with pytest.raises(DatabaseNotFoundError):
        source_of(server, database="absent").test()
    with pytest.raises(SourcePermissionError):
        source_of(server, PASSWORD, user="secure", database="closed").test()


def test_the_right_password_is_accepted(server: MariaDbServer) -> None:
    assert source_of(server, PASSWORD, user="secure").test().server_version.startswith("MariaDB 1")
    with pytest.raises(AuthenticationFailedError):
        source_of(server, user="secure").test()


def test_a_password_may_have_any_characters(server: MariaDbServer) -> None:
    password = "pä\\ß' \" 漢😀"
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER odd@'%%' IDENTIFIED BY %s", (password,))
        cursor.execute("GRANT SELECT ON shop.* TO odd@'%'")
    source_of(server, password, user="odd").test()


def test_batches_are_of_the_size_that_is_aimed_at(server: MariaDbServer) -> None:
    source = source_of(server)
    unit, slice_ = planned(source, "shop.big")
    sizes = [batch.nbytes for batch in source.read(unit, slice_, POLICY)]
    assert len(sizes) == 4
    assert max(sizes) < TARGET_BATCH_BYTES * 1.1
    source.close()


def test_a_server_that_does_not_answer_is_a_timeout(server: MariaDbServer) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", free_port()))
        silent.listen()
        source = source_of(server, port=silent.getsockname()[1], connectTimeoutS=1)
        with pytest.raises(SourceTimeoutError):
            source.test()


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x01\x00\x00\x00\x0a",
        b"\x40\x00\x00\x00" + b"\x0a" + b"8.0" * 21,
        b"\x40\x00\x00\x00" + b"\x00" * 64,
        b"\x05\x00\x00\x00\xff\x15\x04no",
        b"",
    ],
)
def test_a_port_of_something_else_is_a_source_error(server: MariaDbServer, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            other, _ = listening.accept()
            other.sendall(greeting)
            other.close()

        greeter = threading.Thread(target=greet)
        greeter.start()
        with pytest.raises(SourceError):
            source_of(server, port=listening.getsockname()[1], connectTimeoutS=2).test()
        greeter.join()


def test_too_many_connections_can_be_retried(server: MariaDbServer) -> None:
    server.execute("CREATE OR REPLACE USER narrow@'%' WITH MAX_USER_CONNECTIONS 1")
    server.execute("GRANT SELECT ON shop.* TO narrow@'%'")
    first, second = source_of(server, user="narrow"), source_of(server, user="narrow")
    first.list_units(IngestionContext(TenantId("tenant")))
    with pytest.raises(SourceUnavailableError) as caught:
        second.test()
    assert caught.value.recovery is Recovery.RETRY
    first.test()  # keeps to its one connection
    first.close()
    second.test()
    second.close()


@pytest.mark.parametrize(
    "config", [{"port": 0}, {"port": "x"}, {"sslMode": "off"}, {"surprise": 1}, {"host": ""}]
)
def test_a_wrong_configuration_is_refused_before_connecting(
    server: MariaDbServer, config: dict[str, JsonValue]
) -> None:
    with pytest.raises(ValidationError):
        source_of(server, **config)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("DROP TABLE t", None),
        ("RENAME TABLE t TO elsewhere", None),
        ("ALTER TABLE t DROP COLUMN b", "b"),
        ("ALTER TABLE t RENAME COLUMN a TO z", "a"),
        ("ALTER TABLE t MODIFY COLUMN a bigint", "a"),
        ("ALTER TABLE t MODIFY COLUMN a int unsigned", "a"),
    ],
)
def test_a_change_between_plan_and_read_is_noticed(
    server: MariaDbServer, table: str, change: str, column: str | None
) -> None:
    source = source_of(server)
    unit, slice_ = planned(source, table)
    assert rows(source, unit, slice_) == 1
    server.execute(change, database="shop")
    with pytest.raises(SourceChangedError) as caught:
        rows(source, unit, slice_)
    if column is not None:
        assert caught.value.context["column"] == column
    with pytest.raises(SourceChangedError):
        source.plan_incremental_slices(unit, None, POLICY, 1000)
    source.close()


def test_a_new_column_changes_nothing(server: MariaDbServer, table: str) -> None:
    source = source_of(server)
    unit, slice_ = planned(source, table)
    server.execute("ALTER TABLE shop.t ADD COLUMN c int DEFAULT 5 FIRST")
    (batch,) = source.read(unit, slice_, POLICY)
    assert batch.schema.names == ["id", "a", "b"]
    source.close()


def test_a_view_that_lost_its_table_is_rejected(server: MariaDbServer, table: str) -> None:
    server.execute("CREATE OR REPLACE VIEW v AS SELECT id, a FROM t", database="shop")
    source = source_of(server)
    unit, slice_ = planned(source, "shop.v")
    assert rows(source, unit, slice_) == 1
    server.execute("DROP TABLE shop.t")
    with pytest.raises((SourceChangedError, SourceRejectedError)):
        rows(source, unit, slice_)
    server.execute("DROP VIEW shop.v")
    source.close()


def test_a_revoked_permission_stops_reading_and_planning(server: MariaDbServer, table: str) -> None:
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, table)
    assert rows(source, unit, slice_) == 1
    server.execute(
        "REVOKE SELECT ON shop.t FROM reader@'%'", "GRANT INSERT ON shop.t TO reader@'%'"
    )
    with pytest.raises(SourcePermissionError):
        rows(source, unit, slice_)
    with pytest.raises(SourcePermissionError):
        source.plan_incremental_slices(unit, None, POLICY, 1000)
    server.execute("REVOKE INSERT ON shop.t FROM reader@'%'")
    with pytest.raises(SourceChangedError, match="no longer see"):
        rows(source, unit, slice_)
    source.close()


@pytest.mark.parametrize("unit_id", ["t", "`shop`.t", "shop.nowhere", "mysql.user", "a.b.c"])
def test_what_is_no_unit_is_unknown(server: MariaDbServer, unit_id: str) -> None:
    source = source_of(server)
    with pytest.raises(UnknownUnitError):
        source.describe_unit(UnitId(unit_id))
    source.close()


@pytest.mark.parametrize("end", ["restart", "kill connection", "kill query"])
def test_a_read_that_is_ended_midway_can_be_retried(server: MariaDbServer, end: str) -> None:
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, "shop.big")
    batches = iter(source.read(unit, slice_, POLICY))
    next(batches)
    try:
        if end == "restart":
            server.kill()
        else:
            for number in connections_of(server, "reader"):
                server.execute(f"{end} {number}")
        with pytest.raises(SourceUnavailableError) as caught:
            list(batches)
        assert caught.value.recovery is Recovery.RETRY
    finally:
        if end == "restart":
            with pytest.raises(ConnectionRefusedByHostError):
                rows(source, unit, slice_)
            server.start()
    assert rows(source, unit, slice_) == BIG_ROWS
    source.close()


def test_an_idle_connection_that_the_server_closed_is_replaced(
    server: MariaDbServer, table: str
) -> None:
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, table)
    for number in connections_of(server, "reader"):
        server.execute(f"KILL CONNECTION {number}")
    assert rows(source, unit, slice_) == 1
    source.close()


def test_a_locked_table_is_waited_for_and_then_given_up(server: MariaDbServer, table: str) -> None:
    source = source_of(server, lockTimeoutS=1)
    unit, slice_ = planned(source, table)
    other = server.connect("shop")
    other.query("LOCK TABLES t WRITE")
    with pytest.raises(SourceTimeoutError):
        rows(source, unit, slice_)
    unlock = threading.Timer(0.1, lambda: other.query("UNLOCK TABLES"))
    unlock.start()
    assert rows(source, unit, slice_) == 1
    unlock.join()
    other.close()
    source.close()


def test_limits_that_the_operator_set_for_everybody_do_not_end_a_read(
    server: MariaDbServer,
) -> None:
    server.execute("SET GLOBAL max_statement_time = 0.01, sql_select_limit = 5, max_join_size = 5")
    try:
        source = source_of(server, user="reader")
        unit, slice_ = planned(source, "shop.big")
        assert rows(source, unit, slice_) == BIG_ROWS
        source.close()
    finally:
        server.execute(
            "SET GLOBAL max_statement_time = 0, sql_select_limit = DEFAULT, max_join_size = DEFAULT"
        )


def test_an_abandoned_read_is_not_read_to_its_end(server: MariaDbServer) -> None:
    source = source_of(server, user="reader")
    unit, slice_ = planned(source, "shop.big")
    (before,) = server.execute("SHOW GLOBAL STATUS LIKE 'Bytes_sent'")
    batches = iter(source.read(unit, slice_, POLICY))
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # the contract: what `read` returns can be closed
    source.close()
    deadline = time.monotonic() + WAIT_S
    while connections_of(server, "reader"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (after,) = server.execute("SHOW GLOBAL STATUS LIKE 'Bytes_sent'")
    assert int(str(after[1])) - int(str(before[1])) < BIG_ROWS * 1000 * 0.8


def test_several_slices_are_read_at_once_by_one_source(server: MariaDbServer) -> None:
    source = source_of(server)
    unit = source.describe_unit(UnitId("shop.big"))
    slices = source.plan_incremental_slices(unit, None, POLICY, 25_000).slices
    readers = [iter(source.read(unit, slice_, POLICY)) for slice_ in slices]
    assert len(readers) == 3
    total = 0
    while readers:
        for reader in list(readers):
            batch = next(reader, None)
            if batch is None:
                readers.remove(reader)
            else:
                total += batch.num_rows
    assert total == BIG_ROWS
    source.close()


@pytest.mark.parametrize(
    "params",
    [
        {"kind": "range", "columns": ["id"], "lower": ["1 OR 1=1"], "upper": None},
        {"kind": "range", "columns": ["note"], "lower": ["x"], "upper": None},
        {"kind": "pages"},
    ],
)
def test_a_slice_that_is_not_ours_is_refused(
    server: MariaDbServer, params: dict[str, JsonValue]
) -> None:
    source = source_of(server)
    unit = source.describe_unit(UnitId("shop.big"))
    with pytest.raises(ValidationError):
        rows(source, unit, IngestionSlice(key="k", sequence=0, params=params))
    source.close()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"filter": {"a": 1}}, ValidationError),
        ({"run_mode": RunMode.CDC}, PlanError),
        ({"columns": ("note",)}, ValidationError),
        ({"columns": ("id", "nope")}, ValidationError),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(
    server: MariaDbServer, change: dict[str, object], error: type[Exception]
) -> None:
    source = source_of(server)
    unit = source.describe_unit(UnitId("shop.big"))
    with pytest.raises(error):
        source.plan_incremental_slices(unit, None, POLICY.model_copy(update=change), 1000)
    source.close()
