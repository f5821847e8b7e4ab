"""Write, audit, publish: what a run has gathered is seen as a whole, if it is as declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest
from pyiceberg.table import Table
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from matih_ray.errors import AuditFailedError, ConflictError, ValidationError
from matih_ray.model.finalize import Finalize
from matih_ray.model.ids import RunId
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceTask
from matih_ray.model.policy import MergeRule, WriteMode
from matih_ray.model.receipt import CommitMarker
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, PreparedTarget, SinkTarget
from matih_ray.testing.contracts.sink_lab import target, write
from matih_ray.testing.iceberg import IcebergLake

SCHEMA = pa.schema([("id", pa.int64()), ("shop", pa.string()), ("amount", pa.int64())])
AUDIT = "matih-audit-"


class Killed(BaseException):
    """The end of a process."""


class Lake(IcebergLake):
    """One table, and runs that load it."""

    def __init__(self, settings: Settings, mode: WriteMode, finalize: Finalize | None) -> None:
        super().__init__(settings)
        merge = MergeRule(key=("id",)) if mode is WriteMode.MERGE else None
        wanted = target(mode=mode, schema=SCHEMA, merge=merge)
        self.wanted: SinkTarget = replace(wanted, finalize=finalize)
        self.runs = 0

    def current(self) -> Table:
        """The table as it is now."""
        return self.table(self.sink().prepare(self.wanted))

    def ids(self, branch: str = "main") -> list[int]:
        table = self.current()
        ref = table.metadata.refs.get(branch)
        if ref is None:
            return []
        return sorted(table.scan(snapshot_id=ref.snapshot_id).to_arrow()["id"].to_pylist())

    def audit_branches(self) -> list[str]:
        return [name for name in self.current().metadata.refs if name.startswith(AUDIT)]

    def run(self, *commits: pa.RecordBatch) -> Run:
        self.runs += 1
        return Run(self, RunId(f"run-{self.runs}"), self.sink().prepare(self.wanted), commits)

    def load(self, *commits: pa.RecordBatch) -> Run:
        run = self.run(*commits)
        run.finish()
        return run


class Run:
    """A run of some commits, the last of which is published."""

    def __init__(
        self,
        lake: Lake,
        run_id: RunId,
        prepared: PreparedTarget,
        commits: tuple[pa.RecordBatch, ...],
    ) -> None:
        self.lake, self.run_id, self.prepared = lake, run_id, prepared
        sink = lake.sink()
        self.receipts = [write(sink, prepared, [one], n) for n, one in enumerate(commits)]

    def marker(self, number: int, *, rows: int | None = None) -> CommitMarker:
        held = sum(receipt.rows for receipt in self.receipts[:number])
        return CommitMarker(
            run_id=self.run_id,
            epoch=1,
            sequence=number,
            through=number,
            published=number == len(self.receipts),
            rows_total=held if rows is None else rows,
        )

    def commit(self, number: int, *, rows: int | None = None) -> CommitOutcome:
        receipt = self.receipts[number - 1]
        return self.lake.sink().commit(self.prepared, [receipt], self.marker(number, rows=rows))

    def finish(self) -> None:
        for number in range(1, len(self.receipts) + 1):
            assert self.commit(number) is CommitOutcome.APPLIED


def rows(*ids: int | None, shop: str | None = "x") -> pa.RecordBatch:
    count = len(ids)
    return pa.RecordBatch.from_pydict(
        {"id": list(ids), "shop": [shop] * count, "amount": [1] * count}, schema=SCHEMA
    )


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("lake"))


@contextmanager
def at_commit(number: int, moment: str, act: Callable[[], None]) -> Iterator[None]:
    """Do something around the catalog's n-th commit from now on."""
    seen = 0

    def count(_: Session) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            act()

    event.listen(Session, moment, count)
    try:
        yield
    finally:
        event.remove(Session, moment, count)
    assert seen >= number


def die() -> None:
    raise Killed


def lose() -> None:
    raise OperationalError("COMMIT", None, Exception("connection lost"))


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
def test_a_finalized_run_is_seen_as_a_whole_at_its_end(settings, mode):
    lake = Lake(settings, mode, Finalize(tag="{run}.ok"))
    lake.load(rows(1, 2), rows(3))
    assert lake.ids() == [1, 2, 3]
    second = lake.run(rows(3, 4), rows(5), rows(4, 6))
    for number in (1, 2):
        second.commit(number)
        assert lake.ids() == [1, 2, 3]
        assert lake.sink().last_marker(second.prepared) == second.marker(number)
    second.commit(3)
    assert second.commit(3) is CommitOutcome.ALREADY_APPLIED
    expected = {
        WriteMode.APPEND: [1, 2, 3, 3, 4, 4, 5, 6],
        WriteMode.OVERWRITE: [3, 4, 4, 5, 6],
        WriteMode.MERGE: [1, 2, 3, 4, 5, 6],
    }[mode]
    assert lake.ids() == lake.ids("run-2.ok") == expected
    assert lake.ids("run-1.ok") == [1, 2, 3]
    assert set(lake.current().metadata.refs) == {"main", "run-1.ok", "run-2.ok"}


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(
    ("finalize", "bad", "why"),
    [
        (Finalize(min_rows=4), rows(5), "3 rows, of at least 4"),
        (Finalize(not_null=("shop",)), rows(5, 6, shop=None), "2 rows with NULL in column 'shop'"),
        (Finalize(unique=("shop", "amount")), rows(5), "of another row"),
    ],
    ids=["too few", "null", "twice"],
)
def test_a_run_that_is_not_as_declared_stays_on_its_branch(settings, mode, finalize, bad, why):
    lake = Lake(settings, mode, None)
    lake.load(rows(1))
    lake.wanted = replace(lake.wanted, finalize=finalize)
    run = lake.run(rows(2, 3, shop="y"), bad)
    run.commit(1)
    for _ in range(2):  # however often it is tried
        with pytest.raises(AuditFailedError, match=why) as caught:
            run.commit(2)
        assert lake.ids() == [1]
        assert lake.sink().last_marker(run.prepared) == run.marker(1)
    assert lake.audit_branches() == [caught.value.context["branch"]]
    held = [] if mode is WriteMode.OVERWRITE else [1]
    found = [2, 3, *bad["id"].to_pylist(), *held]
    assert lake.ids(caught.value.context["branch"]) == sorted(found)
    lake.wanted = replace(lake.wanted, finalize=Finalize())
    lake.load(rows(7))
    assert lake.ids() == sorted([7, *held])
    assert set(lake.current().metadata.refs) == {"main"}


def test_a_key_that_the_table_already_has_is_found_in_any_pass(settings, monkeypatch):
    from matih_ray.sinks.iceberg import audit

    monkeypatch.setattr(audit, "PASS_ROWS", 3)
    monkeypatch.setattr(audit, "LOOKUP_ROWS", 2)
    lake = Lake(settings, WriteMode.APPEND, Finalize(unique=("id",)))
    lake.load(rows(*range(50)))
    lake.load(rows(*range(50, 70)))
    assert lake.ids() == list(range(70))
    with pytest.raises(AuditFailedError, match="2 rows with a key"):
        lake.load(rows(70, 49, 50, 71))
    with pytest.raises(AuditFailedError, match="1 rows with a key"):
        lake.load(rows(72, 73, 72))
    lake.load(rows(None, None, 80))  # NULL is no key of another row
    assert len(lake.current().scan().to_arrow()) == 73


def test_rows_that_are_not_what_the_run_has_counted_are_not_published(settings):
    lake = Lake(settings, WriteMode.APPEND, Finalize())
    run = lake.run(rows(1), rows(2, 3))
    run.commit(1)
    with pytest.raises(AuditFailedError, match="files of 3 rows, where the run has written 4"):
        run.commit(2, rows=4)
    assert lake.ids() == []


def test_a_lost_file_is_found_before_readers_do(settings):
    lake = Lake(settings, WriteMode.APPEND, Finalize())
    run = lake.run(rows(1), rows(2))
    run.commit(1)
    path = run.receipts[0].payload["files"][0]["path"]
    lake.current().io.delete(path)
    with pytest.raises(AuditFailedError, match="no file"):
        run.commit(2)
    assert lake.ids() == []


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("number", [1, 2], ids=["at the candidate", "at publishing"])
@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
@pytest.mark.parametrize("act", [die, lose], ids=["crash", "lost reply"])
def test_a_crash_or_a_lost_reply_loses_and_doubles_nothing(settings, mode, number, moment, act):
    lake = Lake(settings, mode, Finalize(unique=("id",), tag="good"))
    lake.load(rows(1, 2))
    run = lake.run(rows(3), rows(4, 5))
    run.commit(1)
    if act is lose:
        with at_commit(number, moment, act):
            assert run.commit(2) is CommitOutcome.APPLIED
    else:
        with pytest.raises(Killed), at_commit(number, moment, act):
            run.commit(2)
        done = (number, moment) == (2, "after_commit")
        assert (lake.sink().last_marker(run.prepared) == run.marker(2)) is done
        assert lake.ids() == ([1, 2] if not done else lake.ids("good"))
        outcome = run.commit(2)
        assert outcome is (CommitOutcome.ALREADY_APPLIED if done else CommitOutcome.APPLIED)
    expected = [3, 4, 5] if mode is WriteMode.OVERWRITE else [1, 2, 3, 4, 5]
    assert lake.ids() == lake.ids("good") == expected
    assert set(lake.current().metadata.refs) == {"main", "good"}


@pytest.mark.parametrize("mode", [WriteMode.APPEND, WriteMode.MERGE], ids=lambda mode: mode.value)
def test_what_others_commit_between_audit_and_publishing_stays(settings, mode):
    lake = Lake(settings, mode, Finalize(unique=("id",)))
    for number in range(4):
        lake.load(rows(number))
    run = lake.run(rows(10), rows(11))
    run.commit(1)
    name = ".".join(run.prepared.payload["identifier"][1:])

    def others() -> None:
        other = Lake(settings, WriteMode.APPEND, None)
        stream = replace_unit(other.wanted, "other")
        other.wanted = replace(stream, path=lake.wanted.path)
        other.load(rows(20))
        tasks = (MaintenanceTask.COMPACT, MaintenanceTask.EXPIRE, MaintenanceTask.ORPHANS)
        policy = MaintenancePolicy(tasks=tasks, snapshot_age_s=0, keep_snapshots=1)
        later = datetime.now(timezone.utc) + timedelta(seconds=5)
        assert lake.sink().maintain(name, policy, later).compaction.files_before == 5

    with at_commit(1, "after_commit", others):
        assert run.commit(2) is CommitOutcome.APPLIED
    assert lake.ids() == [0, 1, 2, 3, 10, 11, 20]


def replace_unit(wanted: SinkTarget, unit: str) -> SinkTarget:
    return replace(wanted, stream=wanted.stream.model_copy(update={"unit_id": unit}))


def test_an_audit_sees_the_keys_that_others_have_brought_meanwhile(settings):
    lake = Lake(settings, WriteMode.APPEND, Finalize(unique=("id",)))
    lake.load(rows(1))
    run = lake.run(rows(2))

    def others() -> None:
        other = Lake(settings, WriteMode.APPEND, None)
        other.wanted = replace(replace_unit(other.wanted, "other"), path=lake.wanted.path)
        other.load(rows(2))

    with (
        pytest.raises(AuditFailedError, match="1 rows with a key"),
        at_commit(1, "after_commit", others),
    ):
        run.commit(1)
    assert lake.ids() == [1, 2]


def test_a_finalized_run_can_be_taken_back(settings):
    lake = Lake(settings, WriteMode.APPEND, Finalize())
    lake.load(rows(1))
    run = lake.load(rows(2), rows(3), rows(4))
    lake.sink().rollback(run.prepared, run.run_id)
    assert lake.ids() == [1]
    lake.load(rows(5))
    assert lake.ids() == [1, 5]


def test_a_tag_moves_with_each_run_and_is_never_a_branch(settings):
    lake = Lake(settings, WriteMode.APPEND, Finalize(tag="good"))
    lake.load(rows(1))
    lake.load(rows(2))
    assert lake.ids("good") == [1, 2]
    table = lake.current()
    table.manage_snapshots().create_branch(table.current_snapshot().snapshot_id, "mine").commit()
    lake.wanted = replace(lake.wanted, finalize=Finalize(tag="mine"))
    with pytest.raises(ConflictError, match="mine"):
        lake.load(rows(3))
    assert lake.ids() == [1, 2]


@pytest.mark.parametrize("finalize", [{"notNull": ["no"]}, {"unique": ["id", "no"]}])
def test_columns_that_cannot_be_audited_are_refused_first(settings, finalize):
    lake = Lake(settings, WriteMode.APPEND, Finalize.from_json(finalize))
    with pytest.raises(ValidationError, match="'no'"):
        lake.run(rows(1))


@pytest.mark.parametrize("tag", ["main", "matih-x", "a b", "", "{other}"])
def test_a_tag_is_a_name_of_ones_own(tag):
    with pytest.raises(ValidationError):
        Finalize.from_json({"tag": tag})
