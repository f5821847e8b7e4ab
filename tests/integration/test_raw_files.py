"""Raw files as others find them: their layout, a dead committer's work, registered tables."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from matih_ray.errors import ConfigurationError, HostNotAllowedError, ValidationError
from matih_ray.model.ids import EndpointId
from matih_ray.model.policy import SchemaChange, WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import SinkTarget
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.sinks.raw_files import RawFilesSink, publishing
from matih_ray.sinks.raw_files.config import Place
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.testing.contracts.sink_lab import (
    SCHEMA,
    TENANT,
    assert_rows,
    batch,
    marker,
    target,
    write,
)
from tests.integration.raw_lab import LocalLab

PATH = (TENANT, "shop", "public", "orders")
KEYS = {"accessKeyId": "id", "secretAccessKey": "secret"}


@pytest.fixture
def lab(tmp_path: Path) -> LocalLab:
    return LocalLab.create(tmp_path, raw_registered=True)


def evolving(schema: pa.Schema, mode: WriteMode = WriteMode.APPEND) -> SinkTarget:
    plain = target(PATH, schema=schema, mode=mode)
    return SinkTarget(**{**vars(plain), "schema_change": SchemaChange.EVOLVE})


def test_the_layout_is_a_table_of_loads_and_partitions(lab: LocalLab, tmp_path: Path) -> None:
    sink = lab.sink()
    prepared = sink.prepare(target(PATH, partition_by=("month(day)",)))
    sink.commit(prepared, [write(sink, prepared, [batch(rows=50)])], marker(1))
    table = tmp_path / "raw" / "acme" / "shop" / "public" / "orders"
    loads = [one.name for one in table.iterdir()]
    assert loads == ["matih_load=0000000002"]
    months = sorted(one.name for one in (table / loads[0]).iterdir())
    assert months == ["day_month=2024-01", "day_month=2024-02", _null("day_month")]
    [(rows, months_seen)] = duckdb.sql(
        f"""SELECT count(*), count(DISTINCT day_month)
            FROM read_parquet('{table}/**/*.parquet', hive_partitioning=true)"""
    ).fetchall()
    assert (rows, months_seen) == (50, 2)


def _null(name: str) -> str:
    return f"{name}=__HIVE_DEFAULT_PARTITION__"


@pytest.mark.parametrize("mode", [WriteMode.APPEND, WriteMode.OVERWRITE])
def test_what_a_dead_committer_has_not_published_is_published_by_the_next(
    lab: LocalLab, monkeypatch: pytest.MonkeyPatch, mode: WriteMode
) -> None:
    sink = lab.sink()
    first = sink.prepare(target(PATH, mode=mode))
    sink.commit(first, [write(sink, first, [batch()])], marker(1))
    before = lab.listed(first)
    second = sink.prepare(target(PATH, mode=mode))
    receipt = write(sink, second, [batch(5_000)])

    class Dead(BaseException):
        """Nobody catches it, as nobody catches SIGKILL."""

    def die(*_: object) -> None:
        raise Dead

    monkeypatch.setattr(publishing.Publisher, "_publish", die)
    with pytest.raises(Dead):
        sink.commit(second, [receipt], marker(1, run="run-2"))
    monkeypatch.undo()
    assert lab.listed(second) == before
    assert lab.sink().last_marker(second) == marker(1, run="run-2")
    rows = [batch(5_000)] if mode is WriteMode.OVERWRITE else [batch(), batch(5_000)]
    assert_rows(lab, second, *rows)


def test_a_registered_table_shows_the_published_files(lab: LocalLab) -> None:
    def shown() -> pa.Table:
        catalog = open_catalog(CatalogConfig.from_settings(lab.settings))
        return catalog.load_table(PATH).scan().to_arrow()

    sink = lab.sink()
    prepared = sink.prepare(evolving(SCHEMA))
    assert shown().num_rows == 0
    for sequence in (1, 2):
        receipt = write(sink, prepared, [batch(sequence * 100, 100)], sequence)
        sink.commit(prepared, [receipt], marker(sequence))
        sink.commit(prepared, [receipt], marker(sequence))
    assert sorted(shown()["id"].to_pylist()) == list(range(100, 300))
    wider = SCHEMA.append(pa.field("note", pa.string()))
    again = sink.prepare(evolving(wider, WriteMode.OVERWRITE))
    noted = batch(0, 10).append_column("note", pa.array(["n"] * 10))
    sink.commit(again, [write(sink, again, [noted])], marker(1, run="run-2"))
    found = shown()
    assert sorted(found["id"].to_pylist()) == list(range(10))
    assert set(found["note"].to_pylist()) == {"n"}
    assert_rows(lab, again, noted)


def test_a_column_that_comes_or_goes_is_taken_and_another_type_is_not(lab: LocalLab) -> None:
    sink = lab.sink()
    sink.prepare(evolving(SCHEMA))
    sink.prepare(evolving(SCHEMA.remove(1)))
    with pytest.raises(Exception, match="'id'"):
        sink.prepare(evolving(SCHEMA.set(0, pa.field("id", pa.string()))))
    frozen = SinkTarget(**{**vars(target(PATH)), "schema_change": SchemaChange.FREEZE})
    with pytest.raises(ValidationError, match="evolve or fail"):
        sink.prepare(frozen)


def spec(config: dict[str, object], secrets: dict[str, str], **policy: object) -> EndpointSpec:
    return EndpointSpec(
        TENANT, EndpointId("raw"), "raw files", "raw", config, secrets, HostPolicy(**policy)
    )


def test_a_tenants_sink_is_in_no_directory_of_the_server_and_uses_no_keys_of_it() -> None:
    for location in ("file:///tmp/x", "/tmp/x", "gs://bucket/x"):
        with pytest.raises(ValidationError, match="location"):
            RawFilesSink(spec({"location": location}, KEYS))
    with pytest.raises(ValidationError, match="accessKeyId"):
        RawFilesSink(spec({"location": "s3://bucket/x"}, {}))
    hidden = {"location": "s3://bucket/x", "endpointOverride": "http://127.0.0.1:9"}
    with pytest.raises(HostNotAllowedError):
        RawFilesSink(spec(hidden, KEYS, private_hosts=False))
    assert "secret" not in repr(Place.from_spec(spec({"location": "s3://bucket/x"}, KEYS)))


def test_a_store_without_exclusive_creation_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, raw_location="gs://bucket/x")
    with pytest.raises(ConfigurationError, match="s3://"):
        Place.from_settings(settings).open()
