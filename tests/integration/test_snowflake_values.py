"""What Snowflake's values become, and what goes wrong becomes a typed error; on an emulator."""

from __future__ import annotations

import datetime as dt
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import snowflake.connector
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    MatihError,
    SourceChangedError,
    SourcePermissionError,
    SourceTimeoutError,
    TlsHandshakeError,
    UnrepresentableValueError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.snowflake import SnowflakeSource
from matih_ray.sources.snowflake.config import SnowflakeConfig
from matih_ray.sources.snowflake.decoding import decoded
from matih_ray.sources.snowflake.dialect import SnowflakeDialect
from matih_ray.sources.sql.bounds import texts_of
from matih_ray.sources.sql.dialect import BoundKind
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.snowflake import SnowflakeServer
from matih_ray.testing.devstack.snowflake_gate import SnowflakeGate
from matih_ray.testing.devstack.tls_gate import TlsGate
from tests.integration.certificates import Authority

PASSWORD = "a password nobody may see"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def server() -> Iterator[SnowflakeServer]:
    with SnowflakeServer() as server:
        execute(
            server,
            "CREATE TABLE types (n number(38,0), d number(20,5), f float, b boolean, t text, "
            "x binary, day date, clock time, moment timestamp_ntz, v variant)",
            "INSERT INTO types (n, d, f, b, t, x, day, clock, moment) SELECT "
            "9223372036854775807, -3.00001, 1.5, true, 'so''ñ', "
            "to_binary('00ff', 'hex'), '2024-01-31', '12:00:01', '2024-01-31 01:02:03.123456'",
            "INSERT INTO types (v) SELECT parse_json('{\"a\": [1]}')",
        )
        yield server


def execute(server: SnowflakeServer, *statements: str) -> None:
    with snowflake.connector.connect(
        account="shop",
        user="owner",
        password="any",
        host=server.host,
        port=server.port,
        protocol="http",
        database="SHOP",
        schema="PUBLIC",
    ) as connection:
        for statement in statements:
            connection.cursor().execute(statement)


def source_at(
    host: str, port: int, secrets: Mapping[str, str] | None = None, **fields: str | int | None
) -> SnowflakeSource:
    config: Mapping[str, str | int | None] = {
        "account": "shop",
        "user": "reader",
        "database": "SHOP",
        "host": host,
        "port": port,
        "protocol": "http",
        "connectTimeoutS": 5,
        **fields,
    }
    return SnowflakeSource(
        EndpointSpec(
            tenant_id=TenantId("tenant"),
            endpoint_id=EndpointId("endpoint"),
            name="test",
            type="SNOWFLAKE",
            config=dict(config),
            secrets={"password": PASSWORD} if secrets is None else secrets,
        )
    )


def read(source: SnowflakeSource, unit_id: str, policy: IngestionPolicy) -> pa.Table:
    unit = source.describe_unit(UnitId(unit_id))
    plan = source.plan_incremental_slices(unit, None, policy, 1000)
    schema = source.read_schema(unit, policy)
    batches = [batch for slice_ in plan.slices for batch in source.read(unit, slice_, policy)]
    return pa.Table.from_batches(batches, schema)


def test_every_value_is_exact_or_in_its_declared_encoding(server: SnowflakeServer):
    with closing(source_at(server.host, server.port)) as source:
        rows = read(source, "PUBLIC.TYPES", IngestionPolicy()).to_pylist()
    [full] = [row for row in rows if row["N"] is not None]
    [sparse] = [row for row in rows if row["N"] is None]
    assert full == {
        "N": Decimal(2**63 - 1),
        "D": Decimal("-3.00001"),
        "F": 1.5,
        "B": True,
        "T": "so'ñ",
        "X": b"\x00\xff",
        "DAY": dt.date(2024, 1, 31),
        "CLOCK": "12:00:01",
        "MOMENT": dt.datetime(2024, 1, 31, 1, 2, 3, 123456),  # noqa: DTZ001 it has no zone
        "V": None,
    }
    assert json.loads(sparse.pop("V")) == {"a": [1]}
    assert set(sparse.values()) == {None}


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("text", "2024-01-31 01:02:03.123456000"),
        ("timestamp", dt.datetime(2024, 1, 31, 1, 2, 3, 123456)),  # noqa: DTZ001 it has no zone
    ],
)
def test_a_timestamp_may_be_text_or_cut(server: SnowflakeServer, encoding: str, found: object):
    policy = IngestionPolicy(columns=("MOMENT",), encodings={"MOMENT": encoding})
    with closing(source_at(server.host, server.port)) as source:
        column = read(source, "PUBLIC.TYPES", policy).column("MOMENT")
    assert set(column.to_pylist()) == {found, None}


def test_a_moment_with_an_offset_orders_rows_and_may_arrive_in_utc(server: SnowflakeServer):
    execute(
        server,
        "CREATE TABLE moments (seen timestamp_tz)",
        "INSERT INTO moments SELECT '2024-01-31 01:02:03.123456+02:00'::timestamp_tz",
        "INSERT INTO moments SELECT '2024-01-30 23:30:00+00:00'::timestamp_tz",
    )
    policy = IngestionPolicy(cursor_column="SEEN", encodings={"SEEN": "timestamp"})
    with closing(source_at(server.host, server.port)) as source:
        unit = source.describe_unit(UnitId("PUBLIC.MOMENTS"))
        plan = source.plan_incremental_slices(unit, None, policy, 1)
        found = [
            row["SEEN"].isoformat()
            for slice_ in plan.slices
            for batch in source.read(unit, slice_, policy)
            for row in batch.to_pylist()
        ]
    assert len(plan.slices) == 2
    assert found == ["2024-01-30T23:02:03.123456+00:00", "2024-01-30T23:30:00+00:00"]


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_timestamp_that_would_lose_a_digit_is_an_error(zone: str | None):
    schema = pa.schema([("MOMENT", pa.timestamp("us", tz=zone))])
    fits = ["9999-12-31 23:59:59.999999000", "0001-01-01 00:00:00.000000000", None]
    [column] = decoded(pa.table([fits], names=["x"]), schema).columns
    assert column[0].value == 253402300799999999
    with pytest.raises(UnrepresentableValueError, match="MOMENT"):
        decoded(pa.table([["2024-01-31 01:02:03.123456789"]], names=["x"]), schema)


def test_bounds_of_slices_keep_all_digits_of_a_timestamp():
    mapping = SnowflakeDialect().mapping("TIMESTAMP_NTZ(9)")
    assert mapping.arrow == pa.timestamp("us")
    assert mapping.as_bound().arrow == pa.string()
    [text] = texts_of(BoundKind.TIMESTAMP, pa.array(["2024-01-31 01:02:03.123456789"]), "MOMENT")
    assert text == "2024-01-31 01:02:03.123456789"


def test_a_column_that_is_gone_is_a_changed_source(server: SnowflakeServer):
    execute(server, "CREATE TABLE shrinking (id int, note text)")
    with closing(source_at(server.host, server.port)) as source:
        unit = source.describe_unit(UnitId("PUBLIC.SHRINKING"))
        plan = source.plan_incremental_slices(unit, None, IngestionPolicy(), 1000)
        execute(server, "ALTER TABLE shrinking DROP COLUMN note")
        with pytest.raises(SourceChangedError, match="NOTE"):
            list(source.read(unit, plan.slices[0], IngestionPolicy()))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"database": "NOWHERE"}, DatabaseNotFoundError),
        ({"host": "nowhere.invalid"}, DnsResolutionError),
    ],
)
def test_what_is_not_there_is_named(
    server: SnowflakeServer, fields: dict[str, str], kind: type[MatihError]
):
    host = fields.pop("host", server.host)
    with pytest.raises(kind):
        source_at(host, server.port, **fields).test()


def test_a_closed_port_refuses():
    with pytest.raises(ConnectionRefusedByHostError):
        source_at("127.0.0.1", free_port()).test()


def test_an_account_cannot_name_another_host():
    with pytest.raises(ValidationError):
        source_at("127.0.0.1", 1, account="evil.example/#")


@pytest.fixture(scope="module")
def gate(server: SnowflakeServer) -> Iterator[SnowflakeGate]:
    execute(server, "CREATE TABLE hidden (id int)")
    with SnowflakeGate(f"http://{server.host}:{server.port}") as gate:
        gate.passwords["READER"] = PASSWORD
        gate.keys["READER"] = KEY.public_key()
        gate.roles.add("ANALYST")
        gate.forbidden.add("HIDDEN")
        yield gate


def pem(key: rsa.RSAPrivateKey, passphrase: bytes | None = None) -> str:
    locked = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode()


def refused(source: SnowflakeSource, kind: type[MatihError]) -> MatihError:
    with closing(source), pytest.raises(kind) as caught:
        source.test()
    assert caught.type is kind
    assert PASSWORD not in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)
    return caught.value


def test_passwords_are_told_from_roles(gate: SnowflakeGate):
    with closing(source_at("127.0.0.1", gate.port, role="analyst")) as reader:
        assert reader.test().server_version.startswith("Snowflake")
    wrong = {"password": "another"}
    refused(source_at("127.0.0.1", gate.port, wrong), AuthenticationFailedError)
    refused(source_at("127.0.0.1", gate.port, {}), AuthenticationFailedError)
    error = refused(source_at("127.0.0.1", gate.port, role="owner"), SourcePermissionError)
    assert "OWNER" in str(error)


def test_a_key_pair_logs_in_and_another_key_does_not(gate: SnowflakeGate):
    locked = {"privateKey": pem(KEY, b"sesame"), "privateKeyPassphrase": "sesame"}
    for secrets in ({"privateKey": pem(KEY)}, locked):
        with closing(source_at("127.0.0.1", gate.port, secrets)) as reader:
            reader.test()
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused(
        source_at("127.0.0.1", gate.port, {"privateKey": pem(other)}), AuthenticationFailedError
    )
    for unusable in ({"privateKey": "no key"}, {**locked, "privateKeyPassphrase": "wrong"}):
        refused(source_at("127.0.0.1", gate.port, unusable), AuthenticationFailedError)
    with pytest.raises(ValidationError):
        source_at("127.0.0.1", gate.port, {"password": PASSWORD, "privateKey": pem(KEY)})


def test_a_table_without_a_right_is_denied(gate: SnowflakeGate):
    with closing(source_at("127.0.0.1", gate.port)) as source:
        unit = source.describe_unit(UnitId("PUBLIC.HIDDEN"))
        plan = source.plan_incremental_slices(unit, None, IngestionPolicy(), 1000)
        with pytest.raises(SourcePermissionError, match="HIDDEN"):
            list(source.read(unit, plan.slices[0], IngestionPolicy()))


def test_a_server_that_says_nothing_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        source = source_at("127.0.0.1", port, connectTimeoutS=1, readTimeoutS=1)
        refused(source, SourceTimeoutError)


def test_certificate_and_name_are_verified(
    gate: SnowflakeGate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    authority = Authority(tmp_path)
    pair = authority.server("server")
    tls = {"protocol": None, "sslMode": "verify-full"}
    with TlsGate(gate.port, pair.certificate, pair.key) as front:
        refused(source_at("localhost", front.port, **tls), TlsHandshakeError)
        # the driver takes further authorities from the operator's environment alone
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.root))
        with closing(source_at("localhost", front.port, **tls)) as trusted:
            trusted.test()
        refused(source_at("127.0.0.1", front.port, **tls), TlsHandshakeError)
    # a server that speaks no TLS
    refused(source_at("127.0.0.1", gate.port, **tls), TlsHandshakeError)


@pytest.mark.parametrize(
    ("protocol", "mode", "scheme"),
    [
        (None, None, "https"),
        (None, "verify-full", "https"),
        (None, "disable", "http"),
        ("http", None, "http"),
    ],
)
def test_a_tls_mode_is_kept(protocol: str | None, mode: str | None, scheme: str):
    config = {"account": "a", "user": "u", "database": "d", "protocol": protocol, "sslMode": mode}
    assert SnowflakeConfig.from_json(config).scheme == scheme


@pytest.mark.parametrize(
    ("protocol", "mode"),
    [(None, "require"), (None, "verify-ca"), (None, "prefer"), ("http", "verify-full")],
)
def test_a_tls_mode_that_would_not_be_kept_is_refused(protocol: str | None, mode: str):
    with pytest.raises(ValidationError):
        source_at("127.0.0.1", 1, protocol=protocol, sslMode=mode)
