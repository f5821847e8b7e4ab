"""Tables in object stores: S3 (moto), Azure (Azurite) and Google (an emulator) keep what a local
warehouse keeps. Secrets of the warehouse are in no object of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import daft
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from matih_ray.errors import CommitRejectedError, SinkError
from matih_ray.model.finalize import Finalize
from matih_ray.model.ids import RunId
from matih_ray.model.maintenance import MaintenancePolicy
from matih_ray.model.policy import MergeRule, WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.iceberg.file_io import WarehouseIO
from matih_ray.testing.contracts.sink_lab import (
    assert_rows,
    batch,
    marker,
    target,
    write,
)
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION
from matih_ray.testing.devstack.object_stores import (
    ACCOUNT,
    ACCOUNT_KEY,
    SECRET_ACCESS_KEY,
    AzuriteServer,
    GcsServer,
    S3Server,
)
from matih_ray.testing.iceberg import IcebergLake

GCS_TOKEN = "a token nobody may see"
NEVER = "4102444800000"


@dataclass
class Lake(IcebergLake):
    """A bucket, and what opens it."""

    secrets: tuple[str, ...]

    def objects(self, prepared: PreparedTarget) -> dict[str, bytes]:
        """Every object of a table."""
        table = self.table(prepared)
        scheme, host, path = WarehouseIO.parse_location(table.location())
        files: pafs.FileSystem = table.io.fs_by_scheme(scheme, host)
        found = files.get_file_info(pafs.FileSelector(path, recursive=True))
        paths = [info.path for info in found if info.type is pafs.FileType.File]
        return {path: files.open_input_file(path).readall() for path in paths}


def lake(home: Path, warehouse: str, properties: dict[str, str], *secrets: str) -> Lake:
    settings = Settings(
        home=home, iceberg_warehouse=warehouse, iceberg_properties=json.dumps(properties)
    )
    return Lake(settings, secrets)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with S3Server() as server:
        server.create_bucket("lake")
        properties = {
            "s3.endpoint": server.url,
            "s3.region": REGION,
            "s3.access-key-id": ACCESS_KEY_ID,
            "s3.secret-access-key": SECRET_ACCESS_KEY,
        }
        yield lake(tmp_path_factory.mktemp("s3"), "s3://lake/wh", properties, SECRET_ACCESS_KEY)


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with GcsServer() as server:
        server.create_bucket("lake")
        properties = {
            "gcs.service.host": server.url,
            "gcs.oauth2.token": GCS_TOKEN,
            "gcs.oauth2.token-expires-at": NEVER,
        }
        yield lake(tmp_path_factory.mktemp("gcs"), "gs://lake/wh", properties, GCS_TOKEN)


def azure_properties(server: AzuriteServer, key: str = ACCOUNT_KEY) -> dict[str, str]:
    authority = f"127.0.0.1:{server.port}"
    return {
        "adls.account-name": ACCOUNT,
        "adls.account-key": key,
        "adls.blob-storage-authority": authority,
        "adls.dfs-storage-authority": authority,
        "adls.blob-storage-scheme": "http",
        "adls.dfs-storage-scheme": "http",
    }


@pytest.fixture(scope="module")
def azurite() -> Iterator[AzuriteServer]:
    with AzuriteServer() as server:
        server.create_bucket("lake")
        yield server


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory, azurite: AzuriteServer) -> Lake:
    warehouse = f"abfss://lake@{ACCOUNT}.dfs.core.windows.net/wh"
    home = tmp_path_factory.mktemp("azure")
    return lake(home, warehouse, azure_properties(azurite), ACCOUNT_KEY)


@pytest.fixture(params=["s3", "azure", "gcs"])
def store(request: pytest.FixtureRequest) -> Lake:
    return request.getfixturevalue(request.param)


def load(store: Lake, wanted, run: str, *batches: pa.RecordBatch) -> PreparedTarget:
    sink = store.sink()
    prepared = sink.prepare(wanted)
    for number, one in enumerate(batches, 1):
        published = wanted.finalize is None or number == len(batches)
        told = marker(number, run=run, published=published)
        rows = sum(each.num_rows for each in batches[:number])
        told = told.model_copy(update={"rows_total": rows})
        sink.commit(prepared, [write(sink, prepared, [one])], told)
    return prepared


def test_appended_rows_and_an_overwrite_are_read_back(store):
    appended = load(store, target(), "one", batch(0, 500), batch(500, 500))
    assert_rows(store, appended, batch(0, 500), batch(500, 500))
    wanted = target(mode=WriteMode.OVERWRITE, partition_by=("day(at)",))
    load(store, wanted, "one", batch(0, 500))
    overwritten = load(store, wanted, "two", batch(500, 300))
    assert_rows(store, overwritten, batch(500, 300))


def test_a_merge_writes_only_touched_files_again_and_is_taken_back(store):
    rule = MergeRule(key=("id",))
    wanted = target(mode=WriteMode.MERGE, merge=rule, partition_by=("bucket(3, id)",))
    load(store, wanted, "one", batch(0, 600))
    changed = batch(0, 600).set_column(1, "name", pa.array(["new"] * 600)).slice(100, 200)
    prepared = load(store, wanted, "two", changed, batch(600, 10))
    assert_rows(store, prepared, batch(0, 100), changed, batch(300, 310))
    store.sink().rollback(prepared, RunId("two"))
    assert_rows(store, prepared, batch(0, 600))


def test_a_finalized_run_is_published_from_its_branch(store):
    wanted = replace(target(), finalize=Finalize(unique=("id",), min_rows=20, tag="ok"))
    prepared = load(store, wanted, "one", batch(0, 10), batch(10, 10))
    assert_rows(store, prepared, batch(0, 20))
    assert set(store.table(prepared).metadata.refs) == {"main", "ok"}


def test_maintenance_leaves_the_rows_and_only_what_they_need(store):
    wanted = target()
    prepared = load(store, wanted, "one", *(batch(n * 100, 100) for n in range(4)))
    write(store.sink(), prepared, [batch(9_000, 100)])  # by a writer that died
    before = store.objects(prepared)
    later = datetime.now(timezone.utc) + timedelta(seconds=5)  # stores count whole seconds
    policy = MaintenancePolicy(snapshot_age_s=0, keep_snapshots=1, orphan_age_s=0)
    name = ".".join(prepared.payload["identifier"][1:])
    report = store.sink().maintain(name, policy, later)
    assert report.error is None
    assert (report.compaction.files_before, report.compaction.files_after) == (4, 1)
    assert (report.snapshots_expired, report.orphan_files) == (4, 1)
    after = store.objects(prepared)
    assert sum(path.endswith(".parquet") for path in before) == 5
    assert sum(path.endswith(".parquet") for path in after) == 1
    assert_rows(store, prepared, batch(0, 400))


def test_no_object_of_the_warehouse_and_no_plan_holds_a_secret(store):
    sink = store.sink()
    prepared = sink.prepare(target())
    receipt = write(sink, prepared, [batch(0, 10)])
    sink.commit(prepared, [receipt], marker(1))
    told = (prepared.to_json() + receipt.to_json() + repr(vars(sink))).encode()
    objects = store.objects(prepared)
    assert {path.rsplit(".", 1)[-1] for path in objects} == {"parquet", "avro", "json"}
    for secret in store.secrets:
        assert all(secret.encode() not in held for held in (told, *objects.values()))
        catalog = store.settings.home / "iceberg" / "catalog.db"
        assert secret.encode() not in catalog.read_bytes()


def test_daft_reads_what_is_in_s3(s3):
    prepared = load(s3, target(), "one", batch(0, 100))
    found = daft.read_iceberg(s3.table(prepared)).to_arrow()
    assert sorted(found["id"].to_pylist()) == list(range(100))


def test_a_wrong_key_is_told_and_kept_secret(azure, azurite, tmp_path):
    prepared = load(azure, target(), "one", batch(0, 10))
    wrong = f"AAAA{ACCOUNT_KEY[4:]}"
    properties = azure_properties(azurite, wrong)
    stranger = lake(azure.settings.home, azure.settings.iceberg_warehouse, properties)
    with pytest.raises(SinkError) as caught:
        write(stranger.sink(), prepared, [batch(10, 10)])
    receipt = write(azure.sink(), prepared, [batch(10, 10)])
    with pytest.raises((SinkError, CommitRejectedError)) as refused:
        stranger.sink().commit(prepared, [receipt], marker(2, run="one"))
    for error in (caught.value, refused.value):
        assert wrong not in error.message + str(error.context)
        assert error.__cause__ is None
    azure.sink().commit(prepared, [receipt], marker(2, run="one"))
    assert_rows(azure, prepared, batch(0, 20))
