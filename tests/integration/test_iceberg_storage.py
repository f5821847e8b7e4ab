"""The warehouse: full disks, missing permissions, rolling files, cleaning up."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from matih_ray.errors import (
    CommitRejectedError,
    ConfigurationError,
    MatihError,
    SinkError,
    SinkUnavailableError,
    StorageFullError,
)
from matih_ray.settings import Settings
from matih_ray.testing.contracts.sink_lab import (
    ROWS,
    assert_rows,
    batch,
    marker,
    slice_,
    target,
    write,
)
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.iceberg import IcebergLake

PASSWORD = "hunter2-s3cret"


class FullFile(PyArrowFile):
    def create(self, overwrite: bool = False):
        return super().create(overwrite=True)  # the device is there already


class FullDisk(PyArrowFileIO):
    """A storage on which files of some suffix meet the kernel's own full device."""

    def new_output(self, location: str) -> PyArrowFile:
        output = super().new_output(location)
        if location.endswith(self.properties["test.full"]):
            return FullFile(location, "/dev/full", output._filesystem)
        return output


class Lake(IcebergLake):
    def data_files(self) -> list[Path]:
        return sorted((self.settings.home / "iceberg" / "warehouse").rglob("*.parquet"))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(Settings(home=tmp_path))


def test_a_full_disk_is_told_and_loses_nothing(tmp_path):
    prepared = Lake(Settings(home=tmp_path)).sink().prepare(target())
    full = Lake(_with_full(tmp_path, ".parquet")).sink()
    writer = full.writer(prepared, slice_())
    writer.write(batch())
    with pytest.raises(StorageFullError, match="space"):
        writer.close()
    writer.abort()
    healthy = Lake(Settings(home=tmp_path))
    sink = healthy.sink()
    sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1))
    assert_rows(healthy, prepared, batch())


@pytest.mark.parametrize("suffix", ["-m0.avro", ".avro", ".metadata.json"])
def test_a_full_disk_at_the_commit_is_certain_and_can_be_repeated(tmp_path, suffix):
    healthy = Lake(Settings(home=tmp_path))
    prepared = healthy.sink().prepare(target())
    receipt = write(healthy.sink(), prepared, [batch()])
    with pytest.raises(StorageFullError):
        Lake(_with_full(tmp_path, suffix)).sink().commit(prepared, [receipt], marker(1))
    assert healthy.sink().last_marker(prepared) is None
    healthy.sink().commit(prepared, [receipt], marker(1))
    assert_rows(healthy, prepared, batch())


def _with_full(home: Path, suffix: str) -> Settings:
    properties = f'{{"py-io-impl": "{__name__}.FullDisk", "test.full": "{suffix}"}}'
    return Settings(home=home, iceberg_properties=properties)


def test_a_warehouse_that_is_a_file_is_told(tmp_path):
    (tmp_path / "warehouse").write_text("not a directory")
    settings = Settings(home=tmp_path, iceberg_warehouse=str(tmp_path / "warehouse"))
    with pytest.raises(SinkError, match="prepare table"):
        Lake(settings).sink().prepare(target())


@pytest.mark.parametrize(
    ("kind", "uri", "error"),
    [
        ("rest", "http://127.0.0.1:{port}", SinkUnavailableError),
        ("sql", "postgresql+psycopg2://me:{password}@127.0.0.1:{port}/x", SinkUnavailableError),
        ("sql", "nosuch+driver://me:{password}@127.0.0.1/x", ConfigurationError),
        ("sql", "sqlite:////proc/nowhere/catalog.db", SinkError),
    ],
)
def test_a_wrong_catalog_address_is_told_without_its_password(tmp_path, kind, uri, error):
    uri = uri.format(port=free_port(), password=PASSWORD)
    settings = Settings(
        home=tmp_path,
        iceberg_catalog_type=kind,
        iceberg_catalog_uri=uri,
        iceberg_warehouse=str(tmp_path),
    )
    prepared = Lake(Settings(home=tmp_path)).sink().prepare(target())
    sink = Lake(settings).sink()
    for call in (lambda: sink.prepare(target()), lambda: sink.last_marker(prepared)):
        with pytest.raises(error) as caught:
            call()
        assert PASSWORD not in caught.value.message + str(caught.value.context)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    with pytest.raises(MatihError) as caught:
        sink.commit(prepared, [], marker(1))
    assert isinstance(caught.value, (CommitRejectedError, error))


def test_files_roll_at_the_target_size_and_all_are_loaded(lake):
    batches = [
        pa.RecordBatch.from_pydict(
            {"noise": [os.urandom(2_000) for _ in range(500)], "n": [n] * 500}
        )
        for n in range(40)
    ]
    sink = lake.sink()
    prepared = sink.prepare(replace(target(schema=batches[0].schema), target_file_bytes=10_000_000))
    receipt = write(sink, prepared, batches)
    sizes = [path.stat().st_size for path in lake.data_files()]
    assert len(sizes) == 3
    assert sum(sizes) == receipt.bytes
    assert all(10_000_000 <= size < 20_000_000 for size in sizes[:-1])
    sink.commit(prepared, [receipt], marker(1))
    assert_rows(lake, prepared, *batches)


def test_an_aborted_writer_deletes_its_files(lake):
    sink = lake.sink()
    prepared = sink.prepare(target(partition_by=("bucket(4, id)",)))
    writer = sink.writer(prepared, slice_())
    for n in range(3):
        writer.write(batch(n * ROWS))
    writer.close()
    assert len(lake.data_files()) == 4
    writer.abort()
    assert lake.data_files() == []


def test_aborted_receipts_delete_only_their_own_files(lake):
    sink = lake.sink()
    prepared = sink.prepare(target())
    kept, dropped = (write(sink, prepared, [batch()], n) for n in range(2))
    before = lake.data_files()
    sink.abort(prepared, [dropped])
    after = lake.data_files()
    assert len(before) == 2
    assert len(after) == 1
    assert after[0].name in str(kept.payload)


def test_a_receipt_and_a_prepared_target_hold_no_secrets(tmp_path):
    settings = Settings(
        home=tmp_path, iceberg_properties=f'{{"s3.secret-access-key": "{PASSWORD}"}}'
    )
    sink = Lake(settings).sink()
    prepared = sink.prepare(target())
    receipt = write(sink, prepared, [batch()])
    sink.commit(prepared, [receipt], marker(1))
    assert PASSWORD not in prepared.to_json() + receipt.to_json() + repr(sink.__dict__)
    for path in (tmp_path / "iceberg").rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()
