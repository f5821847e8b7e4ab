"""Random histories of merges, maintenance, schema changes and rollbacks against a dict: the table
equals the model after every step, read by PyIceberg, Daft and DuckDB.

`MERGE_HISTORIES=300` runs more of them; a failing one names its seed. What happened in all of them
together is counted, and it is an error if something never did.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import daft
import duckdb
import pyarrow as pa
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from matih_ray.errors import AuditFailedError, MatihError, SinkUnavailableError
from matih_ray.model.finalize import Finalize
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceTask
from matih_ray.model.policy import MergeRule, SchemaChange, WriteMode
from matih_ray.model.receipt import WriteReceipt
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, PreparedTarget, WorkItem
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg import merge_work as work_module
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.sinks.iceberg.naming import safe_name
from matih_ray.testing.contracts.sink_lab import TENANT, marker, stream, target, write

HISTORIES = int(os.environ.get("MERGE_HISTORIES") or 12)
STEPS = 8
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("shop", pa.string()),
        ("region", pa.string()),
        ("version", pa.int32()),
        ("gone", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("amount", pa.int64()),
    ]
)
# Columns that a table gets when its source changes.
EXTRA = pa.field("extra", pa.struct([("a", pa.int32())]))
WIDER = pa.field("extra", pa.struct([("a", pa.int64()), ("b", pa.string())]))
COLUMNS = [*SCHEMA.names, "extra", "amount__string"]
LAYOUTS = [(), ("region",), ("bucket(3, id)",), ("shop", "region")]
KEYS = [("id",), ("id", "shop")]
# What must have happened in some history, to a row, to the table or to a process.
EVENTS = {
    *("insert", "update", "delete", "key move", "late version"),
    *("schema change", "rollback", "append", "rival", "compaction", "loss", "lost reply"),
    *("crash in work", "crash before commit", "crash after commit", "crash in maintenance"),
    *("repartitioned", "finalized", "audit failed"),
    *(task.value for task in MaintenanceTask),
}

Row = dict[str, Any]


@dataclass
class Model:
    """What a merge means, row by row."""

    rule: MergeRule
    rows: dict[tuple[object, ...], Row] = field(default_factory=dict)
    happened: Counter[str] = field(default_factory=Counter)

    def merge(self, batches: Sequence[Sequence[Row]]) -> None:
        before = dict(self.rows)
        newest: dict[tuple[object, ...], Row] = {}
        for row in (row for batch in batches for row in batch):
            self._keep_newer(newest, row)
        for row in newest.values():
            self._keep_newer(self.rows, row)
        for key, row in list(self.rows.items()):
            if self.rule.delete is not None and row[self.rule.delete]:
                del self.rows[key]
        self._count(before, newest)

    def _count(self, before: dict[tuple[object, ...], Row], came: object) -> None:
        for key in (*before, *self.rows):
            old, new = before.get(key), self.rows.get(key)
            if old is None or new is None:
                self.happened["insert" if old is None else "delete"] += 1
            elif old != new:
                self.happened["update"] += 1
                self.happened["key move"] += old["region"] != new["region"]
            elif key in came:  # type: ignore[operator] # a mapping
                self.happened["late version"] += 1

    def _keep_newer(self, rows: dict[tuple[object, ...], Row], row: Row) -> None:
        key = tuple(row[name] for name in self.rule.key)
        if key not in rows or self.age(rows[key]) <= self.age(row):
            rows[key] = row

    def age(self, row: Row) -> int:
        if self.rule.order is None:
            return 0
        version = row[self.rule.order]
        return -1 if version is None else version


class Killed(BaseException):
    """The end of a process: nobody on the way catches it, so nobody tidies up."""


@dataclass
class Meddler:
    """A workforce during whose work something else happens to the table, or to the worker."""

    sink: IcebergSink
    meddle: Callable[[], None]
    parallelism: int = 3

    def run(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        results = [self.sink.work(item) for item in items]
        meddle, self.meddle = self.meddle, lambda: None
        meddle()
        return results


class History:
    """One table and its model, and what can happen to both."""

    def __init__(self, settings: Settings, seed: int, happened: Counter[str] | None = None) -> None:
        self.happened: Counter[str] = Counter() if happened is None else happened
        self.random = random.Random(seed)
        self.settings = settings
        choose = self.random.choice
        self.rule = MergeRule(
            key=choose(KEYS),
            order=choose([None, "version"]),
            delete=choose([None, "gone"]),
        )
        self.wanted = target(
            schema=SCHEMA, mode=WriteMode.MERGE, partition_by=choose(LAYOUTS), merge=self.rule
        )
        self.wanted = replace(self.wanted, schema_change=SchemaChange.EVOLVE)
        self.model = Model(self.rule, happened=self.happened)
        self.schema = SCHEMA
        self.run = 0
        self.new_keys = 10_000  # ids that nothing else uses

    def sink(self) -> IcebergSink:
        return IcebergSink.from_settings(self.settings, TENANT)

    def table(self, prepared: PreparedTarget):
        identifier = tuple(prepared.payload["identifier"])
        return open_catalog(CatalogConfig.from_settings(self.settings)).load_table(identifier)

    def step(self) -> None:
        """Write and commit some changes, with an accident on the way."""
        self.run += 1
        if self.run > 1 and self.random.random() < 0.3:
            self.change_schema()
        sink = self.sink()
        finalize = self.finalize()
        if self.run > 1 and self.random.random() < 0.15:
            self.repartition()
        prepared = sink.prepare(replace(self.wanted, schema=self.schema, finalize=finalize))
        slices = [self.changes() for _ in range(self.random.randint(1, 3))]
        for slice_ in slices[:1] if self.random.random() < 0.3 else []:
            write(
                sink, prepared, [self.batch_of(slice_)]
            )  # an attempt that died before its receipt
        receipts = [write(sink, prepared, [self.batch_of(s)], n) for n, s in enumerate(slices)]
        parked = self.park(prepared, receipts) if finalize is not None else 0
        receipts = receipts[parked:]
        accidents = [self.nothing, self.append, self.rival, self.compaction, self.loss]
        accident = self.random.choice([*accidents, self.lost_reply, self.crash])
        first = marker(2 if parked else 1, run=f"run {self.run}").model_copy(
            update={"rows_total": sum(map(len, slices))}
        )
        accident(prepared, sink)
        try:
            with self.dying() if accident == self.crash else nullcontext():
                sink.commit(prepared, receipts, first)
        except (MatihError, Killed) as error:
            again = self.sink()
            was_applied = again.last_marker(prepared) == first
            if isinstance(error, MatihError) and was_applied:
                pytest.fail(f"applied, and told otherwise: {error.message}")
            outcome = again.commit(prepared, receipts, first)
            wanted = CommitOutcome.ALREADY_APPLIED if was_applied else CommitOutcome.APPLIED
            assert outcome is wanted
        assert self.sink().commit(prepared, receipts, first) is CommitOutcome.ALREADY_APPLIED
        before = dict(self.model.rows)
        self.happened["finalized"] += finalize is not None
        self.model.merge([[self.placed(row) for row in slice_] for slice_ in slices])
        self.check(prepared)
        if self.random.random() < 0.2:
            self.sink().rollback(prepared, first.run_id)
            self.happened["rollback"] += 1
            self.model.rows = before
            self.check(prepared)
        if self.random.random() < 0.5:
            self.care(prepared, self.random.choice(list(MaintenanceTask)), killing=0.3)
            self.check(prepared)

    def finalize(self) -> Finalize | None:
        """Whether this run is gathered and audited, and by what."""
        if self.random.random() < 0.7:
            return None
        return Finalize(
            unique=self.rule.key, not_null=("id",), tag=self.random.choice([None, "ok"])
        )

    def park(self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt]) -> int:
        """Commit a slice that readers do not see yet; returns how many. Perhaps others die first
        of an audit."""
        if self.random.random() < 0.3:
            strict = replace(self.wanted, schema=self.schema, finalize=Finalize(min_rows=10**6))
            doomed = self.sink().prepare(strict)
            told, none = marker(1, run=f"doomed {self.run}"), write(self.sink(), doomed, [])
            with pytest.raises(AuditFailedError):
                self.sink().commit(doomed, [none], told)
            self.happened["audit failed"] += 1
            self.check(prepared)
        if len(receipts) < 2:
            return 0
        told = marker(1, run=f"run {self.run}", published=False)
        self.sink().commit(prepared, receipts[:1], told)
        self.check(prepared)
        return 1

    def repartition(self) -> None:
        """New files are laid out in another way from now on."""
        layout = self.random.choice([one for one in LAYOUTS if one != ("shop", "region")])
        table = ".".join(map(safe_name, self.wanted.path[1:]))
        self.sink().repartition(table, layout)
        self.happened["repartitioned"] += 1

    def change_schema(self) -> None:
        """The source gains, loses or changes columns."""
        fields = {field.name: field for field in self.schema}
        change = self.random.choice(["extra", "wider", "gone", "amount", "version"])
        if change in ("extra", "wider"):
            fields["extra"] = EXTRA if change == "extra" else WIDER
        elif change == "gone":
            fields.pop("extra", None)
        elif change == "amount":
            kind = pa.string() if fields["amount"].type == pa.int64() else pa.int64()
            fields["amount"] = pa.field("amount", kind)
        else:
            fields["version"] = pa.field("version", pa.int64())
        changed = pa.schema(list(fields.values()))
        self.happened["schema change"] += changed != self.schema
        self.schema = changed

    def batch_of(self, rows: Sequence[Row]) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist(list(rows), self.schema)

    def placed(self, row: Row) -> Row:
        """The row as the table holds it: a value of another type in a column of its own."""
        stored: Row = {**dict.fromkeys(COLUMNS), **row}
        if isinstance(stored["amount"], str):
            stored["amount__string"], stored["amount"] = stored["amount"], None
        if stored["extra"] is not None:
            stored["extra"] = {"b": None, **stored["extra"]}
        return stored

    def care(self, prepared: PreparedTarget, *tasks: MaintenanceTask, killing: float = 0.0) -> None:
        """Maintain the table, as if all that is there were old; perhaps die while doing so."""
        policy = MaintenancePolicy(
            tasks=tasks, min_files=2, keep_snapshots=1, snapshot_age_s=0, orphan_age_s=0
        )
        name = ".".join(prepared.payload["identifier"][1:])
        later = datetime.now(timezone.utc) + timedelta(seconds=5)
        try:
            with self.dying() if self.random.random() < killing else nullcontext():
                report = self.sink().maintain(name, policy, later)
        except Killed:
            self.happened["crash in maintenance"] += 1
            return
        assert report.error is None
        self.happened["compact"] += report.compaction.files_before > 0
        self.happened["manifests"] += report.manifests_after < report.manifests_before
        self.happened["expire"] += report.snapshots_expired > 0
        self.happened["orphans"] += report.orphan_files > 0

    @contextmanager
    def dying(self) -> Iterator[None]:
        """The process dies at its next commit, before or after the catalog has made it."""
        moment = self.random.choice(["after_commit", "before_commit"])

        def die(session: Session) -> None:
            self.happened[f"crash {moment.replace('_', ' ')}"] += 1
            raise Killed

        event.listen(Session, moment, die)
        try:
            yield
        finally:
            event.remove(Session, moment, die)

    def changes(self) -> list[Row]:
        """Inserts, updates, moves between partitions, late versions and deletions."""
        rows = [self.row(self.random.randint(0, 40)) for _ in range(self.random.randint(0, 40))]
        # equal versions of one slice have an order in one partition only
        return list({(row["id"], self.model.age(row)): row for row in rows}.values())

    def row(self, key: int) -> Row:
        choose = self.random.choice
        return {
            "id": key,
            "shop": choose("xy"),
            "region": choose(["north", "south", None]),
            "version": choose([None, *range(60)]),
            "gone": choose([None, False, False, True]),
            "tags": choose([None, [], ["a", None], [str(self.random.random())]]),
            **self.new_columns(),
        }

    def new_columns(self) -> Row:
        number = self.random.choice([None, 1, 2])
        is_text = self.schema.field("amount").type == pa.string()
        found: Row = {"amount": str(number) if is_text and number else number}
        if "extra" in self.schema.names:
            wide = self.schema.field("extra").type == WIDER.type
            found["extra"] = {"a": 2**40, "b": "b"} if wide else {"a": 7}
        return found

    def nothing(self, prepared: PreparedTarget, sink: IcebergSink) -> None:
        """The commit meets nobody."""

    def append(self, prepared: PreparedTarget, sink: IcebergSink) -> None:
        """Another stream's rows arrive while the merge is planned."""
        self.new_keys += 1
        row = {**self.row(self.new_keys), "gone": False}

        def add() -> None:
            other = self.sink()
            wanted = target(self.wanted.path, schema=self.schema, unit=f"unit {self.new_keys}")
            mine = other.prepare(replace(wanted, schema_change=SchemaChange.EVOLVE))
            receipt = write(other, mine, [self.batch_of([row])])
            other.commit(mine, [receipt], marker(1, run=f"append {self.new_keys}"))
            self.model.rows[tuple(row[name] for name in self.rule.key)] = self.placed(row)
            self.happened["append"] += 1

        sink.hire(Meddler(self.sink(), add))

    def rival(self, prepared: PreparedTarget, sink: IcebergSink) -> None:
        """Another stream's merge, perhaps of the same keys, is faster."""
        rows = self.changes()

        def merge() -> None:
            other = self.sink()
            wanted = replace(self.wanted, schema=self.schema, stream=stream(f"rival {self.run}"))
            mine = other.prepare(wanted)
            receipt = write(other, mine, [self.batch_of(rows)])
            other.commit(mine, [receipt], marker(1, run=f"rival {self.run}"))
            self.model.merge([[self.placed(row) for row in rows]])
            self.happened["rival"] += 1

        sink.hire(Meddler(self.sink(), merge))

    def compaction(self, prepared: PreparedTarget, sink: IcebergSink) -> None:
        """All files are replaced by others while the merge is planned, and the old ones deleted."""
        tasks = (MaintenanceTask.COMPACT, MaintenanceTask.MANIFESTS, MaintenanceTask.EXPIRE)

        def compact() -> None:
            self.care(prepared, *tasks)
            self.happened["compaction"] += 1

        sink.hire(Meddler(self.sink(), compact))

    def loss(self, prepared: PreparedTarget, sink: IcebergSink) -> None:
        """The work is done and its worker does not live to tell."""

        def die() -> None:
            self.happened["loss"] += 1
            raise SinkUnavailableError("the worker died")

        sink.hire(Meddler(self.sink(), die))

    def lost_reply(self, prepared: PreparedTarget, sink: IcebergSink) -> None:
        """The commit's outcome is unknown."""
        moment = self.random.choice(["after_commit", "before_commit"])

        def lose(session: Session) -> None:
            event.remove(Session, moment, lose)
            self.happened["lost reply"] += 1
            raise OperationalError("COMMIT", None, Exception("connection lost"))

        event.listen(Session, moment, lose)

    def crash(self, prepared: PreparedTarget, sink: IcebergSink) -> None:
        """The process ends, perhaps before it comes to the commit."""
        if self.random.random() < 0.4:

            def die() -> None:
                self.happened["crash in work"] += 1
                raise Killed

            sink.hire(Meddler(self.sink(), die))

    def check(self, prepared: PreparedTarget) -> None:
        """PyIceberg, DuckDB and Daft read the model's rows."""
        table = self.table(prepared)
        expected = as_set(self.model.rows.values())
        scanned = table.scan().to_arrow().to_pylist()
        assert as_set(scanned) == expected
        assert len(scanned) == len(expected)
        files = [task.file.file_path for task in table.scan().plan_files()]
        if files:
            with duckdb.connect() as connection:
                found = connection.read_parquet(files, union_by_name=True, hive_partitioning=False)
                assert as_set(found.to_arrow_table().to_pylist()) == expected
        found = daft.read_iceberg(table).to_pylist()
        assert as_set(found) == expected
        assert len(found) == len(expected)
        snapshot = table.current_snapshot()
        if snapshot is None:
            return
        summary = snapshot.summary
        assert int(summary["total-records"]) == len(expected)


def as_set(rows: Any) -> set[str]:
    """Rows in a form that can be compared, whichever columns a reader knows by then."""
    return {repr(sorted(complete(row).items())) for row in rows}


def complete(row: Row) -> Row:
    row = {**dict.fromkeys(COLUMNS), **row}
    if row["extra"] is not None:
        row["extra"] = sorted({"a": None, "b": None, **row["extra"]}.items(), key=str)
    return row


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def happened() -> Iterator[Counter[str]]:
    """What happened in all histories; fails at the end if something never did."""
    counted: Counter[str] = Counter()
    yield counted
    print(dict(counted))
    if counted["history"] == HISTORIES:
        assert {name for name in EVENTS if not counted[name]} == set()


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_table_merged_into_equals_the_model(settings, seed, happened):
    history = History(settings, seed, happened)
    for _ in range(STEPS):
        history.step()
    happened["history"] += 1


def test_many_keys_are_compared_in_passes(settings, monkeypatch):
    monkeypatch.setattr(work_module, "PASS_ROWS", 16)
    monkeypatch.setattr(work_module, "LOOKUP_ROWS", 8)
    for seed in (1000, 1001, 1002):
        history = History(settings, seed)
        for _ in range(4):
            history.step()
