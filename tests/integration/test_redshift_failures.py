"""What goes wrong between Redshift's source and a server becomes a typed error."""

from __future__ import annotations

import socket
from collections.abc import Iterator
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
from matih_ray.sources.base import EndpointSpec, IngestionContext
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.redshift import RedshiftSource
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.postgres import PostgresServer

POLICY = IngestionPolicy()
PASSWORD = "hunter2 is secret"
NAME = "warehouse.matih.invalid"
HBA = """
host all secure 127.0.0.1/32 scram-sha-256
host all all    127.0.0.1/32 trust
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(hba=HBA) as server:
        server.execute(
            f"CREATE ROLE secure LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE reader LOGIN;"
            "CREATE TABLE big (id int PRIMARY KEY, note text);"
            "INSERT INTO big SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) n;"
            "CREATE TABLE hidden (id int PRIMARY KEY); GRANT INSERT ON hidden TO reader;"
            "GRANT SELECT ON big TO reader"
        )
        server.create_database("closed")
        server.execute("REVOKE CONNECT ON DATABASE closed FROM public")
        yield server


def source_of(
    server: PostgresServer,
    password: str | None = None,
    policy: HostPolicy | None = None,
    **config: JsonValue,
) -> RedshiftSource:
    standard = {"host": server.host, "port": server.port, "database": "postgres"}
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="REDSHIFT",
        config={**standard, "user": "postgres", "sslMode": "disable", **config},
        secrets={} if password is None else {"password": password},
        host_policy=policy or HostPolicy(),
    )
    return RedshiftSource(spec)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"port": 1}, ConnectionRefusedByHostError),
        ({"host": "no-such-host.invalid"}, DnsResolutionError),
        ({"user": "secure"}, AuthenticationFailedError),
        ({"user": "absent"}, AuthenticationFailedError),
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


def test_a_server_that_does_not_answer_is_a_timeout(server: PostgresServer) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", free_port()))
        silent.listen()
        source = source_of(server, port=silent.getsockname()[1], connectTimeoutS=2)
        with pytest.raises(SourceTimeoutError):
            source.test()


def test_a_host_that_the_operator_forbids_is_not_connected(server: PostgresServer) -> None:
    with pytest.raises(HostNotAllowedError):
        source_of(server, policy=HostPolicy(private_hosts=False)).test()


def test_the_address_that_was_checked_is_connected(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's resolver finds the name; libpq would not."""
    real = socket.getaddrinfo

    def find(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == NAME else host, *arguments, **options)

    monkeypatch.setattr("matih_ray.sources.host_policy.socket.getaddrinfo", find)
    assert source_of(server, host=NAME).test().latency_ms > 0


@pytest.mark.parametrize(
    "config", [{"port": 0}, {"port": "x"}, {"sslMode": "off"}, {"surprise": 1}, {"host": ""}]
)
def test_a_wrong_configuration_is_refused_before_connecting(
    server: PostgresServer, config: dict[str, JsonValue]
) -> None:
    with pytest.raises(ValidationError):
        source_of(server, **config)


def test_redshift_is_expected_at_its_port_with_tls() -> None:
    config = RedshiftSource.config_model.from_json({"host": "h", "database": "d", "user": "u"})
    assert (config.port, config.ssl_mode) == (5439, "require")


def test_a_table_that_may_not_be_read_is_said(server: PostgresServer) -> None:
    source = source_of(server, user="reader")
    unit = source.describe_unit(UnitId("public.hidden"))
    with pytest.raises(SourcePermissionError, match="hidden"):
        source.plan_incremental_slices(unit, None, POLICY, 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER TABLE t DROP a", "'a' of public.t is gone"),
        ("ALTER TABLE t RENAME a TO c", "'a' of public.t is gone"),
        ("ALTER TABLE t ALTER a TYPE numeric(9,1)", "was integer when .* numeric\\(9,1\\) now"),
        ("ALTER TABLE t ALTER b TYPE varchar(3)", "was character varying\\(9\\) when"),
        ("DROP TABLE t", "public.t is gone"),
    ],
)
def test_a_change_between_plan_and_read_is_said(server: PostgresServer, change, message) -> None:
    server.execute(
        "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, a int, b varchar(9));"
        "INSERT INTO t VALUES (1, 2, 'x')"
    )
    source = source_of(server)
    unit = source.describe_unit(UnitId("public.t"))
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 1000).slices
    server.execute(change)
    with pytest.raises(SourceChangedError, match=message):
        list(source.read(unit, slice_, POLICY))
    source.close()


def test_awkward_names_are_read(server: PostgresServer) -> None:
    schema, table = "Sales 2024", "line'items\\.%s {0}"
    server.execute(
        f'CREATE SCHEMA "{schema}"; CREATE TABLE "{schema}"."{table}" ("Ö ""%s"" {{}}" int);'
        f'INSERT INTO "{schema}"."{table}" VALUES (7)'
    )
    source = source_of(server)
    units = source.list_units(IngestionContext(TenantId("tenant"), pattern='"Sales*'))
    (unit,) = units
    assert unit.unit_id == f'"{schema}"."{table}"'
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 10).slices
    (batch,) = source.read(unit, slice_, POLICY)
    assert batch.to_pylist() == [{'Ö "%s" {}': 7}]
    source.close()


def test_a_connection_that_is_cut_while_reading_can_be_tried_again(server: PostgresServer) -> None:
    source = source_of(server, user="reader")
    unit = source.describe_unit(UnitId("public.big"))
    (slice_,) = source.plan_incremental_slices(unit, None, POLICY, 100_000).slices
    batches = iter(source.read(unit, slice_, POLICY))
    next(batches)
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename='reader'")
    with pytest.raises(SourceUnavailableError):
        list(batches)
    assert sum(batch.num_rows for batch in source.read(unit, slice_, POLICY)) == 60_000
    source.close()
