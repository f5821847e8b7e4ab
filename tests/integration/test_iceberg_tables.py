"""Looking back, and laying a table out anew: in the sink, for those who may, and as a command."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from matih_ray.cli import main
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.local import local_ports
from matih_ray.control.ports import Ports
from matih_ray.control.streams import check_finalize
from matih_ray.control.tables import (
    list_snapshots,
    list_tables,
    rename_table_column,
    repartition_table,
)
from matih_ray.errors import ForbiddenError, NotFoundError, ValidationError
from matih_ray.model.finalize import Finalize
from matih_ray.model.ids import SinkId, TenantId
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceTask
from matih_ray.model.policy import IngestionPolicy, MergeRule, SchemaChange, WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import SinkTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.testing.contracts.sink_lab import TENANT, batch, marker, target, write

ENGINEER = Principal("somebody", TENANT, frozenset({Role.DATA_ENGINEER}))
VIEWER = Principal("somebody", TENANT, frozenset({Role.VIEWER}))
NAME = "shop.public.orders"
PATH = (TENANT, *NAME.split("."))


@pytest.fixture
def ports(tmp_path: Path) -> Ports:
    return local_ports(Settings(home=tmp_path / "home"))


def load(ports: Ports, wanted: SinkTarget, run: str, *starts: int) -> None:
    sink = IcebergSink.from_settings(ports.settings, TENANT)
    prepared = sink.prepare(wanted)
    for number, start in enumerate(starts, 1):
        receipt = write(sink, prepared, [batch(start, 100)])
        sink.commit(prepared, [receipt], marker(number, run=run))


def table(ports: Ports):
    return open_catalog(CatalogConfig.from_settings(ports.settings)).load_table(PATH)


def test_snapshots_say_when_what_and_by_which_run_and_can_be_read(ports):
    load(ports, target(PATH), "one", 0, 100)
    load(ports, target(PATH, unit="other"), "two", 200)
    held = table(ports)
    held.manage_snapshots().create_tag(held.metadata.snapshots[0].snapshot_id, "first").commit()
    found = list_snapshots(VIEWER, ports, TENANT, NAME)
    assert [(one.run_id, one.rows, one.rows_added, one.files) for one in found] == [
        ("two", 300, 100, 3),
        ("one", 200, 100, 2),
        ("one", 100, 100, 1),
    ]
    assert [one.refs for one in found] == [("main",), (), ("first",)]
    assert [one.is_current for one in found] == [True, False, False]
    assert [one.parent_id for one in found] == [found[1].snapshot_id, found[2].snapshot_id, None]
    for one in found:
        assert table(ports).scan(snapshot_id=int(one.snapshot_id)).to_arrow().num_rows == one.rows


def test_the_command_lists_tables_and_snapshots(ports, monkeypatch, capsys):
    load(ports, target(PATH), "one", 0)
    monkeypatch.setenv("MATIH_HOME", str(ports.settings.home))
    for arguments in (["list"], ["snapshots", NAME]):
        monkeypatch.setattr(
            sys, "argv", ["matih", "tables", *arguments, "--tenant", TENANT, "--json"]
        )
        assert _exit_code() == 0
    listed, snapshots = (json.loads(line) for line in _documents(capsys.readouterr().out))
    assert listed == [NAME]
    assert [(one["runId"], one["rows"], one["isCurrent"]) for one in snapshots] == [
        ("one", 100, True)
    ]
    monkeypatch.setattr(
        sys, "argv", ["matih", "tables", "snapshots", "no.such", "--tenant", TENANT]
    )
    assert _exit_code() == 2
    assert "no.such" in capsys.readouterr().err


def _exit_code() -> int:
    try:
        main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def _documents(text: str) -> list[str]:
    decoder, found = json.JSONDecoder(), []
    while text.strip():
        text = text.lstrip()
        _, end = decoder.raw_decode(text)
        found.append(text[:end])
        text = text[end:]
    return found


def test_a_table_is_partitioned_anew_without_rewriting_it(ports):
    rule = MergeRule(key=("id",))
    wanted = target(PATH, mode=WriteMode.MERGE, merge=rule, partition_by=("bucket(2, id)",))
    load(ports, wanted, "one", 0)
    before = {task.file.file_path for task in table(ports).scan().plan_files()}
    repartition_table(ENGINEER, ports, TENANT, NAME, ["day(at)", "bucket(2, id)"])
    assert {task.file.file_path for task in table(ports).scan().plan_files()} == before
    assert [field.name for field in table(ports).spec().fields] == ["id_bucket_2", "at_day"]
    load(ports, wanted, "two", 50)
    assert sorted(table(ports).scan().to_arrow()["id"].to_pylist()) == list(range(150))
    specs = {task.file.spec_id for task in table(ports).scan().plan_files()}
    assert len(specs) == 1  # a merge writes what it rewrites in the new layout
    repartition_table(ENGINEER, ports, TENANT, NAME, [])
    sink = IcebergSink.from_settings(ports.settings, TENANT)
    policy = MaintenancePolicy(tasks=(MaintenanceTask.COMPACT,), min_files=2)
    assert sink.maintain(NAME, policy, ports.clock()).error is None
    assert sorted(table(ports).scan().to_arrow()["id"].to_pylist()) == list(range(150))
    repartition_table(ENGINEER, ports, TENANT, NAME, ["id"])
    repartition_table(ENGINEER, ports, TENANT, NAME, ["id"])  # nothing to do
    load(ports, target(PATH, unit="other"), "three", 900)
    assert table(ports).scan(row_filter="id = 901").to_arrow().num_rows == 1


def test_a_renamed_column_keeps_its_values_through_merges_and_compaction(ports):
    wanted = target(PATH, mode=WriteMode.MERGE, merge=MergeRule(key=("id",)))
    wanted = replace(wanted, schema_change=SchemaChange.EVOLVE)
    load(ports, wanted, "one", 0)
    before = table(ports).scan().to_arrow()
    rename_table_column(ENGINEER, ports, TENANT, NAME, "name", "title")
    names = ["title" if name == "name" else name for name in batch().schema.names]
    sink = IcebergSink.from_settings(ports.settings, TENANT)
    rows = batch(50, 100).rename_columns(names)
    prepared = sink.prepare(replace(wanted, schema=rows.schema))
    sink.commit(prepared, [write(sink, prepared, [rows])], marker(1, run="two"))
    policy = MaintenancePolicy(tasks=(MaintenanceTask.COMPACT,), min_files=2)
    assert sink.maintain(NAME, policy, ports.clock()).compaction.files_after == 1
    after = table(ports).scan().to_arrow().sort_by("id")
    assert after.column_names == names
    assert after["title"].slice(0, 100).to_pylist() == before.sort_by("id")["name"].to_pylist()
    assert after["title"].slice(50).to_pylist() == batch(50, 100)["name"].to_pylist()
    for column, name in (("name", "x"), ("title", "id"), ("title", "")):
        with pytest.raises(ValidationError):
            rename_table_column(ENGINEER, ports, TENANT, NAME, column, name)


def test_layouts_that_cannot_be_are_refused(ports):
    load(ports, target(PATH), "one", 0)
    for wrong in ("day(id)", "nonsense(at)", "day(no)"):
        with pytest.raises(ValidationError):
            repartition_table(ENGINEER, ports, TENANT, NAME, [wrong])
    with pytest.raises(NotFoundError):
        repartition_table(ENGINEER, ports, TENANT, "no.such", ["id"])
    with pytest.raises(ForbiddenError):
        repartition_table(VIEWER, ports, TENANT, NAME, ["id"])
    with pytest.raises(ForbiddenError):
        list_tables(VIEWER, ports, TenantId("other"))
    with pytest.raises(ValidationError, match="keeps no snapshots"):
        list_tables(VIEWER, ports, TENANT, SinkId("raw"))


def test_a_sink_that_cannot_audit_says_so_before_a_run_begins(ports):
    policy = IngestionPolicy(finalize=Finalize())
    check_finalize(ports, TENANT, SinkId("iceberg"), policy)
    check_finalize(ports, TENANT, SinkId("raw"), IngestionPolicy())
    with pytest.raises(ValidationError, match="cannot audit"):
        check_finalize(ports, TENANT, SinkId("raw"), policy)
