"""What goes wrong between Databricks' source and a warehouse becomes a typed error."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    HostNotAllowedError,
    MatihError,
    SourceChangedError,
    SourcePermissionError,
    SourceRejectedError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.ids import TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.sources import guarded_names
from matih_ray.sources.base import IngestionContext
from matih_ray.sources.databricks import DatabricksSource
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.testing.devstack.databricks import (
    HTTP_PATH,
    REAL_TIME_PATH,
    TOKEN_PATH,
    DatabricksServer,
)
from tests.integration.certificates import DAY, Authority, Pair
from tests.integration.databricks_lab import TOKEN, read, source_of

POLICY = IngestionPolicy()
NAME = "warehouse.changes-its-mind"
CLIENT, SECRET = "11111111-2222-3333-4444-555555555555", "dose-nobody-may-see"
LOGINS = ({"token": TOKEN}, {"clientSecret": SECRET})
FORBIDDEN = "a-token-without-rights"


@pytest.fixture(scope="module")
def server() -> Iterator[DatabricksServer]:
    with DatabricksServer(TOKEN, FORBIDDEN, clients={CLIENT: SECRET}) as server:
        server.forbidden.add(FORBIDDEN)
        server.closed.add("vault")
        server.create_table("public", "items", {"id": "bigint", "note": "string"}, ("id",))
        server.run("INSERT INTO public.items SELECT n, repeat('x', 1000) FROM range(40000) t(n)")
        server.create_table("public", "hidden", {"id": "int"})
        server.denied.add(("public", "hidden"))
        yield server


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"port": 1}, ConnectionRefusedByHostError, "refused"),
        ({"host": "nowhere.invalid"}, DnsResolutionError, "nowhere.invalid"),
        ({"database": "nowhere"}, DatabaseNotFoundError, "'nowhere'"),
        ({"database": "vault"}, SourcePermissionError, "USE CATALOG"),
        ({"httpPath": "/sql/1.0/warehouses/none"}, DatabaseNotFoundError, "httpPath"),
        ({"httpPath": REAL_TIME_PATH}, SourceRejectedError, "Thrift"),
    ],
)
def test_what_is_wrong_with_a_connector_is_said(
    server: DatabricksServer, config: dict[str, Any], error: type[MatihError], says: str
):
    with closing(source_of(server, **config)) as source, pytest.raises(error, match=says) as caught:
        source.test()
    assert TOKEN not in repr(caught.value) + str(caught.value.context)


@pytest.mark.parametrize(
    ("secrets", "config", "error"),
    [
        ({"token": "wrong-token"}, {}, AuthenticationFailedError),
        ({"token": FORBIDDEN}, {}, SourcePermissionError),
        ({"clientSecret": "wrong-secret"}, {"clientId": CLIENT}, AuthenticationFailedError),
        ({"clientSecret": SECRET}, {}, ValidationError),
        ({"token": "two\nlines"}, {}, ValidationError),
        ({}, {}, ValidationError),
    ],
)
def test_a_login_that_fails_is_said_without_its_secret(
    server: DatabricksServer, secrets: dict[str, str], config: Any, error: type[MatihError]
):
    source = source_of(server, secrets=secrets, **config)
    with closing(source), pytest.raises(error) as caught:
        source.test()
    shown = repr(caught.value) + str(caught.value.context)
    assert not [secret for secret in secrets.values() if secret in shown]


def test_a_service_principal_logs_in_with_its_secret(server: DatabricksServer):
    before = len(server.tokens)
    with closing(source_of(server, secrets={"clientSecret": SECRET}, clientId=CLIENT)) as source:
        assert source.test().server_version
        assert read(source, "public.items", rows=20_000).num_rows == 40_000
    assert len(server.tokens) == before + 2, "one for each session, and not for each request"
    assert TOKEN_PATH in server.paths


def test_nothing_is_sent_but_statements_and_logins(server: DatabricksServer):
    server.paths.clear()
    with closing(source_of(server)) as source:
        source.test()
        read(source, "public.items", rows=50_000)
    assert set(server.paths) == {HTTP_PATH}


def test_a_server_that_does_not_answer_is_a_timeout(server: DatabricksServer):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = int(silent.getsockname()[1])
        for config in ({"readTimeoutS": 1}, {"sslMode": "verify-full", "connectTimeoutS": 1}):
            with pytest.raises(SourceTimeoutError):
                source_of(server, port=port, **config).test()


@pytest.mark.parametrize(("busy", "cold"), [(1, 0), (0, 1)], ids=["503", "a cold session"])
def test_a_warehouse_that_is_starting_is_waited_for(server: DatabricksServer, busy: int, cold: int):
    server.busy, server.cold = busy, cold
    with closing(source_of(server)) as source:
        assert source.test().server_version
    assert (server.busy, server.cold) == (0, 0)
    assert not server.sessions


def test_a_warehouse_that_does_not_start_in_time_is_unavailable(server: DatabricksServer):
    server.busy = 1
    try:
        with pytest.raises(SourceUnavailableError, match="starting"):
            source_of(server, startTimeoutS=0).test()
    finally:
        server.busy = 0


def test_long_statements_are_waited_for(server: DatabricksServer):
    server.polls = 3
    try:
        with closing(source_of(server)) as source:
            assert read(source, "public.items", rows=50_000).num_rows == 40_000
    finally:
        server.polls = 0


def test_a_warehouse_that_restarts_while_it_is_read_can_be_tried_again(server: DatabricksServer):
    with closing(source_of(server)) as source:
        unit = source.describe_unit(UnitId("public.items"))
        [slice_] = source.plan_incremental_slices(unit, None, POLICY, 50_000).slices
        batches = iter(source.read(unit, slice_, POLICY))
        next(batches)
        server.end_sessions()
        with pytest.raises(SourceUnavailableError):
            list(batches)
        assert sum(batch.num_rows for batch in source.read(unit, slice_, POLICY)) == 40_000


def test_an_idle_session_that_has_ended_can_be_tried_again(server: DatabricksServer):
    with closing(source_of(server)) as source:
        source.describe_unit(UnitId("public.items"))
        server.end_sessions()
        with pytest.raises(SourceUnavailableError, match="SessionHandle"):
            source.describe_unit(UnitId("public.items"))
        assert source.describe_unit(UnitId("public.items"))


def test_an_answer_that_is_lost_is_never_skipped(server: DatabricksServer):
    """The client asks again and gets the rows after those that it did not get."""
    with closing(source_of(server)) as source:
        unit = source.describe_unit(UnitId("public.items"))
        [slice_] = source.plan_incremental_slices(unit, None, POLICY, 50_000).slices
        batches = iter(source.read(unit, slice_, POLICY))
        next(batches)
        server.lost = 1
        with pytest.raises(SourceUnavailableError):
            list(batches)


def test_a_host_that_the_operator_does_not_allow_is_never_called(server: DatabricksServer):
    server.paths.clear()
    policy = HostPolicy(private_hosts=False)
    for secrets in LOGINS:
        with pytest.raises(HostNotAllowedError):
            source_of(server, policy, secrets, clientId=CLIENT).test()
    assert server.paths == []


@pytest.mark.parametrize(
    ("later", "error"),
    [("127.0.0.2", HostNotAllowedError), ("nowhere.invalid", DnsResolutionError)],
)
def test_a_name_that_changes_its_mind_gains_nothing(
    server: DatabricksServer, monkeypatch: pytest.MonkeyPatch, later: str, error: type[MatihError]
):
    """It is allowed when it is checked, and not any more when the client looks it up again."""
    real, answers = guarded_names._resolve, iter(["127.0.0.1"])

    def find(host: Any, *arguments: Any, **options: Any) -> Any:
        return real(next(answers, later) if host == NAME else host, *arguments, **options)

    monkeypatch.setattr(guarded_names, "_resolve", find)
    policy = HostPolicy(denied_networks=(ipaddress.ip_network("127.0.0.2/32"),))
    server.paths.clear()
    source = guarded_names.guarded(source_of(server, policy, host=NAME), policy)
    with closing(source), pytest.raises(error):
        source.test()
    assert server.paths == []


@pytest.mark.parametrize(
    "config",
    [
        {"host": "evil.example/sql"},
        {"host": "user@evil.example"},
        {"host": "evil.example:1"},
        {"host": ""},
        {"httpPath": "/sql?x=1"},
        {"httpPath": "@evil.example/"},
        {"httpPath": "/sql#x"},
        {"httpPath": "/sql\r\nX: y"},
        {"sslMode": "require"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused_before_connecting(
    server: DatabricksServer, config: dict[str, Any]
):
    with pytest.raises(ValidationError):
        source_of(server, **config)


def test_tables_that_may_not_be_read_are_said(server: DatabricksServer):
    with closing(source_of(server)) as source:
        with pytest.raises(SourcePermissionError, match="SELECT on table `hidden`"):
            read(source, "public.hidden")
        assert read(source, "public.items", rows=50_000).num_rows == 40_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda server: server.drop_column("public", "moving", "note"), "'note' .* is gone"),
        (
            lambda server: server.change_column("public", "moving", "note", "binary"),
            "was string .* is binary now",
        ),
        (lambda server: server.drop_table("public", "moving"), "public.moving is gone"),
    ],
    ids=["dropped column", "changed column", "dropped table"],
)
def test_a_change_between_plan_and_read_is_said(
    server: DatabricksServer, change: Callable[[DatabricksServer], None], says: str
):
    server.drop_table("public", "moving")
    server.create_table("public", "moving", {"id": "int", "note": "string"})
    server.run("INSERT INTO public.moving VALUES (1, 'x')")
    with closing(source_of(server)) as source:
        unit = source.describe_unit(UnitId("public.moving"))
        [slice_] = source.plan_incremental_slices(unit, None, POLICY, 1000).slices
        change(server)
        with pytest.raises(SourceChangedError, match=says):
            list(source.read(unit, slice_, POLICY))


@pytest.mark.parametrize(
    "statement", ["SELECT `gone` FROM `shop`.`public`.`items`", "SELECT 1 FROM `shop`.`x`.`gone`"]
)
def test_what_is_gone_when_a_statement_runs_is_a_changed_source(
    server: DatabricksServer, statement: str
):
    schema = pa.schema([("x", pa.int32())])
    with (
        closing(source_of(server).open_session()) as session,
        pytest.raises(SourceChangedError, match="gone"),
    ):
        list(session.batches(statement, schema))


def test_only_the_named_schema_is_listed(server: DatabricksServer):
    server.create_table("other", "items", {"id": "int"})
    with closing(source_of(server, schema="other")) as source:
        found = source.list_units(IngestionContext(TenantId("tenant"), None, 0, 10))
    assert [unit.unit_id for unit in found] == ["other.items"]


@pytest.mark.parametrize(
    "secrets", [{"token": TOKEN}, {"clientSecret": SECRET}], ids=["token", "service principal"]
)
def test_a_trusted_certificate_is_accepted(tmp_path: Path, secrets: dict[str, str]):
    authority = Authority(tmp_path)
    with (
        _encrypted(authority.server("right")) as server,
        closing(_verifying(server, authority, secrets)) as source,
    ):
        assert source.test().server_version
        assert read(source, "public.items").num_rows == 1


@pytest.mark.parametrize(
    "secrets", [{"token": TOKEN}, {"clientSecret": SECRET}], ids=["token", "service principal"]
)
def test_a_file_without_certificates_is_said(server: DatabricksServer, secrets: dict[str, str]):
    for path in ("/no/such/file", __file__):
        with pytest.raises(ConfigurationError, match="PEM"):
            source_of(
                server, None, secrets, clientId=CLIENT, sslMode="verify-full", sslRootCert=path
            ).test()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"host": "elsewhere.example"}, "mismatch"),
        ({"after": -2 * DAY, "until": -DAY}, "expired"),
    ],
    ids=["another host", "expired"],
)
def test_a_wrong_certificate_is_refused(tmp_path: Path, wrong: Any, says: str):
    authority = Authority(tmp_path)
    with _encrypted(authority.server("wrong", **wrong)) as server:
        with pytest.raises(TlsHandshakeError, match=says):
            _verifying(server, authority).test()
        assert server.paths == []


def test_a_strangers_certificate_is_refused(tmp_path: Path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    with _encrypted(stranger.server("strange")) as server:
        with pytest.raises(TlsHandshakeError):
            _verifying(server, authority).test()
        with pytest.raises(TlsHandshakeError):
            source_of(server, host="localhost", sslMode="verify-full").test()
        assert server.paths == []


@pytest.mark.parametrize("problem", ["stranger", "another host"])
def test_the_client_verifies_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
):
    """And does not rely on the look at the host that comes before it."""
    monkeypatch.setattr("matih_ray.sources.databricks.session._knock", lambda *_: None)
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    pair = (
        stranger.server("strange")
        if problem == "stranger"
        else authority.server("named", "elsewhere.example")
    )
    with _encrypted(pair) as server:
        with pytest.raises(TlsHandshakeError):
            _verifying(server, authority).test()
        assert server.paths == []


def test_a_server_that_goes_after_it_was_seen_is_said(
    server: DatabricksServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("matih_ray.sources.databricks.session._knock", lambda *_: None)
    with pytest.raises(ConnectionRefusedByHostError):
        source_of(server, port=1).test()


def test_a_server_without_tls_is_refused(server: DatabricksServer):
    with pytest.raises(TlsHandshakeError):
        source_of(server, host="localhost", sslMode="verify-full").test()


def _encrypted(pair: Pair) -> DatabricksServer:
    server = DatabricksServer(
        TOKEN, clients={CLIENT: SECRET}, certificate=pair.certificate, key=pair.key
    )
    server.create_table("public", "items", {"id": "int"})
    server.run("INSERT INTO public.items VALUES (1)")
    return server


def _verifying(
    server: DatabricksServer, authority: Authority, secrets: dict[str, str] | None = None
) -> DatabricksSource:
    return source_of(
        server,
        secrets=secrets,
        host="localhost",
        clientId=CLIENT,
        sslMode="verify-full",
        sslRootCert=str(authority.root),
    )
