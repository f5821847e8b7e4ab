"""Files in each store under the source contract, for each format."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.files.azure import AzureBlobSource
from matih_ray.sources.files.gcs import GcsSource
from matih_ray.sources.files.s3 import S3Source
from matih_ray.sources.files.source import FileSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION
from matih_ray.testing.devstack.google_gate import GoogleGate
from matih_ray.testing.devstack.object_stores import (
    ACCOUNT,
    ACCOUNT_KEY,
    SECRET_ACCESS_KEY,
    AzuriteServer,
    GcsServer,
    S3Server,
)

BUCKET = "contract"
TOKEN = "a token nobody may see"
ROWS = 6000
FILES = 3
INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL)


def table(part: int) -> pa.Table:
    numbers = range(part * ROWS // FILES, (part + 1) * ROWS // FILES)
    start = datetime(2024, 1, 1)  # noqa: DTZ001 a column without a time zone
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "amount": pa.array([Decimal(n) / 4 for n in numbers], pa.decimal128(12, 2)),
            "day": pa.array([date(2024, 1, 1) + timedelta(n % 300) for n in numbers]),
            "at": pa.array([start + timedelta(seconds=n) for n in numbers], pa.timestamp("us")),
            "note": pa.array([None if n % 7 == 0 else f"note {n}" for n in numbers]),
        }
    )


def parquet_bytes(rows: pa.Table, group_rows: int = 500) -> bytes:
    out = io.BytesIO()
    pq.write_table(rows, out, row_group_size=group_rows)
    return out.getvalue()


def fill(store: S3Server | AzuriteServer | GcsServer) -> None:
    """A bucket with the same rows in each format, compressed and not."""
    store.create_bucket(BUCKET)
    for part in range(FILES):
        rows = table(part)
        store.put(BUCKET, f"lake/parquet/{part}.parquet", parquet_bytes(rows))
        text = io.BytesIO()
        pacsv.write_csv(rows, text)
        store.put(BUCKET, f"lake/csv/{part}.csv.gz", gzip.compress(text.getvalue()))
        lines = "\n".join(json.dumps(row, default=str) for row in rows.to_pylist()).encode()
        store.put(BUCKET, f"lake/ndjson/{part}.jsonl", lines)
        packed = pa.compress(lines, codec="zstd", asbytes=True)
        store.put(BUCKET, f"lake/packed/{part}.ndjson.zst", packed)
    store.put(BUCKET, "lake/empty/0.parquet", parquet_bytes(table(0).slice(0, 0)))


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        fill(server)
        yield server


@pytest.fixture(scope="module")
def azurite() -> Iterator[AzuriteServer]:
    with AzuriteServer() as server:
        fill(server)
        yield server


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleGate]:
    with GcsServer() as server, GoogleGate(server.url) as gate:
        gate.readers.add(TOKEN)
        fill(server)
        yield gate


def case_of(
    source: Callable[[EndpointSpec], FileSource],
    url: str,
    unit_id: str,
    secrets: dict[str, str],
    config: dict[str, Any],
) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="any",
        config={"prefix": "lake", "endpointOverride": url, **config},
        secrets=secrets,
    )
    return SourceCase(
        build=lambda: source(spec),
        unit_id=unit_id,
        unknown_unit_id="nowhere",
        empty_unit_id="empty",
        target_rows=700,
        policies=(IngestionPolicy(), INCREMENTAL),
        secret=list(secrets.values())[-1],
    )


class FilesContract(SourceContract):
    """The client keeps a pool of connections on purpose, which is no sign of a leak."""

    test_abandoning_a_read_frees_the_connection = None


class TestS3(FilesContract):
    @pytest.fixture(params=["parquet", "csv", "packed"])
    def case(self, request: pytest.FixtureRequest, s3: S3Server) -> SourceCase:
        keys = {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY}
        config = {"bucket": BUCKET, "region": REGION}
        return case_of(S3Source, s3.url, request.param, keys, config)


class TestAzureBlob(FilesContract):
    @pytest.fixture(params=["parquet", "csv"])
    def case(self, request: pytest.FixtureRequest, azurite: AzuriteServer) -> SourceCase:
        config = {"container": BUCKET, "account": ACCOUNT}
        key = {"accountKey": ACCOUNT_KEY}
        return case_of(AzureBlobSource, azurite.url, request.param, key, config)


class TestGcs(FilesContract):
    @pytest.fixture(params=["parquet", "ndjson"])
    def case(self, request: pytest.FixtureRequest, google: GoogleGate) -> SourceCase:
        token = {"accessToken": TOKEN}
        return case_of(GcsSource, google.url, request.param, token, {"bucket": BUCKET})
