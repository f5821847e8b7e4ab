"""What Snowflake's values become, and what goes wrong becomes a typed error; on an emulator."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer

import pyarrow as pa
import pytest
import snowflake.connector

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    MatihError,
    SourceChangedError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.snowflake import SnowflakeSource
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.snowflake import SnowflakeServer

PASSWORD = "a password nobody may see"


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


def source_at(host: str, port: int, **fields: str) -> SnowflakeSource:
    config: Mapping[str, str | int] = {
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
            secrets={"password": PASSWORD},
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
        "MOMENT": "2024-01-31 01:02:03.123456000",
        "V": None,
    }
    assert json.loads(sparse.pop("V")) == {"a": [1]}
    assert set(sparse.values()) == {None}


def test_a_timestamp_may_be_cut_to_microseconds(server: SnowflakeServer):
    policy = IngestionPolicy(columns=("MOMENT",), encodings={"MOMENT": "timestamp"})
    with closing(source_at(server.host, server.port)) as source:
        found = read(source, "PUBLIC.TYPES", policy).column("MOMENT")
    assert found.type == pa.timestamp("us")
    moment = dt.datetime(2024, 1, 31, 1, 2, 3, 123456)  # noqa: DTZ001 it has no zone
    assert set(found.to_pylist()) == {moment, None}


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


class _Refusing(BaseHTTPRequestHandler):
    """Answers every login as the service does for a wrong password."""

    def do_POST(self) -> None:
        answer = {
            "data": {"nextAction": "RETRY_LOGIN"},
            "code": "390100",
            "message": "Incorrect username or password was specified.",
            "success": False,
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


def test_a_wrong_password_is_an_authentication_failure():
    with HTTPServer(("127.0.0.1", 0), _Refusing) as refusing:
        thread = threading.Thread(target=refusing.serve_forever)
        thread.start()
        try:
            with pytest.raises(AuthenticationFailedError) as caught:
                source_at("127.0.0.1", refusing.server_port).test()
        finally:
            refusing.shutdown()
            thread.join()
    assert PASSWORD not in str(caught.value)
