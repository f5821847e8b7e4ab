"""Maintenance, rollback, finalized runs and schema changes through REST catalogs: our own, and
Iceberg's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest

from matih_ray.errors import AuditFailedError
from matih_ray.model.finalize import Finalize
from matih_ray.model.ids import RunId
from matih_ray.model.maintenance import MaintenancePolicy
from matih_ray.model.policy import SchemaChange, WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import SinkTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.testing.contracts.sink_lab import TENANT, batch, marker, target, write
from matih_ray.testing.devstack.iceberg_java import IcebergJavaServer
from matih_ray.testing.devstack.iceberg_rest import IcebergRestServer


@pytest.fixture(scope="module", params=[IcebergRestServer, IcebergJavaServer])
def settings(request: pytest.FixtureRequest) -> Iterator[Settings]:
    with request.param() as server:
        yield Settings(iceberg_catalog_type="rest", iceberg_catalog_uri=server.uri)


def load(settings: Settings, wanted: SinkTarget, run: str, *starts: int):
    sink = IcebergSink.from_settings(settings, TENANT)
    prepared = sink.prepare(wanted)
    for number, start in enumerate(starts, 1):
        receipt = write(sink, prepared, [batch(start, 100)])
        sink.commit(prepared, [receipt], marker(number, run=run))
    return sink, prepared


def test_compaction_expiry_and_rollback_through_a_rest_catalog(settings):
    wanted = target()
    load(settings, wanted, "one", 0, 100, 200, 300)
    sink, prepared = load(settings, wanted, "two", 400, 500)
    identifier = tuple(prepared.payload["identifier"])
    later = datetime.now(timezone.utc) + timedelta(seconds=5)
    policy = MaintenancePolicy(keep_snapshots=4, snapshot_age_s=0)
    assert ".".join(identifier[1:]) in sink.tables()
    report = sink.maintain(".".join(identifier[1:]), policy, later)
    assert (report.error, report.compaction.files_after) == (None, 1)
    assert report.snapshots_expired == 3
    table = open_catalog(CatalogConfig.from_settings(settings)).load_table(identifier)
    assert table.scan().to_arrow().num_rows == 600
    sink.rollback(prepared, RunId("two"))
    table = table.refresh()
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == list(range(400))
    assert set(table.metadata.refs) == {"main"}


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
def test_a_finalized_run_is_published_through_a_rest_catalog(settings, mode):
    plain = target(mode=mode)
    load(settings, plain, "one", 0)
    wanted = replace(plain, finalize=Finalize(unique=("id",), tag="ok"))
    sink = IcebergSink.from_settings(settings, TENANT)
    prepared = sink.prepare(wanted)
    table = open_catalog(CatalogConfig.from_settings(settings)).load_table(
        tuple(prepared.payload["identifier"])
    )
    for number in (1, 2):
        told = marker(number, run="two", published=number == 2)
        receipt = write(sink, prepared, [batch(number * 100, 100)])
        assert table.refresh().scan().to_arrow().num_rows == 100
        sink.commit(prepared, [receipt], told.model_copy(update={"rows_total": number * 100}))
    table = table.refresh()
    expected = 200 if mode is WriteMode.OVERWRITE else 300
    assert table.scan().to_arrow().num_rows == expected
    assert set(table.metadata.refs) == {"main", "ok"}
    strict = replace(wanted, finalize=Finalize(min_rows=2))
    prepared = sink.prepare(strict)
    receipt = write(sink, prepared, [batch(900, 1)])
    one = marker(1, run="three").model_copy(update={"rows_total": 1})
    with pytest.raises(AuditFailedError):
        sink.commit(prepared, [receipt], one)
    assert table.refresh().scan().to_arrow().num_rows == expected


def test_a_schema_evolves_through_a_rest_catalog(settings):
    wanted = target()
    _, prepared = load(settings, wanted, "one", 0)
    schema = pa.schema([*wanted.schema, ("new", pa.string())])
    evolving = SinkTarget(
        stream=wanted.stream,
        path=wanted.path,
        schema=schema,
        write_mode=wanted.write_mode,
        schema_change=SchemaChange.EVOLVE,
    )
    sink = IcebergSink.from_settings(settings, TENANT)
    prepared = sink.prepare(evolving)
    rows = batch(100, 10).append_column("new", pa.array(["x"] * 10))
    receipt = write(sink, prepared, [pa.record_batch(rows.columns, schema=schema)])
    sink.commit(prepared, [receipt], marker(1, run="two"))
    identifier = tuple(prepared.payload["identifier"])
    table = open_catalog(CatalogConfig.from_settings(settings)).load_table(identifier)
    assert table.scan().to_arrow()["new"].null_count == 100
