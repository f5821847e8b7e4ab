"""Taking back what a run has committed: rows, markers, checkpoint, and who is in the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from matih_ray.control.authorization import Principal, Role
from matih_ray.control.local import local_ports
from matih_ray.control.rollback import rollback_run
from matih_ray.errors import ConflictError, FencedError, ForbiddenError, RunOverlapError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import RunId
from matih_ray.model.maintenance import MaintenancePolicy
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.run import CHECKPOINT_BEFORE, RunRecord, RunState
from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget, SupportsRollback
from matih_ray.testing.contracts.sink_lab import (
    TENANT,
    assert_rows,
    batch,
    marker,
    stream,
    target,
    write,
)
from matih_ray.testing.iceberg import IcebergLake


class Lake(IcebergLake):
    """One table and its runs."""

    def __init__(self, settings: Settings, mode: WriteMode = WriteMode.APPEND) -> None:
        super().__init__(settings)
        self.wanted = replace(target(mode=mode), stream=STREAM)

    def run(self, name: str, *starts: int, published: bool = True) -> PreparedTarget:
        """Commit batches of 100 rows, one commit each."""
        sink = self.sink()
        prepared = sink.prepare(self.wanted)
        shows = self.wanted.write_mode.shows_each_commit
        for number, start in enumerate(starts, 1):
            receipt = write(sink, prepared, [batch(start, 100)])
            last = number == len(starts)
            told = marker(number, run=name, published=shows or (published and last))
            sink.commit(prepared, [receipt], told)
        return prepared

    def care(self, prepared: PreparedTarget, **policy) -> None:
        name = ".".join(prepared.payload["identifier"][1:])
        now = datetime.now(timezone.utc) + timedelta(seconds=5)
        wanted = MaintenancePolicy(keep_snapshots=1, orphan_age_s=3600, **policy)
        assert self.sink().maintain(name, wanted, now).error is None


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(Settings(home=tmp_path / "lake"))


def test_readers_see_what_they_saw_before_the_run(lake):
    lake.run("one", 0)
    prepared = lake.run("two", 100, 200)
    assert isinstance(lake.sink(), SupportsRollback)
    lake.sink().rollback(prepared, RunId("two"))
    assert_rows(lake, prepared, batch(0, 100))
    table = lake.table(prepared)
    assert set(table.metadata.refs) == {"main"}
    assert table.current_snapshot().summary["total-records"] == "100"
    before = table.current_snapshot().snapshot_id
    lake.sink().rollback(prepared, RunId("two"))  # a second call changes nothing
    assert lake.table(prepared).current_snapshot().snapshot_id == before


def test_a_new_run_goes_on_and_the_old_one_is_fenced(lake):
    lake.run("one", 0)
    prepared = lake.run("two", 100)
    receipt = write(lake.sink(), prepared, [batch(200, 100)])
    lake.sink().rollback(prepared, RunId("two"))
    with pytest.raises(FencedError):
        lake.sink().commit(prepared, [receipt], marker(2, run="two"))
    again = lake.sink().prepare(lake.wanted)
    with pytest.raises(FencedError):
        lake.sink().commit(again, [receipt], marker(1, run="two"))
    lake.run("three", 300)
    assert_rows(lake, prepared, batch(0, 100), batch(300, 100))


def test_the_first_run_of_a_table_leaves_it_empty(lake):
    prepared = lake.run("one", 0, 100)
    lake.sink().rollback(prepared, RunId("one"))
    assert lake.read(prepared).num_rows == 0
    lake.run("two", 500)
    assert_rows(lake, prepared, batch(500, 100))


def test_an_overwrite_gives_the_old_rows_back(tmp_path):
    lake = Lake(Settings(home=tmp_path), WriteMode.OVERWRITE)
    lake.run("one", 0, 100)
    prepared = lake.run("two", 1000, 1100, 1200)
    assert_rows(lake, prepared, batch(1000, 300))
    lake.sink().rollback(prepared, RunId("two"))
    assert_rows(lake, prepared, batch(0, 200))


def test_an_overwrite_that_nobody_has_seen_is_dropped(tmp_path):
    lake = Lake(Settings(home=tmp_path), WriteMode.OVERWRITE)
    lake.run("one", 0)
    prepared = lake.run("two", 1000, 1100, published=False)
    lake.sink().rollback(prepared, RunId("two"))
    assert set(lake.table(prepared).metadata.refs) == {"main"}
    assert_rows(lake, prepared, batch(0, 100))
    lake.run("three", 2000)
    assert_rows(lake, prepared, batch(2000, 100))


def test_a_merge_gives_the_old_versions_back(tmp_path):
    lake = Lake(Settings(home=tmp_path), WriteMode.MERGE)
    lake.run("one", 0)
    prepared = lake.run("two", 50, 70)
    lake.sink().rollback(prepared, RunId("two"))
    assert_rows(lake, prepared, batch(0, 100))


def test_a_run_under_that_of_another_stays(lake):
    lake.run("one", 0)
    prepared = lake.run("two", 100)
    with pytest.raises(ConflictError, match="newest"):
        lake.sink().rollback(prepared, RunId("one"))
    rows = pa.Table.from_batches([batch(900, 10)])
    lake.table(prepared).append(rows)
    with pytest.raises(ConflictError, match="others"):
        lake.sink().rollback(prepared, RunId("two"))
    assert_rows(lake, prepared, batch(0, 200), batch(900, 10))


def test_what_others_committed_between_a_runs_commits_stays(lake):
    sink = lake.sink()
    prepared = sink.prepare(lake.wanted)
    sink.commit(prepared, [write(sink, prepared, [batch(0, 100)])], marker(1, run="one"))
    lake.table(prepared).append(pa.Table.from_batches([batch(900, 10)]))
    sink.commit(prepared, [write(sink, prepared, [batch(100, 100)])], marker(2, run="one"))
    with pytest.raises(ConflictError, match="between"):
        sink.rollback(prepared, RunId("one"))


def test_maintenance_is_taken_back_with_the_run(lake):
    for number in range(5):
        lake.run(f"run {number}", number * 100)
    prepared = lake.run("last", 1000, 1100)
    lake.care(prepared)
    assert_rows(lake, prepared, batch(0, 500), batch(1000, 200))
    lake.sink().rollback(prepared, RunId("last"))
    assert_rows(lake, prepared, batch(0, 500))
    lake.care(prepared)
    assert_rows(lake, prepared, batch(0, 500))


def test_what_has_expired_cannot_come_back(lake):
    lake.run("one", 0)
    prepared = lake.run("two", 100)
    lake.care(prepared, snapshot_age_s=0)
    with pytest.raises(ConflictError, match="expired"):
        lake.sink().rollback(prepared, RunId("two"))
    assert_rows(lake, prepared, batch(0, 200))


@pytest.mark.parametrize("moment", ["after_commit", "before_commit"])
@pytest.mark.parametrize("which", [1, 2])
def test_a_lost_reply_is_settled(lake, moment, which):
    lake.run("one", 0)
    prepared = lake.run("two", 100)
    sink = lake.sink()
    count = 0

    def lose(session: Session) -> None:
        nonlocal count
        count += 1
        if count == which:
            raise OperationalError("COMMIT", None, Exception("connection lost"))

    event.listen(Session, moment, lose)
    try:
        sink.rollback(prepared, RunId("two"))
    finally:
        event.remove(Session, moment, lose)
    assert count >= which
    assert_rows(lake, prepared, batch(0, 100))


# --- with the checkpoint


# the lab's stream, in the sink that settings describe
STREAM = stream().model_copy(update={"sink_id": "iceberg"})
ENGINEER = Principal("somebody", TENANT, frozenset({Role.DATA_ENGINEER}))


@pytest.mark.parametrize("before", [None, Checkpoint(cursor=7, cursor_column="id", run_id="one")])
def test_the_checkpoint_is_put_back(lake, before):
    ports = local_ports(lake.settings)
    key = STREAM.kv_key()
    version = 0
    if before is not None:
        version = ports.kv.compare_and_set(TENANT, key, before.to_dict(), 0)
    prepared = lake.run("two", 100)
    after = Checkpoint(cursor=9, cursor_column="id", run_id=RunId("two"))
    ports.kv.compare_and_set(TENANT, key, after.to_dict(), version)
    told = None if before is None else before.to_dict()
    run = RunRecord(
        run_id=RunId("two"),
        stream=STREAM,
        state=RunState.QUEUED,
        policy=IngestionPolicy(),
        target=prepared.to_dict(),
        statistics={CHECKPOINT_BEFORE: told},
        created_at=ports.clock(),
    )
    created = ports.metadata.create_run(run)
    with pytest.raises(RunOverlapError):
        rollback_run(ENGINEER, ports, TENANT, run.run_id)
    ports.metadata.update_run(created.model_copy(update={"state": RunState.CANCELLED}))
    viewer = Principal("somebody", TENANT, frozenset({Role.VIEWER}))
    with pytest.raises(ForbiddenError):
        rollback_run(viewer, ports, TENANT, run.run_id)
    for _ in range(2):
        rolled = rollback_run(ENGINEER, ports, TENANT, run.run_id)
        assert "rolledBackAt" in rolled.statistics
        stored = ports.kv.get(TENANT, key)
        assert (None if stored is None else stored.value) == told
    assert lake.read(prepared).num_rows == 0


def test_a_run_that_wrote_nothing_or_is_too_old_cannot_be_taken_back(lake):
    ports = local_ports(lake.settings)
    run = RunRecord(
        run_id=RunId("r"),
        stream=STREAM,
        state=RunState.QUEUED,
        policy=IngestionPolicy(),
        created_at=ports.clock(),
    )
    created = ports.metadata.create_run(run)
    ended = ports.metadata.update_run(created.model_copy(update={"state": RunState.CANCELLED}))
    with pytest.raises(ConflictError, match="nothing"):
        rollback_run(ENGINEER, ports, TENANT, run.run_id)
    prepared = lake.run("r", 0)
    ports.metadata.update_run(ended.model_copy(update={"target": prepared.to_dict()}))
    with pytest.raises(ConflictError, match="older runtime"):
        rollback_run(ENGINEER, ports, TENANT, run.run_id)
