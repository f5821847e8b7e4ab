"""Commits that meet others, lost replies, dead processes and dead servers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from matih_ray.errors import (
    CommitRejectedError,
    CommitUnknownError,
    FencedError,
    SinkError,
    SinkUnavailableError,
)
from matih_ray.model.policy import WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, PreparedTarget
from matih_ray.sinks.iceberg.commit import MAX_ATTEMPTS
from matih_ray.sinks.iceberg.naming import load_branch, marker_property
from matih_ray.testing.contracts.sink_lab import (
    ROWS,
    TENANT,
    assert_rows,
    batch,
    marker,
    stream,
    target,
    write,
)
from matih_ray.testing.devstack.iceberg_rest import LATE_S, CommitFault, IcebergRestServer
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.iceberg import IcebergLake

HERE = Path(__file__).parent


class Lake(IcebergLake):
    """A catalog with the sink on it."""

    def files(self, prepared: PreparedTarget, pattern: str) -> set[Path]:
        location = Path(self.table(prepared).location().removeprefix("file://"))
        return set(location.rglob(pattern))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(Settings(home=tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def rest() -> Iterator[tuple[Lake, IcebergRestServer]]:
    with IcebergRestServer() as server:
        settings = Settings(iceberg_catalog_type="rest", iceberg_catalog_uri=server.uri)
        yield Lake(settings), server


# --- what a commit leaves in the table


def test_the_marker_is_in_the_summary_and_outlives_it_in_a_property(lake):
    sink = lake.sink()
    prepared = sink.prepare(target())
    sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1))
    table = lake.table(prepared)
    assert table.current_snapshot().summary["matih.marker"] == marker(1).to_json()
    assert table.properties[marker_property(stream())] == marker(1).to_json()

    table.append(batch(ROWS).schema.empty_table())  # a snapshot that is not ours
    table.maintenance.expire_snapshots().by_id(table.metadata.snapshots[0].snapshot_id).commit()
    assert lake.sink().last_marker(prepared) == marker(1)
    assert sink.commit(prepared, [], marker(1)) is CommitOutcome.ALREADY_APPLIED
    assert_rows(lake, prepared, batch())


def test_summaries_count_rows_and_files(lake):
    sink = lake.sink()
    prepared = sink.prepare(target(partition_by=("bucket(2, id)",)))
    for sequence in (1, 2):
        sink.commit(prepared, [write(sink, prepared, [batch()])], marker(sequence))
    summary = lake.table(prepared).current_snapshot().summary
    assert summary["added-records"] == str(ROWS)
    assert summary["total-records"] == str(2 * ROWS)
    assert summary["total-data-files"] == "4"


def test_the_rows_before_an_overwrite_stay_reachable_by_snapshot(lake):
    wanted = target(mode=WriteMode.OVERWRITE)
    sink = lake.sink()
    first = sink.prepare(wanted)
    sink.commit(first, [write(sink, first, [batch()])], marker(1))
    before = lake.table(first).current_snapshot()
    second = sink.prepare(wanted)
    sink.commit(second, [write(sink, second, [batch(ROWS)])], marker(1, run="run-2"))
    table = lake.table(second)
    after = table.current_snapshot()
    assert table.scan(snapshot_id=before.snapshot_id).count() == ROWS
    assert after.summary.operation.value == "overwrite"
    assert after.summary["total-records"] == str(ROWS)
    assert load_branch(stream()) not in table.metadata.refs


def test_an_overwrite_in_one_go_is_one_commit_of_the_catalog(lake):
    sink = lake.sink()
    prepared = sink.prepare(target(mode=WriteMode.OVERWRITE))
    versions = len(lake.files(prepared, "*.metadata.json"))
    receipts = [write(sink, prepared, [batch(n * ROWS)], n) for n in range(3)]
    sink.commit(prepared, receipts, marker(1))
    assert len(lake.files(prepared, "*.metadata.json")) == versions + 1
    assert len(lake.table(prepared).metadata.snapshots) == 1


# --- other writers


def test_an_append_goes_on_top_of_what_others_append(lake):
    sink = lake.sink()
    prepared = sink.prepare(target())
    receipt = write(sink, prepared, [batch()])
    lake.table(prepared).append(pa.Table.from_batches([batch(ROWS)]))
    sink.commit(prepared, [receipt], marker(1))
    assert_rows(lake, prepared, batch(), batch(ROWS))


def test_an_overwrite_wins_over_what_others_append_meanwhile(lake):
    sink = lake.sink()
    prepared = sink.prepare(target(mode=WriteMode.OVERWRITE))
    sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1, published=False))
    lake.table(prepared).append(pa.Table.from_batches([batch(ROWS)]))
    assert_rows(lake, prepared, batch(ROWS))
    sink.commit(prepared, [], marker(2))
    assert_rows(lake, prepared, batch())


def test_a_table_made_by_others_is_taken_with_its_own_partitions(lake):
    wanted = target(partition_by=("bucket(9, id)",))
    first = lake.sink().prepare(target())
    path = (TENANT, "shop", "public", first.display_name.rpartition(".")[2])
    sink = lake.sink()
    prepared = sink.prepare(target(path, partition_by=wanted.partition_by))
    sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1))
    assert lake.table(prepared).spec().is_unpartitioned()
    assert_rows(lake, prepared, batch())


def test_a_table_that_was_dropped_or_replaced_is_told(lake):
    wanted = target()
    sink = lake.sink()
    prepared = sink.prepare(wanted)
    receipt = write(sink, prepared, [batch()])
    lake.catalog().drop_table(tuple(prepared.payload["identifier"]))
    with pytest.raises(SinkError, match="gone"):
        sink.commit(prepared, [receipt], marker(1))
    with pytest.raises(SinkError, match="gone"):
        sink.last_marker(prepared)
    again = sink.prepare(wanted)
    with pytest.raises(FencedError, match="created again"):
        sink.commit(prepared, [receipt], marker(1))
    with pytest.raises(FencedError, match="created again"):
        write(sink, prepared, [batch()])
    assert_rows(lake, again)


def test_a_load_whose_branch_was_dropped_is_not_published_in_part(lake):
    sink = lake.sink()
    prepared = sink.prepare(target(mode=WriteMode.OVERWRITE))
    sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1, published=False))
    lake.table(prepared).manage_snapshots().remove_branch(load_branch(stream())).commit()
    with pytest.raises(FencedError, match="branch"):
        sink.commit(prepared, [write(sink, prepared, [batch(ROWS)])], marker(2))
    assert_rows(lake, prepared)


# --- somebody commits between our look and our commit


class Meddler(PyArrowFileIO):
    """Lets somebody else act while a commit writes its manifest: after it looked at the table."""

    act: ClassVar[Callable[[], None] | None] = None

    def new_output(self, location: str) -> PyArrowFile:
        act, Meddler.act = Meddler.act, None
        if act is not None and location.endswith("-m0.avro"):
            act()
        else:
            Meddler.act = act
        return super().new_output(location)


@pytest.fixture(params=["sqlite", "rest"])
def meddled(request: pytest.FixtureRequest, lake: Lake) -> tuple[Lake, Lake]:
    """The same lake twice; the second one's commits can be meddled with."""
    if request.param == "rest":
        lake = request.getfixturevalue("rest")[0]
    properties = f'{{"py-io-impl": "{__name__}.Meddler"}}'
    values = {**lake.settings.model_dump(), "iceberg_properties": properties}
    return lake, Lake(Settings(**values))


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("sequence", [1, 2])
@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
def test_of_two_owners_the_one_that_looked_first_may_lose(meddled, mode, sequence, published):
    lake, late = meddled
    published = published or mode.shows_each_commit
    prepared = lake.sink().prepare(target(mode=mode))
    if sequence == 2:
        lake.sink().commit(prepared, [], marker(1, published=published))
    mine = write(lake.sink(), prepared, [batch(ROWS)])
    theirs = write(lake.sink(), prepared, [batch()])
    wanted = marker(sequence, epoch=2, published=published)
    Meddler.act = lambda: lake.sink().commit(prepared, [theirs], wanted)
    with pytest.raises(FencedError):
        late.sink().commit(prepared, [mine], marker(sequence, published=published))
    assert Meddler.act is None
    assert lake.sink().last_marker(prepared) == wanted
    lake.sink().commit(prepared, [], marker(sequence + 1, epoch=2))
    assert_rows(lake, prepared, batch())


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
def test_a_new_run_fences_the_commit_under_way_of_an_old_one(meddled, mode, published):
    lake, late = meddled
    published = published or mode.shows_each_commit
    wanted = target(mode=WriteMode.OVERWRITE)
    first = lake.sink().prepare(wanted)
    lake.sink().commit(first, [], marker(1, run="first"))
    wanted = target(wanted.path, mode=mode)
    old, new = lake.sink().prepare(wanted), lake.sink().prepare(wanted)
    mine, theirs = write(lake.sink(), old, [batch(ROWS)]), write(lake.sink(), new, [batch()])
    newer = marker(1, run="new", published=published)
    Meddler.act = lambda: lake.sink().commit(new, [theirs], newer)
    with pytest.raises(FencedError):
        late.sink().commit(old, [mine], marker(1, run="old", published=published))
    assert Meddler.act is None
    lake.sink().commit(new, [], marker(2, run="new"))
    assert_rows(lake, new, batch())


@pytest.mark.parametrize("published", [True, False])
def test_another_streams_load_does_not_disturb_a_commit(meddled, published):
    """It moves neither main nor our branch, but takes the next sequence number of the table."""
    lake, late = meddled
    path = target().path
    ours = lake.sink().prepare(target(path))
    lake.sink().commit(ours, [], marker(1))
    mode = WriteMode.APPEND if published else WriteMode.OVERWRITE
    other = lake.sink().prepare(target(path, mode=mode, unit="another"))
    elsewhere = write(lake.sink(), other, [batch(ROWS)])
    Meddler.act = lambda: lake.sink().commit(
        other, [elsewhere], marker(1, run="other", published=published)
    )
    receipt = write(lake.sink(), ours, [batch()])
    assert late.sink().commit(ours, [receipt], marker(2)) is CommitOutcome.APPLIED
    assert Meddler.act is None
    assert_rows(lake, ours, batch(), *([batch(ROWS)] if published else []))
    assert lake.sink().last_marker(ours) == marker(2)
    assert lake.sink().last_marker(other) == marker(1, run="other", published=published)


# --- conflicts and lost replies of a REST catalog


def test_conflicts_are_repeated_and_leave_no_metadata_behind(rest):
    lake, server = rest
    sink = lake.sink()
    prepared = sink.prepare(target())
    server.fail_next(CommitFault.REJECT, times=3)
    sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1))
    assert_rows(lake, prepared, batch())
    assert len(lake.files(prepared, "snap-*.avro")) == 1
    assert len(lake.files(prepared, "*-m0.avro")) == 1


def test_endless_conflicts_end_as_certainly_rejected(rest):
    lake, server = rest
    sink = lake.sink()
    prepared = sink.prepare(target())
    receipt = write(sink, prepared, [batch()])
    server.fail_next(CommitFault.REJECT, times=MAX_ATTEMPTS)
    with pytest.raises(CommitRejectedError) as caught:
        sink.commit(prepared, [receipt], marker(1))
    assert caught.value.context["attempts"] == MAX_ATTEMPTS
    assert lake.files(prepared, "*.avro") == set()
    assert sink.last_marker(prepared) is None
    assert sink.commit(prepared, [receipt], marker(1)) is CommitOutcome.APPLIED
    assert_rows(lake, prepared, batch())


@pytest.mark.parametrize(
    "fault", [one for one in CommitFault if not one.fatal], ids=lambda fault: fault.value
)
def test_every_fault_loads_once(rest, fault):
    lake, server = rest
    sink = lake.sink()
    prepared = sink.prepare(target())
    for sequence in (1, 2, 3):
        receipt = write(sink, prepared, [batch(sequence * ROWS)], sequence)
        server.fail_next(fault)
        assert sink.commit(prepared, [receipt], marker(sequence)) is CommitOutcome.APPLIED
    time.sleep(2 * LATE_S)  # a late commit has been applied by now, or never will be
    assert_rows(lake, prepared, *(batch(sequence * ROWS) for sequence in (1, 2, 3)))
    assert sink.last_marker(prepared) == marker(3)


@pytest.mark.parametrize("fault", [CommitFault.DIE, CommitFault.APPLY_THEN_DIE])
def test_a_catalog_that_dies_leaves_the_outcome_unknown_until_it_is_back(rest, fault):
    lake, server = rest
    sink = lake.sink()
    prepared = sink.prepare(target())
    receipt = write(sink, prepared, [batch()])
    server.fail_next(fault)
    with pytest.raises(CommitUnknownError):
        sink.commit(prepared, [receipt], marker(1))
    with pytest.raises(SinkUnavailableError):
        sink.last_marker(prepared)
    with pytest.raises(CommitRejectedError, match="nothing was sent"):
        sink.commit(prepared, [receipt], marker(1))
    server.start()
    assert sink.last_marker(prepared) == (marker(1) if fault.applied else None)
    outcome = sink.commit(prepared, [receipt], marker(1))
    assert outcome.value == ("already_applied" if fault.applied else "applied")
    assert_rows(lake, prepared, batch())


# --- dead processes, many processes, a restarted database


@pytest.mark.parametrize("moment", ["writing", "written", "before_commit", "after_commit"])
def test_a_process_may_die_at_any_moment(lake, moment):
    sink = lake.sink()
    prepared = sink.prepare(target())
    ended = subprocess.run(
        [sys.executable, HERE / "iceberg_crash.py", lake.settings.home, prepared.to_json(), moment],
        check=False,
    )
    assert ended.returncode == -9
    applied = moment == "after_commit"
    assert sink.last_marker(prepared) == (marker(1) if applied else None)
    assert_rows(lake, prepared, *([batch()] if applied else []))
    if not applied:
        sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1, epoch=2))
        assert_rows(lake, prepared, batch())


LOADER = """
import sys
from pathlib import Path
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.testing.contracts.sink_lab import TENANT, batch, marker, target, write
home, number, commits = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sink = IcebergSink.from_settings(Settings(home=home), TENANT)
shared = sink.prepare(target((TENANT, "many", "shared"), unit=f"unit {number}"))
for sequence in range(1, commits + 1):
    start = (number * commits + sequence) * 10
    receipt = write(sink, shared, [batch(start, 10)], sequence)
    sink.commit(shared, [receipt], marker(sequence, run=f"run {number}"))
    own = sink.prepare(target((TENANT, "many", f"own {number} {sequence}")))
    sink.commit(own, [write(sink, own, [batch(start, 10)])], marker(1))
"""


def test_many_processes_create_and_commit_in_one_sqlite_catalog(tmp_path):
    """They start with nothing: catalog, namespaces and the shared table are made by all at once."""
    processes, commits = 4, 8
    arguments = [
        [sys.executable, "-c", LOADER, str(tmp_path), str(number), str(commits)]
        for number in range(processes)
    ]
    running = [subprocess.Popen(one, stderr=subprocess.PIPE, text=True) for one in arguments]
    errors = [one.communicate()[1] for one in running]
    assert [one.returncode for one in running] == [0] * processes, errors
    lake = Lake(Settings(home=tmp_path))
    prepared = lake.sink().prepare(target((TENANT, "many", "shared")))
    expected = [
        batch((number * commits + sequence) * 10, 10)
        for number in range(processes)
        for sequence in range(1, commits + 1)
    ]
    assert_rows(lake, prepared, *expected)
    assert len(lake.catalog().list_tables((TENANT, "many"))) == processes * commits + 1


def test_a_restarted_database_costs_no_commit(tmp_path):
    with PostgresServer() as server:
        uri = f"postgresql+psycopg2://{server.user}@{server.host}:{server.port}/postgres"
        lake = Lake(Settings(home=tmp_path, iceberg_catalog_uri=uri))
        sink = lake.sink()
        prepared = sink.prepare(target())
        sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1))
        server.stop()
        with pytest.raises(SinkUnavailableError):
            sink.last_marker(prepared)
        server.start()
        sink.commit(prepared, [write(sink, prepared, [batch(ROWS)], 1)], marker(2))
        assert_rows(lake, prepared, batch(), batch(ROWS))
