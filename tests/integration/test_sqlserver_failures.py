"""What goes wrong between SQL Server's source and a server becomes a typed error."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from matih_ray.sources.sqlserver import SqlServerSource
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.sqlserver import SqlServer
from tests.integration.certificates import DAY, Authority

POLICY = IngestionPolicy()
PASSWORD = "hunter2 is secret"
NAME = "warehouse.matih.invalid"


@pytest.fixture(scope="module")
def server() -> Iterator[SqlServer]:
    with SqlServer({"reader": PASSWORD, "outsider": PASSWORD}) as server:
        server.create_table("dbo", "hidden", {"id": "int"}, key=("id",))
        server.create_table("dbo", "big", {"id": "int", "note": "nvarchar(1000)"}, key=("id",))
        server.run("INSERT INTO dbo.big SELECT n, repeat('x', 1000) FROM range(6000) t(n)")
        server.denied.add(("dbo", "hidden"))
        server.closed.add("outsider")
        yield server


def source_of(
    server: SqlServer,
    password: str = PASSWORD,
    policy: HostPolicy | None = None,
    **config: JsonValue,
) -> SqlServerSource:
    standard: dict[str, JsonValue] = {
        "host": server.host,
        "port": server.port,
        "database": server.database,
        "user": "reader",
        "sslMode": "disable",
    }
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="SQL_SERVER",
        config={**standard, **config},
        secrets={"password": password},
        host_policy=policy or HostPolicy(),
    )
    return SqlServerSource(spec)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"port": 1}, ConnectionRefusedByHostError),
        ({"host": "no-such-host.invalid"}, DnsResolutionError),
        ({"user": "absent"}, AuthenticationFailedError),
        ({"database": "absent"}, DatabaseNotFoundError),
        ({"user": "outsider"}, DatabaseNotFoundError),  # the server does not tell them apart
        ({"sslMode": "require"}, TlsHandshakeError),  # it has no certificate
        ({"sslMode": "verify-full"}, TlsHandshakeError),
    ],
)
def test_each_way_of_not_connecting_has_its_code(
    server: SqlServer, config: dict[str, JsonValue], error: type[SourceError]
):
    with pytest.raises(error) as caught:
        source_of(server, **config).test()
    assert type(caught.value) is error
    assert PASSWORD not in f"{caught.value!r} {caught.value.context}"


def test_a_wrong_password_is_an_authentication_failure(server: SqlServer):
    with pytest.raises(AuthenticationFailedError) as caught:
        source_of(server, "a wrong password").test()
    assert "wrong password" not in f"{caught.value!r} {caught.value.context}"


def test_the_right_password_is_accepted(server: SqlServer):
    found = source_of(server).test()
    assert found.server_version.startswith("Microsoft SQL Server")


def test_a_refusal_without_a_meaning_of_its_own_is_not_tried_again(server: SqlServer):
    server.refusal = (40613, "Database 'shop' is not currently available.")
    before = len(server.logins)
    try:
        with pytest.raises(SourceUnavailableError, match="not currently available"):
            source_of(server).test()
    finally:
        server.refusal = None
    assert len(server.logins) == before + 1


def test_a_server_that_does_not_answer_is_a_timeout(server: SqlServer):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", free_port()))
        silent.listen()
        source = source_of(server, port=silent.getsockname()[1], connectTimeoutS=1)
        with pytest.raises(SourceTimeoutError):
            source.test()


def test_a_server_of_another_protocol_is_said(server: SqlServer):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(SourceError, match="does not speak TDS"):
            source_of(server, port=other.getsockname()[1], connectTimeoutS=5).test()
        thread.join()


def test_a_host_that_the_operator_forbids_is_not_connected(server: SqlServer):
    with pytest.raises(HostNotAllowedError):
        source_of(server, policy=HostPolicy(private_hosts=False)).test()


def test_the_address_that_was_checked_is_connected(
    server: SqlServer, monkeypatch: pytest.MonkeyPatch
):
    asked = resolve_to_loopback(monkeypatch, NAME)
    assert source_of(server, host=NAME).test().latency_ms > 0
    assert asked == [NAME]


def resolve_to_loopback(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Make a name resolve once, and let it be known nowhere else; the names that were asked for."""
    real = socket.getaddrinfo
    asked: list[str] = []

    def find(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == name and name not in asked:
            asked.append(name)
            return real("127.0.0.1", *arguments, **options)
        return real(host, *arguments, **options)

    monkeypatch.setattr("matih_ray.sources.host_policy.socket.getaddrinfo", find)
    return asked


@pytest.mark.parametrize(
    "config",
    [{"port": 0}, {"sslMode": "off"}, {"surprise": 1}, {"host": "server\\instance"}, {"user": ""}],
)
def test_a_wrong_configuration_is_refused_before_connecting(
    server: SqlServer, config: dict[str, JsonValue]
):
    with pytest.raises(ValidationError):
        source_of(server, **config)


def test_tls_is_asked_for_unless_it_is_said_otherwise():
    config = SqlServerSource.config_model.from_json({"host": "h", "database": "d", "user": "u"})
    assert (config.port, config.ssl_mode) == (1433, "require")


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqlServer, Path, Path]]:
    """A server that takes encrypted connections only, who signed for it, and who did not."""
    directory = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(directory), Authority(directory, "stranger")
    pair = authority.server("server")
    with SqlServer({"reader": PASSWORD}, certificate=pair.certificate, key=pair.key) as server:
        yield server, authority.root, stranger.root


def test_a_trusted_certificate_is_accepted(encrypted: tuple[SqlServer, Path, Path]):
    server, root, _ = encrypted
    for host, mode in (("localhost", "verify-full"), ("127.0.0.1", "verify-ca")):
        source_of(server, host=host, sslMode=mode, sslRootCert=str(root)).test()
    for mode in ("prefer", "require"):
        source_of(server, sslMode=mode).test()


@pytest.mark.parametrize(
    ("host", "mode", "trusted"),
    [
        ("127.0.0.1", "verify-full", True),  # the certificate is for localhost
        ("localhost", "verify-full", False),
        ("localhost", "verify-ca", False),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused_before_the_password_is_sent(
    encrypted: tuple[SqlServer, Path, Path], host: str, mode: str, trusted: bool
):
    server, root, stranger = encrypted
    before = len(server.logins)
    trust = str(root if trusted else stranger)
    with pytest.raises(TlsHandshakeError) as caught:
        source_of(server, host=host, sslMode=mode, sslRootCert=trust).test()
    assert caught.value.context["verify_code"]
    assert len(server.logins) == before


def test_trusted_certificates_that_cannot_be_read_are_said(
    encrypted: tuple[SqlServer, Path, Path],
):
    server, _, _ = encrypted
    with pytest.raises(TlsHandshakeError, match="/no/such/file"):
        source_of(server, sslMode="verify-full", sslRootCert="/no/such/file").test()


def test_an_expired_certificate_is_refused(tmp_path: Path):
    authority = Authority(tmp_path)
    pair = authority.server("expired", after=-2 * DAY, until=-DAY)
    with SqlServer({"reader": PASSWORD}, certificate=pair.certificate, key=pair.key) as server:
        config = {"host": "localhost", "sslMode": "verify-full", "sslRootCert": str(authority.root)}
        with pytest.raises(TlsHandshakeError) as caught:
            source_of(server, **config).test()
    assert caught.value.context["verify_code"] == 10


def test_a_server_that_wants_tls_is_not_talked_to_without(
    encrypted: tuple[SqlServer, Path, Path],
):
    server, _, _ = encrypted
    with pytest.raises(TlsHandshakeError, match="encrypted connections only"):
        source_of(server, sslMode="disable").test()


def test_a_server_that_sends_us_on_is_followed(server: SqlServer):
    with SqlServer({"reader": PASSWORD}) as gateway:
        gateway.route = ("127.0.0.1", server.port)
        before = len(server.logins)
        source_of(gateway, database="shop").test()
        assert len(server.logins) == before + 1


def test_nobody_is_followed_in_circles_or_where_the_operator_forbids(server: SqlServer):
    with SqlServer({"reader": PASSWORD}) as gateway:
        gateway.route = ("127.0.0.1", gateway.port)
        with pytest.raises(SourceUnavailableError, match="sent us on 3 times"):
            source_of(gateway).test()
        gateway.route = ("169.254.169.254", 80)
        with pytest.raises(HostNotAllowedError):
            source_of(gateway).test()


def test_a_session_reads_under_its_settings(server: SqlServer):
    server.settings.clear()
    source_of(server, isolation="snapshot", lockTimeoutS=7, readOnlyIntent=True).test()
    assert "SET TRANSACTION ISOLATION LEVEL SNAPSHOT" in server.settings
    assert "SET LOCK_TIMEOUT 7000" in server.settings
    assert server.logins[-1].reads_only


def test_a_table_that_may_not_be_read_is_said(server: SqlServer):
    source = source_of(server)
    unit = source.describe_unit(UnitId("dbo.hidden"))
    with pytest.raises(SourcePermissionError, match="hidden"):
        source.plan_incremental_slices(unit, None, POLICY, 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda server: server.drop_column("dbo", "t", "a"), "'a' of dbo.t is gone"),
        (
            lambda server: server.change_column("dbo", "t", "a", "decimal(9,1)"),
            r"was int when .* decimal\(9,1\) now",
        ),
        (
            lambda server: server.change_column("dbo", "t", "b", "nvarchar(3)"),
            r"was nvarchar\(9\) when",
        ),
        (lambda server: server.drop_table("dbo", "t"), "dbo.t is gone"),
    ],
    ids=["dropped column", "other type", "shorter", "dropped table"],
)
def test_a_change_between_plan_and_read_is_said(server: SqlServer, change, message):
    server.drop_table("dbo", "t")
    server.create_table("dbo", "t", {"id": "int", "a": "int", "b": "nvarchar(9)"}, key=("id",))
    server.run("INSERT INTO dbo.t VALUES (1, 2, 'x')")
    source = source_of(server)
    unit = source.describe_unit(UnitId("dbo.t"))
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 1000).slices
    change(server)
    with pytest.raises(SourceChangedError, match=message):
        list(source.read(unit, slice_, POLICY))
    source.close()


def test_a_connection_that_is_cut_while_reading_can_be_tried_again(
    server: SqlServer, monkeypatch: pytest.MonkeyPatch
):
    # small batches, so that much is still to be sent after the first
    monkeypatch.setattr("matih_ray.sources.sql.row_pages.MAX_BATCH_ROWS", 1000)
    source = source_of(server)
    unit = source.describe_unit(UnitId("dbo.big"))
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 100_000).slices
    batches = iter(source.read(unit, slice_, POLICY))
    next(batches)
    server.cut()
    with pytest.raises(SourceUnavailableError):
        list(batches)
    assert sum(batch.num_rows for batch in source.read(unit, slice_, POLICY)) == 6000
    source.close()
