"""Files in S3, for real: exact rows, what is refused, new files, and what goes wrong."""

from __future__ import annotations

import gzip
import io
import socket
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    MatihError,
    SourceChangedError,
    SourcePermissionError,
    SourceRejectedError,
    SourceTimeoutError,
    TlsHandshakeError,
    UnrepresentableValueError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, LateCommits, RunMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec, IngestionContext
from matih_ray.sources.files.s3 import S3Source
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION
from matih_ray.testing.devstack.object_stores import SECRET_ACCESS_KEY, S3Server
from matih_ray.testing.devstack.ports import free_port

FULL = IngestionPolicy()
INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL)
NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(server: S3Server) -> str:
    name = f"bucket-{next(NUMBERS)}"
    server.create_bucket(name)
    return name


def source_of(
    url: str,
    bucket: str,
    key: str = ACCESS_KEY_ID,
    secret: str = SECRET_ACCESS_KEY,
    **config: Any,
) -> S3Source:
    settings = {"bucket": bucket, "region": REGION, "endpointOverride": url, **config}
    secrets = {"accessKeyId": key, "secretAccessKey": secret}
    return S3Source(EndpointSpec(TenantId("t"), EndpointId("e"), "test", "S3", settings, secrets))


def parquet_bytes(**columns: pa.Array) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=100)
    return out.getvalue()


def rows_of(source: S3Source, plan: IngestionPlan, lineage: bool = False) -> list[dict[str, Any]]:
    unit = source.describe_unit(plan.unit_id)
    rows = [
        row
        for slice_ in plan.slices
        for batch in source.read(unit, slice_, FULL)
        for row in batch.to_pylist()
    ]
    return rows if lineage else [_data(row) for row in rows]


def _data(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_file")}


def loaded(source: S3Source, unit_id: str) -> list[dict[str, Any]]:
    return rows_of(source, make_plan(source, source.describe_unit(UnitId(unit_id)), None, FULL))


def types_of(source: S3Source, unit_id: str) -> dict[str, str]:
    columns = source.describe_unit(UnitId(unit_id)).columns
    return {c.name: c.arrow_type for c in columns if not c.name.startswith("_file")}


def test_csv_values_arrive_exactly_and_doubtful_ones_as_text(server: S3Server, bucket: str):
    text = (
        "id,zip,price,day,at,ok,note\n"
        '1,00501,1.10,2024-02-29,2024-01-01 10:00:00.5,true,"a, ""b""\nc"\n'
        '-2,10001,12345678901234567890.5,2024-12-31,2024-01-01T10:00:00,false,""\n'
        "3,,,,,,\n"
    )
    server.put(bucket, "t/1.csv.gz", gzip.compress(text.encode()))
    source = source_of(server.url, bucket)
    assert types_of(source, "t") == {
        "id": "int64",
        "zip": "string",
        "price": "decimal128(38, 2)",
        "day": "date32[day]",
        "at": "timestamp[us]",
        "ok": "bool",
        "note": "string",
    }
    first, second, third = loaded(source, "t")
    assert first["zip"] == "00501"
    assert first["price"] == Decimal("1.10")
    assert first["day"] == date(2024, 2, 29)
    assert first["at"] == datetime.fromisoformat("2024-01-01T10:00:00.500000")
    assert first["note"] == 'a, "b"\nc'
    assert (second["price"], second["note"]) == (Decimal("12345678901234567890.50"), "")
    assert (third["id"], third["zip"], third["ok"], third["note"]) == (3, None, None, None)


def test_json_numbers_are_exact_and_nested_values_are_json_text(server: S3Server, bucket: str):
    lines = (
        '{"id": 9007199254740993, "x": 0.1, "tags": [1.10, {"a": null}], "odd": 1}\n'
        '{"id": 2, "x": 3, "odd": "one"}\n'
    )
    server.put(bucket, "t/1.ndjson", lines.encode())
    source = source_of(server.url, bucket)
    assert types_of(source, "t")["x"] == "decimal128(38, 1)"
    assert loaded(source, "t") == [
        {"id": 9007199254740993, "x": Decimal("0.1"), "tags": '[1.10,{"a":null}]', "odd": "1"},
        {"id": 2, "x": Decimal("3.0"), "tags": None, "odd": '"one"'},
    ]


def test_a_value_that_does_not_fit_is_named_and_declaring_its_type_helps(
    server: S3Server, bucket: str
):
    body = "".join(f"{n},{'x' * 100}\n" for n in range(30_000))
    server.put(bucket, "t/1.csv", f"id,note\n{body}thirty thousand,x\n".encode())
    source = source_of(server.url, bucket)
    assert types_of(source, "t")["id"] == "int64"
    with pytest.raises(UnrepresentableValueError) as caught:
        loaded(source, "t")
    assert caught.value.context["row"] == 30_001
    assert caught.value.context["file"] == "t/1.csv"
    assert caught.value.context["column"] == "id"
    assert "thirty" not in str(caught.value)
    dataset = {"name": "d", "glob": "t/*.csv", "columns": {"id": "string"}}
    assert loaded(source_of(server.url, bucket, datasets=[dataset]), "d")[-1] == {
        "id": "thirty thousand",
        "note": "x",
    }


def test_files_that_disagree_are_refused_by_name_and_absent_columns_are_null(
    server: S3Server, bucket: str
):
    server.put(bucket, "bad/1.parquet", parquet_bytes(a=pa.array([1])))
    server.put(bucket, "bad/2.parquet", parquet_bytes(a=pa.array(["x"])))
    server.put(bucket, "good/1.parquet", parquet_bytes(a=pa.array([1])))
    server.put(bucket, "good/2.parquet", parquet_bytes(a=pa.array([2]), b=pa.array(["x"])))
    source = source_of(server.url, bucket)
    with pytest.raises(SourceRejectedError, match=r"'a' is string in bad/2\.parquet"):
        source.describe_unit(UnitId("bad"))
    listed = source.list_units(IngestionContext(TenantId("t")))
    assert [(unit.unit_id, bool(unit.columns)) for unit in listed] == [
        ("bad", False),
        ("good", True),
    ]
    assert loaded(source, "good") == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


def test_a_file_changed_since_planning_and_a_new_column_are_noticed(server: S3Server, bucket: str):
    server.put(bucket, "t/1.parquet", parquet_bytes(a=pa.array([1])))
    source = source_of(server.url, bucket)
    unit = source.describe_unit(UnitId("t"))
    plan = make_plan(source, unit, None, FULL)
    server.put(bucket, "t/1.parquet", parquet_bytes(a=pa.array([1, 2, 3]), b=pa.array([1, 2, 3])))
    with pytest.raises(SourceChangedError, match=r"t/1\.parquet was changed"):
        list(source.read(unit, plan.slices[0], FULL))
    again = make_plan(source, unit, None, FULL)
    with pytest.raises(SourceChangedError, match="column 'b'"):
        list(source.read(unit, again.slices[0], FULL))


def test_a_folder_of_several_formats_is_shown_and_says_why_it_is_not_read(
    server: S3Server, bucket: str
):
    server.put(bucket, "t/1.parquet", parquet_bytes(a=pa.array([1])))
    server.put(bucket, "t/2.csv", b"a\n2\n")
    source = source_of(server.url, bucket)
    (listed,) = source.list_units(IngestionContext(TenantId("t")))
    assert (listed.unit_id, listed.kind, listed.columns) == ("t", "mixed", ())
    with pytest.raises(SourceRejectedError, match="several formats, csv and parquet; declare"):
        source.describe_unit(UnitId("t"))
    dataset = {"name": "d", "glob": "t/*.csv"}
    apart = source_of(server.url, bucket, datasets=[dataset])
    unit = apart.describe_unit(UnitId("d"))
    server.put(bucket, "t/3.csv", b"a\n3\n")
    assert [row["a"] for row in loaded(apart, "d")] == [2, 3]
    whole = source_of(server.url, bucket, datasets=[{"name": "d", "glob": "t"}])
    with pytest.raises(SourceRejectedError, match="several formats"):
        make_plan(whole, unit, None, FULL)


def test_files_of_no_known_format_are_counted_by_the_plan(server: S3Server, bucket: str):
    server.put(bucket, "t/1.csv", b"a\n1\n")
    server.put(bucket, "t/notes.txt", b"a\n2\n")
    server.put(bucket, "t/_SUCCESS", b"done")
    source = source_of(server.url, bucket)
    unit = source.describe_unit(UnitId("t"))
    for policy in (FULL, INCREMENTAL):
        notes = make_plan(source, unit, None, policy).notes
        assert [note for note in notes if note.startswith("1 files are left out")]


def test_a_truncated_file_is_called_damaged_by_its_name(server: S3Server, bucket: str):
    packed = gzip.compress(b"a\n" + b"1\n" * 100_000)
    server.put(bucket, "t/1.csv.gz", packed[: len(packed) // 2])
    with pytest.raises(SourceRejectedError, match="damaged"):
        loaded(source_of(server.url, bucket), "t")


def test_a_large_parquet_file_is_cut_by_its_row_groups(server: S3Server, bucket: str):
    server.put(bucket, "t/1.parquet", parquet_bytes(a=pa.array(range(1000))))
    source = source_of(server.url, bucket)
    policy = IngestionPolicy(target_slice_rows=250)
    plan = make_plan(source, source.describe_unit(UnitId("t")), None, policy)
    assert len(plan.slices) == 5
    assert [row["a"] for row in rows_of(source, plan)] == list(range(1000))
    assert rows_of(source, plan, lineage=True)[0]["_file_path"] == "t/1.parquet"


@pytest.mark.parametrize("late", [LateCommits.SAFE_BOUND, LateCommits.LOOKBACK])
def test_files_of_the_same_second_are_neither_lost_nor_loaded_twice(
    server: S3Server, bucket: str, late: LateCommits
):
    policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, late_commits=late, lookback=60)
    source, seen, checkpoint = source_of(server.url, bucket), [], None
    # no pause between files, so that some share a second; names fall, so that order cannot help
    for number in range(9, 0, -1):
        server.put(bucket, f"t/{number}.parquet", parquet_bytes(a=pa.array([number])))
        plan = make_plan(source, source.describe_unit(UnitId("t")), checkpoint, policy)
        seen += [row["a"] for row in rows_of(source, plan)]
        assert plan.slices
        cursor = plan.slices[-1].cursor_after
        checkpoint = Checkpoint(cursor=cursor, cursor_column=plan.cursor_column)
    assert seen == list(range(9, 0, -1))
    done = make_plan(source, source.describe_unit(UnitId("t")), checkpoint, policy)
    assert done.slices == ()


def test_a_file_overwritten_within_the_second_of_its_loading_is_loaded_again(
    server: S3Server, bucket: str
):
    source = source_of(server.url, bucket)
    for _ in range(20):  # until both writes fall into one second
        server.put(bucket, "t/1.csv", b"a\n1\n")
        plan = make_plan(source, source.describe_unit(UnitId("t")), None, INCREMENTAL)
        server.put(bucket, "t/1.csv", b"a\n2\n")
        checkpoint = Checkpoint(
            cursor=plan.slices[-1].cursor_after, cursor_column=plan.cursor_column
        )
        with pytest.raises(SourceChangedError):
            rows_of(source, plan)
        again = make_plan(source, source.describe_unit(UnitId("t")), checkpoint, INCREMENTAL)
        assert [row["a"] for row in rows_of(source, again)] == [2]
        times = [p.slices[0].params["parts"][0]["modifiedS"] for p in (plan, again)]
        if times[0] == times[1]:
            return
    pytest.fail("no two writes fell into one second")


def test_a_file_without_any_of_the_chosen_columns_keeps_its_rows(server: S3Server, bucket: str):
    server.put(bucket, "t/1.parquet", parquet_bytes(a=pa.array([1, 2])))
    server.put(bucket, "t/2.parquet", parquet_bytes(b=pa.array([3])))
    source = source_of(server.url, bucket)
    unit = source.describe_unit(UnitId("t"))
    policy = IngestionPolicy(columns=("b",))
    (slice_,) = make_plan(source, unit, None, policy).slices
    batches = source.read(unit, slice_, policy)
    assert [row["b"] for batch in batches for row in batch.to_pylist()] == [None, None, 3]
    with pytest.raises(ValidationError, match="besides _file_path"):
        source.read_schema(unit, IngestionPolicy(columns=("_file_path",)))


def refused(source: S3Source, kind: type[MatihError]) -> None:
    with pytest.raises(kind) as caught:
        source.test()
    assert type(caught.value) is kind
    assert SECRET_ACCESS_KEY not in str(caught.value)


def test_a_missing_bucket_and_a_missing_host_are_told_apart(server: S3Server):
    refused(source_of(server.url, "no-such-bucket"), DatabaseNotFoundError)
    refused(source_of("http://no-such-host.invalid", "bucket"), DnsResolutionError)
    refused(source_of(f"http://127.0.0.1:{free_port()}", "bucket"), ConnectionRefusedByHostError)
    refused(source_of(server.url.replace("http", "https"), "bucket"), TlsHandshakeError)
    refused(source_of(server.url, "bucket", key=""), AuthenticationFailedError)


def test_a_server_that_does_not_answer_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused(source_of(url, "bucket", readTimeoutS=1, connectTimeoutS=1), SourceTimeoutError)


def test_keys_and_rights_are_told_apart():
    with S3Server() as server:
        server.create_bucket("bucket")
        reader = server.create_user("reader", "s3:*")
        stranger = server.create_user("stranger", "dynamodb:*")
        lister = server.create_user("lister", "s3:ListBucket")
        server.enforce()
        server_files = boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=server.url,
            aws_access_key_id=reader[0],
            aws_secret_access_key=reader[1],
        )
        assert source_of(server.url, "bucket", *reader).test().latency_ms > 0
        wrong = source_of(server.url, "bucket", reader[0], SECRET_ACCESS_KEY)
        refused(wrong, AuthenticationFailedError)
        unknown = source_of(server.url, "bucket", "AKIAUNKNOWNUNKNOWN00", SECRET_ACCESS_KEY)
        refused(unknown, AuthenticationFailedError)
        refused(source_of(server.url, "bucket", *stranger), SourcePermissionError)
        server_files.put_object(Bucket="bucket", Key="t/1.csv", Body=b"a\n1\n")
        refused(source_of(server.url, "bucket", *lister), SourcePermissionError)
        server_files.close()
