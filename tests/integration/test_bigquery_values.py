"""What BigQuery's values become, and what goes wrong becomes a typed error; on an emulator."""

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
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery import SchemaField

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    HostNotAllowedError,
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
from matih_ray.sources.bigquery import BigQuerySource
from matih_ray.sources.bigquery.session import PAGE_ROWS
from matih_ray.testing.devstack.bigquery import BigQueryServer
from matih_ray.testing.devstack.google_gate import GoogleGate
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.tls_gate import TlsGate
from tests.integration.certificates import Authority

TOKEN = "a token nobody may see"
MOMENT = dt.datetime(2024, 1, 31, 1, 2, 3, 123456)  # noqa: DTZ001 it has no zone
PARTS = [
    SchemaField("k", "STRING"),
    SchemaField("v", "NUMERIC"),
    SchemaField("moment", "TIMESTAMP"),
    SchemaField("deep", "INTEGER", "REPEATED"),
]
PARTS_SQL = (
    "[STRUCT('k' AS k, NUMERIC '1.5' AS v, TIMESTAMP '2024-01-31 01:02:03.123456+00' AS moment, "
    "[4, 5] AS deep)]"
)
# column, SQL of a value, what it becomes
VALUES = [
    (SchemaField("n", "INTEGER"), "-9223372036854775807", -(2**63) + 1),
    (SchemaField("d", "NUMERIC"), "NUMERIC '-12345678901234567890123456789.123456789'",
     Decimal("-12345678901234567890123456789.123456789")),
    (SchemaField("f", "FLOAT"), "0.1", 0.1),
    (SchemaField("inf", "FLOAT"), "CAST('-inf' AS FLOAT64)", float("-inf")),
    (SchemaField("b", "BOOLEAN"), "false", False),
    (SchemaField("s", "STRING"), "'so\\'ñ \\\\ 🦆'", "so'ñ \\ 🦆"),
    (SchemaField("empty", "STRING"), "''", ""),
    (SchemaField("x", "BYTES"), "FROM_BASE64('AP8=')", b"\x00\xff"),
    (SchemaField("day", "DATE"), "DATE '0001-01-01'", dt.date(1, 1, 1)),
    (SchemaField("clock", "TIME"), "TIME '23:59:59.999999'", dt.time(23, 59, 59, 999999)),
    (SchemaField("dt", "DATETIME"), "DATETIME '2024-01-31 01:02:03.123456'", MOMENT),
    (SchemaField("ts", "TIMESTAMP"), "TIMESTAMP '2024-01-31 03:02:03.123456+02'",
     MOMENT.replace(tzinfo=dt.timezone.utc)),
    (SchemaField("g", "GEOGRAPHY"), "ST_GEOGPOINT(1, 2)", "POINT (1 2)"),
    (SchemaField("iv", "INTERVAL"), "INTERVAL '1-2 3 4:5:6' YEAR TO SECOND", "1-2 3 4:5:6"),
    (SchemaField("j", "JSON"), "JSON '{\"a\": [9007199254740993]}'", '{"a":[9007199254740993]}'),
    (SchemaField("many", "INTEGER", "REPEATED"), "[3, 1, 2]", [3, 1, 2]),
    (SchemaField("parts", "RECORD", "REPEATED", fields=PARTS), PARTS_SQL,
     [{"k": "k", "v": Decimal("1.5"), "moment": MOMENT.replace(tzinfo=dt.timezone.utc),
       "deep": [4, 5]}]),
]  # fmt: skip


def client_of(server: BigQueryServer) -> bigquery.Client:
    url = f"http://{server.host}:{server.port}"
    return bigquery.Client(
        project="shop",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )


def execute(server: BigQueryServer, *statements: str) -> None:
    with closing(client_of(server)) as client:
        for statement in statements:
            client.query_and_wait(statement, retry=None, job_retry=None)


def create(server: BigQueryServer, name: str, *fields: SchemaField) -> None:
    with closing(client_of(server)) as client:
        table = bigquery.Table(f"shop.sales.{name}", schema=fields)
        client.create_table(table, retry=None, timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[BigQueryServer]:
    with BigQueryServer() as server:
        execute(server, "CREATE SCHEMA sales")
        yield server


@pytest.fixture(scope="module")
def gate(server: BigQueryServer) -> Iterator[GoogleGate]:
    with GoogleGate(f"http://{server.host}:{server.port}") as gate:
        gate.readers.add(TOKEN)
        yield gate


def source_at(
    url: str, secrets: Mapping[str, str] | None = None, **fields: str | int
) -> BigQuerySource:
    config = {"projectId": "shop", "dataset": "sales", "endpointOverride": url}
    return BigQuerySource(
        EndpointSpec(
            tenant_id=TenantId("tenant"),
            endpoint_id=EndpointId("endpoint"),
            name="test",
            type="BIGQUERY",
            config={**config, "connectTimeoutS": 5, **fields},
            secrets={"accessToken": TOKEN} if secrets is None else secrets,
        )
    )


def url_of(server: BigQueryServer) -> str:
    return f"http://{server.host}:{server.port}"


def read(source: BigQuerySource, unit_id: str, policy: IngestionPolicy) -> pa.Table:
    unit = source.describe_unit(UnitId(unit_id))
    plan = source.plan_incremental_slices(unit, None, policy, 1000)
    schema = source.read_schema(unit, policy)
    batches = [batch for slice_ in plan.slices for batch in source.read(unit, slice_, policy)]
    return pa.Table.from_batches(batches, schema)


def refused(source: BigQuerySource, kind: type[MatihError]) -> MatihError:
    with closing(source), pytest.raises(kind) as caught:
        source.test()
    assert caught.type is kind
    assert TOKEN not in str(caught.value)
    return caught.value


def test_every_value_is_exact_or_in_its_declared_encoding(server: BigQueryServer):
    create(server, "types", SchemaField("id", "INTEGER"), *[field for field, _, _ in VALUES])
    for number, (field, sql, _) in enumerate(VALUES):
        execute(server, f"INSERT INTO sales.types (id, {field.name}) VALUES ({number}, {sql})")
    with closing(source_at(url_of(server))) as source:
        rows = read(source, "sales.types", IngestionPolicy()).to_pylist()
    # BigQuery stores a missing array as an empty one
    nothing = {f.name: [] if f.mode == "REPEATED" else None for f, _, _ in VALUES}
    assert sorted(rows, key=lambda row: row["id"]) == [
        {"id": number, **nothing, field.name: value}
        for number, (field, _, value) in enumerate(VALUES)
    ]


def test_nested_columns_may_arrive_as_json_text(server: BigQueryServer):
    create(server, "nested", SchemaField("parts", "RECORD", "REPEATED", fields=PARTS[:1]))
    execute(server, "INSERT INTO sales.nested (parts) VALUES ([STRUCT('x' AS k)])")
    policy = IngestionPolicy(encodings={"parts": "text"})
    with closing(source_at(url_of(server))) as source:
        [found] = read(source, "sales.nested", policy).column("parts").to_pylist()
    assert json.loads(found) == [{"k": "x"}]


def test_partitioned_tables_and_views_are_read(server: BigQueryServer):
    table = bigquery.Table(
        "shop.sales.days", schema=[SchemaField("day", "DATE"), SchemaField("n", "INTEGER")]
    )
    table.time_partitioning = bigquery.TimePartitioning(field="day")
    with closing(client_of(server)) as client:
        client.create_table(table, retry=None, timeout=30)
    execute(
        server,
        "INSERT INTO sales.days VALUES (DATE '2024-01-01', 1), (DATE '2024-01-02', 2)",
        "CREATE VIEW sales.later AS SELECT n AS number FROM sales.days WHERE n > 1",
    )
    with closing(source_at(url_of(server))) as source:
        assert source.describe_unit(UnitId("sales.later")).kind == "view"
        assert read(source, "sales.later", IngestionPolicy()).to_pylist() == [{"number": 2}]
        by_day = IngestionPolicy(cursor_column="day")
        days = read(source, "sales.days", by_day).column("n").to_pylist()
    assert sorted(days) == [1, 2]


def test_a_result_of_several_pages_is_read_to_its_end(server: BigQueryServer):
    rows = 2 * PAGE_ROWS + 1
    create(server, "long", SchemaField("id", "INTEGER"))
    numbers = f"SELECT n FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS n"
    execute(server, f"INSERT INTO sales.long (id) {numbers}")
    with closing(source_at(url_of(server))) as source:
        found = read(source, "sales.long", IngestionPolicy()).column("id").to_pylist()
    assert sorted(found) == list(range(1, rows + 1))


def test_an_empty_table_has_its_columns(server: BigQueryServer):
    create(server, "empty", SchemaField("id", "INTEGER"))
    with closing(source_at(url_of(server))) as source:
        found = read(source, "sales.empty", IngestionPolicy())
    assert (found.num_rows, found.schema) == (0, pa.schema([("id", pa.int64())]))


def test_names_may_be_those_of_functions_and_words_of_sql(server: BigQueryServer):
    create(server, "select", SchemaField("from", "INTEGER"), SchemaField("größe", "INTEGER"))
    execute(server, "INSERT INTO sales.`select` (`from`, `größe`) VALUES (1, 2)")
    with closing(source_at(url_of(server))) as source:
        policy = IngestionPolicy(cursor_column="from")
        assert read(source, "sales.select", policy).to_pylist() == [{"from": 1, "größe": 2}]


def test_a_value_that_does_not_fit_is_an_error_that_names_the_column(server: BigQueryServer):
    with closing(source_at(url_of(server))) as source:
        session = source.open_session()
        statement, schema = "SELECT 'not base64!'", pa.schema([("x", pa.binary())])
        with closing(session), pytest.raises(UnrepresentableValueError, match="'x'"):
            list(session.batches(statement, schema))


def test_a_column_or_table_that_is_gone_is_a_changed_source(server: BigQueryServer):
    create(server, "shrinking", SchemaField("id", "INTEGER"), SchemaField("note", "STRING"))
    with closing(source_at(url_of(server))) as source:
        unit = source.describe_unit(UnitId("sales.shrinking"))
        plan = source.plan_incremental_slices(unit, None, IngestionPolicy(), 1000)
        execute(server, "DROP TABLE sales.shrinking")  # the emulator drops no columns
        create(server, "shrinking", SchemaField("id", "INTEGER"))
        with pytest.raises(SourceChangedError, match="note"):
            list(source.read(unit, plan.slices[0], IngestionPolicy()))
        execute(server, "DROP TABLE sales.shrinking")
        with pytest.raises(SourceChangedError, match="shrinking"):
            list(source.read(unit, plan.slices[0], IngestionPolicy()))


def test_tokens_and_keys_are_told_from_rights(server: BigQueryServer, gate: GoogleGate):
    with closing(source_at(gate.url, {"serviceAccountKey": gate.key_file()})) as account:
        assert account.test().server_version == "BigQuery API v2"
    gate.strangers.add("stranger")
    refused(source_at(gate.url, {"accessToken": "stranger"}), SourcePermissionError)
    refused(source_at(gate.url, {"accessToken": "unknown"}), AuthenticationFailedError)
    refused(source_at(gate.url, {}), AuthenticationFailedError)
    refused(source_at(gate.url, {"serviceAccountKey": "{}"}), AuthenticationFailedError)
    stolen = gate.key_file(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    refused(source_at(gate.url, {"serviceAccountKey": stolen}), AuthenticationFailedError)


def test_a_key_file_cannot_send_for_its_token_where_the_operator_denies(gate: GoogleGate):
    key = gate.key_file().replace(f"{gate.url}/token", "http://169.254.169.254/token")
    refused(source_at(gate.url, {"serviceAccountKey": key}), HostNotAllowedError)


def test_a_dataset_that_does_not_exist_is_named(server: BigQueryServer):
    error = refused(source_at(url_of(server), dataset="nowhere"), DatabaseNotFoundError)
    assert "nowhere" in str(error)


def test_what_is_not_there_does_not_answer():
    refused(source_at(f"http://127.0.0.1:{free_port()}"), ConnectionRefusedByHostError)
    refused(source_at("http://nowhere.invalid"), DnsResolutionError)


def test_a_server_that_says_nothing_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused(source_at(url, connectTimeoutS=1), SourceTimeoutError)


def test_a_certificate_is_checked_against_the_given_authority(
    server: BigQueryServer, tmp_path: Path
):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.server("server")
    with TlsGate(server.port, pair.certificate, pair.key) as gate:
        url = f"https://localhost:{gate.port}"
        with closing(source_at(url, sslRootCert=str(authority.root), sslMode="verify-full")) as ok:
            ok.test()
        error = refused(source_at(url, sslRootCert=str(other.root)), TlsHandshakeError)
        assert error.context["verify_code"] in (19, 20, 21)
        named = source_at(f"https://127.0.0.1:{gate.port}", sslRootCert=str(authority.root))
        refused(named, TlsHandshakeError)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("https://example.com", "disable"),
        ("https://example.com", "require"),
        ("http://example.com", "verify-full"),
    ],
)
def test_a_tls_mode_that_would_not_be_kept_is_refused(url: str, mode: str):
    with pytest.raises(ValidationError):
        source_at(url, sslMode=mode)
