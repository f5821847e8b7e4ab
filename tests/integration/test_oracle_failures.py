"""What goes wrong between Oracle's source and a server becomes a typed error.

Up to the login it is the driver itself that fails, at sockets of the test; behind the login there
is the stand-in for its connection, with the driver's own exceptions.
"""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import oracledb
import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    HostNotAllowedError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.value import JsonValue
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.oracle import OracleSource
from matih_ray.sources.oracle.failures import typed
from matih_ray.testing.devstack import oracle_driver
from matih_ray.testing.devstack.oracle import OracleServer
from tests.integration.certificates import DAY, Authority

POLICY = IngestionPolicy()
PASSWORD = "hunter2 is secret"
# The driver leaves the socket of some failures to whoever collects garbage.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
_HEADER_BYTES = 8
_REFUSE = 4


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    yield
    gc.collect()


def source_at(
    port: int, password: str = PASSWORD, policy: HostPolicy | None = None, **config: JsonValue
) -> OracleSource:
    standard: dict[str, JsonValue] = {
        "host": "127.0.0.1",
        "port": port,
        "database": "shop",
        "user": "READER",
        "sslMode": "disable",
        "connectTimeoutS": 20,
    }
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="ORACLE",
        config={**standard, **config},
        secrets={"password": password},
        host_policy=policy or HostPolicy(),
    )
    return OracleSource(spec)


@contextmanager
def answering(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that answers the first message of each connection so, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.close()
                except OSError:
                    pass  # the client has left

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


def refusal(number: int) -> bytes:
    """A listener's packet REFUSE."""
    text = f"(DESCRIPTION=(ERR={number})(ERROR_STACK=(ERROR=(CODE={number})(EMFI=4))))".encode()
    body = bytes(2) + len(text).to_bytes(2, "big") + text
    size = (_HEADER_BYTES + len(body)).to_bytes(2, "big")
    return size + bytes(2) + bytes([_REFUSE]) + bytes(3) + body


# --- the driver itself ---


def test_a_closed_port_refuses():
    with pytest.raises(ConnectionRefusedByHostError) as caught:
        source_at(1).test()
    assert PASSWORD not in f"{caught.value!r} {caught.value.context}"


def test_a_name_that_is_not_known_is_said():
    with pytest.raises(DnsResolutionError):
        source_at(1521, host="no-such-host.invalid").test()


def test_a_host_that_the_operator_forbids_is_not_connected():
    with pytest.raises(HostNotAllowedError):
        source_at(1521, policy=HostPolicy(private_hosts=False)).test()


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (12514, DatabaseNotFoundError),  # no such service
        (12505, DatabaseNotFoundError),  # no such SID
        (12516, ConnectionRefusedByHostError),  # no handler that is free
    ],
)
def test_what_a_listener_refuses_has_its_code(number: int, error: type[SourceError]):
    with answering(refusal(number)) as port, pytest.raises(error, match=str(number)) as caught:
        source_at(port).test()
    assert type(caught.value) is error


def test_a_listener_that_says_nothing_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(SourceTimeoutError):
            source_at(silent.getsockname()[1], connectTimeoutS=1).test()
        connection, _ = silent.accept()
        connection.close()  # lets the driver's thread end


def test_a_server_of_another_protocol_is_an_error():
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with answering(answer) as port, pytest.raises(SourceUnavailableError):
        source_at(port).test()
    with answering(answer) as port, pytest.raises(TlsHandshakeError):
        source_at(port, sslMode="require").test()


def test_a_certificate_that_does_not_fit_is_refused(tmp_path: Path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    pair = authority.server("server")
    expired = authority.server("expired", after=-2 * DAY, until=-DAY)
    for presented, host, mode, trusted in (
        (pair, "127.0.0.1", "verify-full", authority),  # the certificate is for localhost
        (pair, "localhost", "verify-full", stranger),
        (pair, "localhost", "verify-ca", stranger),
        (expired, "localhost", "verify-full", authority),
    ):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(presented.certificate, presented.key)
        with answering(b"", context) as port, pytest.raises(TlsHandshakeError):
            source_at(port, host=host, sslMode=mode, sslRootCert=str(trusted.root)).test()


@pytest.mark.parametrize(
    ("host", "mode"),
    [("localhost", "verify-full"), ("127.0.0.1", "verify-ca"), ("127.0.0.1", "require")],
)
def test_a_trusted_certificate_is_accepted(tmp_path: Path, host: str, mode: str):
    """The next thing that the driver says is that nobody answers behind it."""
    authority = Authority(tmp_path)
    pair = authority.server("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with (
        answering(b"", context) as port,
        pytest.raises(SourceUnavailableError, match="closed the connection") as caught,
    ):
        source_at(port, host=host, sslMode=mode, sslRootCert=str(authority.root)).test()
    assert type(caught.value) is SourceUnavailableError


def test_trusted_certificates_that_cannot_be_read_are_said():
    with pytest.raises(TlsHandshakeError, match="/no/such/file"):
        source_at(1521, sslMode="verify-full", sslRootCert="/no/such/file").test()


@pytest.mark.parametrize(
    "config",
    [
        {"connectTimeoutS": 0},
        {"sslMode": "prefer"},
        {"surprise": 1},
        {"database": "shop)(HOST=evil.example"},
        {"user": ""},
    ],
)
def test_a_wrong_configuration_is_refused_before_connecting(config: dict[str, JsonValue]):
    with pytest.raises(ValidationError):
        source_at(1521, **config)


def test_tls_is_asked_for_unless_it_is_said_otherwise():
    config = OracleSource.config_model.from_json({"host": "h", "database": "d", "user": "u"})
    assert (config.port, config.ssl_mode) == (1521, "require")


# --- behind the login ---


@pytest.fixture(scope="module")
def server() -> Iterator[OracleServer]:
    with OracleServer({"READER": PASSWORD}) as server:
        server.create_table("SHOP", "HIDDEN", {"ID": "NUMBER(9,0)"}, key=("ID",))
        columns = {"ID": "NUMBER(9,0)", "NOTE": "VARCHAR2(1000)"}
        server.create_table("SHOP", "BIG", columns, key=("ID",))
        server.run('INSERT INTO "SHOP"."BIG" SELECT n, repeat(\'x\', 1000) FROM range(6000) t(n)')
        server.denied.add(("SHOP", "HIDDEN"))
        yield server


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracledb, "connect", oracle_driver.connect)


@pytest.mark.usefixtures("stand_in")
def test_the_right_password_is_accepted_and_a_wrong_one_is_not(server: OracleServer):
    assert source_at(server.port).test().server_version == "Oracle Database 23.4.0.24.5"
    with pytest.raises(AuthenticationFailedError) as caught:
        source_at(server.port, "a wrong password").test()
    assert "wrong password" not in f"{caught.value!r} {caught.value.context}"


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (28000, AuthenticationFailedError),  # locked
        (28001, AuthenticationFailedError),  # expired
        (1045, SourcePermissionError),  # lacks CREATE SESSION
        (1033, SourceUnavailableError),  # starting
        (12660, TlsHandshakeError),  # wants its own encryption
        (3113, SourceUnavailableError),  # which the driver calls DPY-4011
        (4031, SourceError),
    ],
)
def test_what_a_server_refuses_has_its_code(
    server: OracleServer, number: int, error: type[SourceError]
):
    server.refusal = (number, "as the server says it")
    try:
        with pytest.raises(error) as caught:
            source_at(server.port).test()
    finally:
        server.refusal = None
    assert type(caught.value) is error


def test_the_reason_of_a_failure_to_connect_is_shown():
    lines = "DPY-6005: cannot connect.\n[Errno 113] No route to host\nHelp: https://example.com"
    error = typed(oracledb.OperationalError(lines), "cannot connect to h:1")
    assert str(error).startswith("cannot connect to h:1: [Errno 113] No route to host")
    assert isinstance(error, ConnectionRefusedByHostError)


@pytest.mark.usefixtures("stand_in")
def test_a_session_reads_under_its_settings(server: OracleServer):
    server.settings.clear()
    source_at(server.port).test()
    assert "ALTER SESSION SET TIME_ZONE = 'UTC'" in server.settings
    assert "ALTER SESSION SET NLS_SORT = 'BINARY'" in server.settings


@pytest.mark.usefixtures("stand_in")
def test_a_table_that_may_not_be_read_is_said(server: OracleServer):
    source = source_at(server.port)
    unit = source.describe_unit(UnitId("SHOP.HIDDEN"))
    with pytest.raises(SourcePermissionError):
        source.plan_incremental_slices(unit, None, POLICY, 1000)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda server: server.drop_column("SHOP", "T", "A"), "'A' of SHOP.T is gone"),
        (
            lambda server: server.change_column("SHOP", "T", "A", "NUMBER(9,1)"),
            r"was NUMBER\(9,0\) when .* NUMBER\(9,1\) now",
        ),
        (
            lambda server: server.change_column("SHOP", "T", "B", "VARCHAR2(3)"),
            r"was VARCHAR2\(9\) when",
        ),
        (lambda server: server.drop_table("SHOP", "T"), "SHOP.T is gone"),
    ],
    ids=["dropped column", "other type", "shorter", "dropped table"],
)
def test_a_change_between_plan_and_read_is_said(server: OracleServer, change, message):
    server.drop_table("SHOP", "T")
    columns = {"ID": "NUMBER(9,0)", "A": "NUMBER(9,0)", "B": "VARCHAR2(9)"}
    server.create_table("SHOP", "T", columns, key=("ID",))
    server.run('INSERT INTO "SHOP"."T" VALUES (1, 2, \'x\')')
    source = source_at(server.port)
    unit = source.describe_unit(UnitId("SHOP.T"))
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 1000).slices
    change(server)
    with pytest.raises(SourceChangedError, match=message):
        list(source.read(unit, slice_, POLICY))
    source.close()


@pytest.mark.usefixtures("stand_in")
def test_a_connection_that_is_cut_while_reading_can_be_tried_again(
    server: OracleServer, monkeypatch: pytest.MonkeyPatch
):
    # small batches, so that much is still to be read after the first
    monkeypatch.setattr("matih_ray.sources.sql.row_pages.MAX_BATCH_ROWS", 1000)
    source = source_at(server.port)
    unit = source.describe_unit(UnitId("SHOP.BIG"))
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 100_000).slices
    batches = iter(source.read(unit, slice_, POLICY))
    next(batches)
    server.cut()
    with pytest.raises(SourceUnavailableError):
        list(batches)
    assert sum(batch.num_rows for batch in source.read(unit, slice_, POLICY)) == 6000
    source.close()
