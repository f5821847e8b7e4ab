"""Files in S3 under the source contract, for each format."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.files import S3Source
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION
from matih_ray.testing.devstack.object_stores import SECRET_ACCESS_KEY, S3Server

BUCKET = "contract"
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


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        server.create_bucket(BUCKET)
        for part in range(FILES):
            rows = table(part)
            server.put(BUCKET, f"lake/parquet/{part}.parquet", parquet_bytes(rows))
            text = io.BytesIO()
            pacsv.write_csv(rows, text)
            server.put(BUCKET, f"lake/csv/{part}.csv.gz", gzip.compress(text.getvalue()))
            lines = "\n".join(json.dumps(row, default=str) for row in rows.to_pylist())
            server.put(BUCKET, f"lake/ndjson/{part}.jsonl", lines.encode())
        server.put(BUCKET, "lake/empty/0.parquet", parquet_bytes(table(0).slice(0, 0)))
        yield server


def case_of(server: S3Server, unit_id: str) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="S3",
        config={
            "bucket": BUCKET,
            "prefix": "lake",
            "region": REGION,
            "endpointOverride": server.url,
        },
        secrets={"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY},
    )
    return SourceCase(
        build=lambda: S3Source(spec),
        unit_id=unit_id,
        unknown_unit_id="nowhere",
        empty_unit_id="empty",
        target_rows=700,
        policies=(IngestionPolicy(), INCREMENTAL),
        secret=SECRET_ACCESS_KEY,
    )


class FilesContract(SourceContract):
    """The client keeps a pool of connections on purpose, which is no sign of a leak."""

    test_abandoning_a_read_frees_the_connection = None


class TestParquet(FilesContract):
    @pytest.fixture
    def case(self, server: S3Server) -> SourceCase:
        return case_of(server, "parquet")


class TestCompressedCsv(FilesContract):
    @pytest.fixture
    def case(self, server: S3Server) -> SourceCase:
        return case_of(server, "csv")


class TestJsonLines(FilesContract):
    @pytest.fixture
    def case(self, server: S3Server) -> SourceCase:
        return case_of(server, "ndjson")
