"""Compaction, manifest merging, expiry and orphans: readers see the same rows, writers go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from matih_ray.errors import ForbiddenError
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceReport, MaintenanceTask
from matih_ray.model.policy import MergeRule, WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, PreparedTarget, SupportsMaintenance, WorkItem
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.maintenance import replacing
from matih_ray.testing.contracts.sink_lab import (
    ROWS,
    assert_rows,
    batch,
    marker,
    target,
    write,
)
from matih_ray.testing.iceberg import IcebergLake

COMPACT = MaintenancePolicy(tasks=(MaintenanceTask.COMPACT, MaintenanceTask.MANIFESTS))
EXPIRE = MaintenancePolicy(tasks=(MaintenanceTask.EXPIRE,), keep_snapshots=1, snapshot_age_s=0)
ORPHANS = MaintenancePolicy(tasks=(MaintenanceTask.ORPHANS,))


class Lake(IcebergLake):
    """A tenant's tables, their sink and their care."""

    def name(self, prepared: PreparedTarget) -> str:
        return ".".join(prepared.payload["identifier"][1:])

    def files(self, prepared: PreparedTarget) -> list[Path]:
        tasks = self.table(prepared).scan().plan_files()
        return [Path(task.file.file_path.removeprefix("file://")) for task in tasks]

    def all_files(self, prepared: PreparedTarget, pattern: str = "*.parquet") -> set[Path]:
        location = Path(self.table(prepared).location().removeprefix("file://"))
        return set(location.rglob(pattern))

    def care(
        self,
        prepared: PreparedTarget,
        policy: MaintenancePolicy,
        sink: IcebergSink | None = None,
        *,
        later: timedelta = timedelta(),
        protect_since: datetime | None = None,
        dry_run: bool = False,
    ) -> MaintenanceReport:
        now = datetime.now(timezone.utc) + later
        report = (sink or self.sink()).maintain(
            self.name(prepared), policy, now, protect_since=protect_since, dry_run=dry_run
        )
        assert report.error is None
        return report


class Meddler:
    """A workforce during whose work something else happens to the table."""

    parallelism = 2

    def __init__(self, sink: IcebergSink, meddle: Callable[[], None]) -> None:
        self.sink, self.meddle = sink, meddle

    def run(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        results = [self.sink.work(item) for item in items]
        meddle, self.meddle = self.meddle, lambda: None
        meddle()
        return results


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(Settings(home=tmp_path_factory.mktemp("lake")))


def filled(lake: Lake, commits: int = 6, rows: int = 50, **options) -> PreparedTarget:
    """A table of as many files as commits, at least."""
    sink = lake.sink()
    prepared = sink.prepare(target(**options))
    for number in range(commits):
        receipt = write(sink, prepared, [batch(number * rows, rows)])
        sink.commit(prepared, [receipt], marker(number + 1))
    return prepared


# --- compaction


def test_small_files_become_one_and_readers_see_the_same_rows(lake):
    prepared = filled(lake, commits=6)
    before = lake.files(prepared)
    report = lake.care(prepared, COMPACT)
    assert len(lake.files(prepared)) == 1
    assert_rows(lake, prepared, batch(0, 300))
    done = report.compaction
    assert (done.files_before, done.files_after) == (6, 1)
    assert done.bytes_read == sum(path.stat().st_size for path in before)
    assert done.bytes_written == lake.files(prepared)[0].stat().st_size
    snapshot = lake.table(prepared).current_snapshot()
    assert snapshot.summary.operation.value == "replace"
    assert snapshot.summary["total-records"] == "300"
    assert snapshot.summary["total-data-files"] == "1"
    assert (report.manifests_before, report.manifests_after) == (6, 2)


def test_each_partition_is_compacted_for_itself(lake):
    prepared = filled(lake, commits=5, rows=60, partition_by=("bucket(3, id)",))
    assert len(lake.files(prepared)) == 15
    lake.care(prepared, COMPACT)
    assert len(lake.files(prepared)) == 3
    assert_rows(lake, prepared, batch(0, 300))


def test_a_second_pass_finds_nothing_to_do(lake):
    prepared = filled(lake)
    lake.care(prepared, COMPACT)
    head = lake.table(prepared).current_snapshot().snapshot_id
    report = lake.care(prepared, COMPACT)
    assert report.compaction.files_before == 0
    assert lake.table(prepared).current_snapshot().snapshot_id == head


def test_a_large_file_is_not_written_again_for_a_few_small_ones(lake):
    sink = lake.sink()
    prepared = sink.prepare(target())
    sizes = [20 * ROWS, *[20] * 5]
    for number, rows in enumerate(sizes):
        sink.commit(prepared, [write(sink, prepared, [batch(0, rows)])], marker(number + 1))
    large = max(lake.files(prepared), key=lambda path: path.stat().st_size)
    report = lake.care(prepared, COMPACT)
    assert report.compaction.files_before == 5
    assert large in lake.files(prepared)
    assert len(lake.files(prepared)) == 2


def test_rows_are_sorted_where_asked(lake):
    prepared = filled(lake, commits=5, rows=40)
    policy = COMPACT.model_copy(update={"sort_by": ("day", "id")})
    lake.care(prepared, policy)
    (path,) = lake.files(prepared)
    rows = pq.read_table(path).to_pylist()
    keys = [(row["day"] is None, row["day"] or date.max, row["id"]) for row in rows]
    assert keys == sorted(keys)
    assert_rows(lake, prepared, batch(0, 200))


def test_sorting_by_what_is_not_there_is_refused(lake):
    prepared = filled(lake, commits=4)
    policy = COMPACT.model_copy(update={"sort_by": ("nope",)})
    now = datetime.now(timezone.utc)
    report = lake.sink().maintain(lake.name(prepared), policy, now)
    assert "nope" in (report.error or "")


def test_a_budget_leaves_the_rest_for_the_next_pass(lake):
    prepared = filled(lake, commits=4, rows=60, partition_by=("bucket(2, id)",))
    size = max(path.stat().st_size for path in lake.files(prepared))
    policy = COMPACT.model_copy(update={"budget_bytes": size * 5})
    report = lake.care(prepared, policy)
    assert (report.compaction.files_before, report.compaction.bytes_left > 0) == (4, True)
    assert "budget" in report.notes[0]
    lake.care(prepared, policy)
    assert len(lake.files(prepared)) == 2
    assert_rows(lake, prepared, batch(0, 240))


def test_a_dry_run_changes_nothing_and_tells_everything(lake):
    prepared = filled(lake)
    sink = lake.sink()
    lost = write(sink, prepared, [batch()])
    files, metadata = lake.all_files(prepared), lake.table(prepared).metadata_location
    policy = MaintenancePolicy(snapshot_age_s=0, keep_snapshots=1, orphan_age_s=0)
    report = lake.care(prepared, policy, later=timedelta(seconds=5), dry_run=True)
    assert (report.compaction.files_before, report.compaction.files_after) == (6, 1)
    assert report.snapshots_expired == 5
    assert (report.orphan_files, report.orphan_bytes) == (1, lost.bytes)
    assert lake.all_files(prepared) == files
    assert lake.table(prepared).metadata_location == metadata


# --- beside writers


def test_an_append_during_a_compaction_stays(lake):
    prepared = filled(lake)
    other = lake.sink()
    mine = other.prepare(target(prepared_path(prepared), unit="another"))

    def append() -> None:
        receipt = write(other, mine, [batch(300, 50)])
        other.commit(mine, [receipt], marker(1, run="another"))

    sink = lake.sink()
    sink.hire(Meddler(lake.sink(), append))
    report = lake.care(prepared, COMPACT, sink)
    assert (report.compaction.files_before, report.compaction.groups_lost) == (6, 0)
    assert_rows(lake, prepared, batch(0, 350))
    assert len(lake.files(prepared)) == 2


def test_a_merge_during_a_compaction_wins_and_loses_no_row(lake):
    rule = MergeRule(key=("id",))
    prepared = filled(lake, mode=WriteMode.MERGE, merge=rule)
    other = lake.sink()

    def merge() -> None:
        receipt = write(other, prepared, [batch(100, 20)])
        other.commit(prepared, [receipt], marker(7))

    sink = lake.sink()
    sink.hire(Meddler(lake.sink(), merge))
    written = lake.all_files(prepared)
    report = lake.care(prepared, COMPACT, sink)
    assert report.compaction.groups_lost == 1
    assert_rows(lake, prepared, batch(0, 300))
    new = {path.name for path in lake.all_files(prepared) - written}
    assert not [name for name in new if name.startswith("compacted")]
    assert lake.care(prepared, COMPACT).compaction.groups_lost == 0
    assert_rows(lake, prepared, batch(0, 300))


def test_a_compaction_during_a_merge_loses_no_row(lake):
    prepared = filled(lake, mode=WriteMode.MERGE, merge=MergeRule(key=("id",)))
    sink = lake.sink()
    policy = MaintenancePolicy(snapshot_age_s=0, keep_snapshots=1, orphan_age_s=3600)
    sink.hire(Meddler(lake.sink(), lambda: lake.care(prepared, policy)))
    receipt = write(sink, prepared, [batch(100, 250)])
    assert sink.commit(prepared, [receipt], marker(7)) is CommitOutcome.APPLIED
    assert_rows(lake, prepared, batch(0, 350))


def test_an_overwrite_that_is_half_done_survives_all_care(lake):
    prepared = filled(lake)
    sink = lake.sink()
    wanted = target(prepared_path(prepared), mode=WriteMode.OVERWRITE)
    over = sink.prepare(wanted)
    first = marker(1, run="over", published=False)
    sink.commit(over, [write(sink, over, [batch(1000, 50)])], first)
    policy = MaintenancePolicy(snapshot_age_s=0, keep_snapshots=1, orphan_age_s=0)
    lake.care(prepared, policy, later=timedelta(seconds=5))
    assert_rows(lake, prepared, batch(0, 300))
    sink.commit(over, [write(sink, over, [batch(1050, 50)])], marker(2, run="over"))
    assert_rows(lake, prepared, batch(1000, 100))


@pytest.mark.parametrize("moment", ["after_commit", "before_commit"])
def test_a_lost_reply_of_the_catalog_replaces_nothing_twice(lake, moment):
    prepared = filled(lake)

    def lose(session: Session) -> None:
        event.remove(Session, moment, lose)
        raise OperationalError("COMMIT", None, Exception("connection lost"))

    sink = lake.sink()
    sink.hire(Meddler(lake.sink(), lambda: event.listen(Session, moment, lose)))
    report = lake.care(prepared, COMPACT, sink)
    assert report.compaction.files_before == 6
    assert len(lake.files(prepared)) == 1
    assert_rows(lake, prepared, batch(0, 300))


def test_a_writer_that_is_always_faster_makes_a_pass_give_up_cleanly(lake, monkeypatch):
    monkeypatch.setattr(replacing, "MAX_ATTEMPTS", 3)
    prepared = filled(lake)
    made = replacing.ReplacingCommit._commit
    rows = iter(range(1000, 2000))

    def overtaken(*arguments) -> None:
        lake.table(prepared).append(pa.Table.from_batches([batch(next(rows), 1)]))
        made(*arguments)

    monkeypatch.setattr(replacing.ReplacingCommit, "_commit", overtaken)
    files = lake.all_files(prepared)
    now = datetime.now(timezone.utc)
    report = lake.sink().maintain(lake.name(prepared), COMPACT, now)
    assert "in a row" in (report.error or "")
    new = lake.all_files(prepared) - files
    assert not [path for path in new if path.name.startswith("compacted")]
    assert_rows(lake, prepared, batch(0, 300), batch(1000, 3))


# --- manifests


def test_manifests_are_merged_without_touching_data(lake):
    prepared = filled(lake, commits=14, rows=5)
    files = set(lake.files(prepared))
    policy = MaintenancePolicy(tasks=(MaintenanceTask.MANIFESTS,))
    report = lake.care(prepared, policy)
    assert (report.manifests_before, report.manifests_after) == (14, 1)
    assert set(lake.files(prepared)) == files
    assert_rows(lake, prepared, batch(0, 70))
    assert lake.table(prepared).current_snapshot().summary["total-data-files"] == "14"


# --- expiry


def test_expired_snapshots_take_their_files_with_them_and_leave_the_markers(lake):
    prepared = filled(lake)
    before = lake.all_files(prepared)
    lake.care(prepared, COMPACT)
    report = lake.care(prepared, EXPIRE, later=timedelta(seconds=5))
    assert report.snapshots_expired == 6
    assert len(lake.table(prepared).metadata.snapshots) == 1
    assert not (lake.all_files(prepared) & before)
    assert_rows(lake, prepared, batch(0, 300))
    sink = lake.sink()
    assert sink.last_marker(prepared) == marker(6)
    assert sink.commit(prepared, [], marker(6)) is CommitOutcome.ALREADY_APPLIED
    sink.commit(prepared, [write(sink, prepared, [batch(300, 50)])], marker(7))
    assert_rows(lake, prepared, batch(0, 350))


def test_young_snapshots_and_the_newest_ones_stay(lake):
    prepared = filled(lake)
    policy = MaintenancePolicy(tasks=(MaintenanceTask.EXPIRE,), keep_snapshots=1)
    assert lake.care(prepared, policy).snapshots_expired == 0
    kept = EXPIRE.model_copy(update={"keep_snapshots": 4})
    assert lake.care(prepared, kept, later=timedelta(seconds=5)).snapshots_expired == 2
    assert_rows(lake, prepared, batch(0, 300))


def test_a_tagged_snapshot_stays_readable(lake):
    prepared = filled(lake)
    table = lake.table(prepared)
    first = table.metadata.snapshots[0].snapshot_id
    table.manage_snapshots().create_tag(first, "audited").commit()
    lake.care(prepared, COMPACT)
    assert lake.care(prepared, EXPIRE, later=timedelta(seconds=5)).snapshots_expired == 5
    assert lake.table(prepared).scan(snapshot_id=first).to_arrow().num_rows == 50


def test_the_newest_commit_of_another_engine_stays(lake):
    prepared = filled(lake, commits=1)
    table = lake.table(prepared)
    for checkpoint in ("1", "2"):
        rows = pa.Table.from_batches([batch(0, 5)])
        table.append(rows, snapshot_properties={"flink.job-id": "j", "flink.max": checkpoint})
    table.append(pa.Table.from_batches([batch(0, 5)]))
    lake.care(prepared, EXPIRE, later=timedelta(seconds=5))
    summaries = [one.summary.get("flink.max") for one in lake.table(prepared).metadata.snapshots]
    assert summaries == ["2", None]


# --- orphans


def test_orphans_go_when_they_are_old_enough(lake):
    prepared = filled(lake)
    sink = lake.sink()
    lost = write(sink, prepared, [batch()])
    (path,) = [Path(str(one["path"]).removeprefix("file://")) for one in lost.payload["files"]]
    assert lake.care(prepared, ORPHANS).orphan_files == 0
    aged = timedelta(seconds=ORPHANS.orphan_age_s + 60)
    started = datetime.now(timezone.utc) - timedelta(hours=1)
    report = lake.care(prepared, ORPHANS, later=aged, protect_since=started)
    assert (report.orphan_files, path.exists()) == (0, True)
    report = lake.care(prepared, ORPHANS, later=aged)
    assert (report.orphan_files, report.orphan_bytes) == (1, lost.bytes)
    assert not path.exists()
    assert_rows(lake, prepared, batch(0, 300))


def test_files_of_other_tables_and_of_other_people_are_no_orphans(lake):
    prepared = filled(lake)
    path = (*prepared_path(prepared), "data")
    inner = lake.sink().prepare(target(path, unit="inner"))
    receipt = write(lake.sink(), inner, [batch(0, 10)])
    lake.sink().commit(inner, [receipt], marker(1))
    location = Path(lake.table(prepared).location().removeprefix("file://"))
    (location / "data" / "notes.txt").write_text("mine")
    aged = timedelta(seconds=ORPHANS.orphan_age_s + 60)
    assert lake.care(prepared, ORPHANS, later=aged).orphan_files == 0
    assert_rows(lake, inner, batch(0, 10))


def test_everything_of_a_table_is_named_by_it(lake):
    prepared = filled(lake, partition_by=("day(at)",))
    lake.care(prepared, COMPACT)
    aged = timedelta(seconds=ORPHANS.orphan_age_s + 60)
    for path in lake.all_files(prepared, "*"):
        os.utime(path, (0, 0)) if path.is_file() else None
    assert lake.care(prepared, ORPHANS, later=aged).orphan_files == 0


# --- tenants and tables


def test_a_sink_lists_and_touches_its_own_tenants_tables_only(lake):
    prepared = filled(lake)
    assert isinstance(lake.sink(), SupportsMaintenance)
    assert lake.name(prepared) in lake.sink().tables()
    other = IcebergSink.from_settings(lake.settings, "globex")
    assert other.tables() == []
    items: list[WorkItem] = []
    spy = lake.sink()
    spy.hire(Meddler(lake.sink(), lambda: None))
    run = Meddler.run

    class Spy(Meddler):
        def run(self, given: Sequence[WorkItem]) -> list[WorkItem]:
            items.extend(given)
            return run(self, given)

    spy.hire(Spy(lake.sink(), lambda: None))
    lake.care(prepared, COMPACT, spy)
    with pytest.raises(ForbiddenError):
        other.work(items[0])


def test_a_table_says_for_itself_how_it_is_cared_for(lake):
    prepared = filled(lake)
    table = lake.table(prepared)
    table.transaction().set_properties({"matih.maintenance": "off"}).commit_transaction()
    assert lake.care(prepared, COMPACT).notes == ("switched off",)
    table = lake.table(prepared)
    own = {"matih.maintenance": '{"minFiles": 10}'}
    table.transaction().set_properties(own).commit_transaction()
    assert lake.care(prepared, COMPACT).compaction.files_before == 0


def prepared_path(prepared: PreparedTarget) -> tuple[str, ...]:
    return tuple(prepared.display_name.split("."))
