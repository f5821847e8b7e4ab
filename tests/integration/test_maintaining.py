"""Maintenance of a tenant's tables: budgets, runs that go on, and the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.cli import main
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.local import local_ports
from matih_ray.control.maintenance import maintain_tables, standing_policy
from matih_ray.control.ports import Ports
from matih_ray.errors import ForbiddenError, NotFoundError, ValidationError
from matih_ray.model.ids import RunId
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceReport
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.run import RunRecord, RunState
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.testing.contracts.sink_lab import TENANT, batch, marker, stream, target, write

ENGINEER = Principal("somebody", TENANT, frozenset({Role.DATA_ENGINEER}))
VIEWER = Principal("somebody", TENANT, frozenset({Role.VIEWER}))
TABLES = ["shop.public.a", "shop.public.b", "shop.public.c"]


@pytest.fixture
def ports(tmp_path: Path) -> Ports:
    return local_ports(Settings(home=tmp_path / "home"))


@pytest.fixture
def tables(ports: Ports) -> list[str]:
    """Three tables of five small files each."""
    sink = IcebergSink.from_settings(ports.settings, TENANT)
    for name in TABLES:
        prepared = sink.prepare(target((TENANT, *name.split(".")), unit=name))
        for number in range(5):
            receipt = write(sink, prepared, [batch(number, 20)])
            sink.commit(prepared, [receipt], marker(number + 1))
    return TABLES


def care(ports: Ports, **options) -> Iterator[MaintenanceReport]:
    return maintain_tables(ENGINEER, ports, TENANT, **options)


def test_every_table_of_a_tenant_is_maintained(ports, tables):
    reports = list(care(ports))
    assert sorted(report.table for report in reports) == tables
    assert {(r.compaction.files_before, r.compaction.files_after) for r in reports} == {(5, 1)}


def test_the_budget_is_the_tenants_and_not_each_tables(ports, tables):
    size = next(iter(care(ports, dry_run=True))).compaction.bytes_read
    policy = MaintenancePolicy(budget_bytes=2 * size + 100)
    reports = list(care(ports, policy=policy))
    assert [report.compaction.files_before for report in reports] == [5, 5, 0]
    assert reports[-1].compaction.bytes_left >= size - 100


def test_a_table_that_fails_holds_up_no_other(ports, tables):
    policy = MaintenancePolicy(sort_by=("id",))
    sink = IcebergSink.from_settings(ports.settings, TENANT)
    broken = sink._catalog().load_table((TENANT, *tables[1].split(".")))
    told = {"matih.maintenance": '{"sortBy": ["nope"]}'}
    broken.transaction().set_properties(told).commit_transaction()
    reports = {report.table: report for report in care(ports, policy=policy)}
    assert "nope" in (reports[tables[1]].error or "")
    assert reports[tables[0]].compaction.files_before == 5
    told = {"matih.maintenance": "nonsense"}
    sink._catalog().load_table(broken.name()).transaction().set_properties(
        told
    ).commit_transaction()
    (report,) = care(ports, tables=[tables[1]])
    assert "no JSON object" in (report.error or "")


def test_files_of_a_run_that_goes_on_are_no_orphans(ports, tables):
    policy = MaintenancePolicy(orphan_age_s=0)
    run = RunRecord(
        run_id=RunId("r"),
        stream=stream(),
        state=RunState.QUEUED,
        policy=IngestionPolicy(),
        created_at=ports.clock(),
    )
    ports.metadata.create_run(run)
    sink = IcebergSink.from_settings(ports.settings, TENANT)
    prepared = sink.prepare(target((TENANT, *tables[0].split(".")), unit=tables[0]))
    receipt = write(sink, prepared, [batch()])
    assert next(care(ports, policy=policy, tables=tables[:1])).orphan_files == 0
    sink.commit(prepared, [receipt], marker(6))
    write(sink, prepared, [batch()])
    found = ports.metadata.get_run(TENANT, run.run_id)
    ports.metadata.update_run(found.model_copy(update={"state": RunState.CANCELLED}))
    assert next(care(ports, policy=policy, tables=tables[:1])).orphan_files == 1


def test_what_may_not_be_maintained_is_refused(ports, tables):
    with pytest.raises(ForbiddenError):
        next(maintain_tables(VIEWER, ports, TENANT))
    with pytest.raises(NotFoundError, match="nothing"):
        next(care(ports, tables=["nothing"]))
    with pytest.raises(NotFoundError, match="no sink"):
        next(care(ports, sink_id="nothing"))
    with pytest.raises(ValidationError):
        standing_policy(Settings(maintenance_policy='{"minFiles": 0}'))


def test_the_settings_say_what_is_done_by_default():
    settings = Settings(maintenance_policy='{"minFiles": 9}', maintenance_budget_bytes=7)
    policy = standing_policy(settings)
    assert (policy.min_files, policy.budget_bytes) == (9, 7)


def test_the_command_tells_what_it_did(ports, tables, monkeypatch, capfd):
    monkeypatch.setenv("MATIH_HOME", str(ports.settings.home))

    def matih(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["matih", "maintain", "--tenant", TENANT, *arguments])
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        else:
            code = 0
        return code, *capfd.readouterr()

    code, out, _ = matih("--dry-run", "--json", tables[0])
    (report,) = json.loads(out)
    assert (code, report["dryRun"], report["compaction"]["filesBefore"]) == (0, True, 5)
    code, out, _ = matih("--policy", "minFiles:=6", tables[0])
    assert out.splitlines()[1].split("\t")[:3] == [tables[0], "0", "0"]
    code, out, _ = matih()
    assert code == 0
    rows = [line.split("\t")[:3] for line in out.splitlines()[1:]]
    assert sorted(rows) == [[name, "5", "1"] for name in tables]
    code, _, err = matih("--policy", 'sortBy:=["nope"]')
    assert (code, "nope" in err) == (1, True)
    code, _, err = matih("nothing")
    assert (code, "no table 'nothing'" in err) == (2, True)
