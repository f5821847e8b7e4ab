"""Runs by PostgreSQL's log into Iceberg, step by step as their owners do it, in one process: owners
that die, and one that only seemed dead."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from matih_ray.control.authorization import Principal, Role
from matih_ray.control.building import build_sink, build_source
from matih_ray.control.loads import LoadRequest, plan_unit
from matih_ray.control.ports import Ports, utc_now
from matih_ray.control.previews import preview_unit
from matih_ray.control.rollback import rollback_run
from matih_ray.errors import ChangesLostError, FencedError
from matih_ray.execution.change_log import confirm_log, opened_log
from matih_ray.execution.checkpoints import StoredCheckpoint, reconcile_previous_run
from matih_ray.execution.committer import Committer
from matih_ray.execution.ledger import RunLedger, take_ownership
from matih_ray.execution.snapshots import bound_plan, held_snapshot
from matih_ray.execution.targets import sink_target
from matih_ray.model.ids import RunId
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.model.receipt import WriteReceipt
from matih_ray.model.run import RunState
from matih_ray.planning.planner import make_plan
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.sinks.base import SinkEndpoint
from matih_ray.sources.base import SourceEndpoint
from matih_ray.sources.postgres.change_runs import plans
from matih_ray.state.factory import open_stores
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.fakes import RecordingLauncher
from matih_ray.testing.iceberg import load_table
from tests.ray.lab import TENANT, Lab

APPEND = IngestionPolicy(run_mode=RunMode.CDC, target_slice_rows=300)
MERGE = APPEND.model_copy(update={"write_mode": WriteMode.MERGE})
ADMIN = Principal("tests", TENANT, frozenset({Role.ADMIN}))
TABLE = "CREATE TABLE t (id int PRIMARY KEY, region text, v text)"


@dataclass
class Clock:
    """Time that tests move on: owners that were not heard of are replaced."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@dataclass
class Owner:
    """One owner of a run and what it has in hand."""

    ports: Ports
    ledger: RunLedger
    open: ExitStack
    source: SourceEndpoint
    sink: SinkEndpoint = field(init=False)
    committer: Committer = field(init=False)
    receipts: list[WriteReceipt] = field(default_factory=list)

    def read(self) -> None:
        """Plan, unless a former owner has, and write what is not committed."""
        record, ports = self.ledger.record, self.ports
        stream = record.stream
        unit = ports.metadata.get_unit(TENANT, stream.endpoint_id, stream.unit_id)
        plan = record.plan
        if plan is None:
            reconcile_previous_run(ports, record)
            checkpoint = StoredCheckpoint(ports, stream).value
            before = None if checkpoint is None else checkpoint.to_dict()
            checkpoint = opened_log(self.source, unit, checkpoint, record)
            plan = make_plan(self.source, unit, checkpoint, record.policy)
            self.ledger.update(plan=plan, statistics={"checkpointBefore": before})
        schema = self.source.read_schema(unit, record.policy)
        self.sink = self.open.enter_context(closing(build_sink(ports, TENANT, stream.sink_id)))
        prepared = self.sink.prepare(sink_target(self.ledger.record, "shop", unit, schema))
        self.ledger.update(target=prepared.to_dict())
        self.committer = Committer(ports, self.ledger, self.sink, prepared)
        self.committer.recover()
        if not plan.resumable and self.committer.through < len(plan.slices):
            held = self.open.enter_context(closing(held_snapshot(self.source, plan)))
            plan = bound_plan(held, plan, self.ledger, self.committer)
        for slice_ in plan.slices[self.committer.through :]:
            writer = self.sink.writer(prepared, slice_)
            for batch in self.source.read(unit, slice_, record.policy):
                writer.write(batch)
            self.receipts.append(writer.close())

    def commit(self) -> None:
        if self.receipts:
            self.committer.commit(self.receipts, last=True)

    def end(self) -> None:
        confirm_log(self.ports, self.source, self.ledger.record)
        self.ledger.update(state=RunState.COMPLETED, finished_at=self.ports.clock())
        self.open.close()


@dataclass
class Runs:
    """A lab whose runs this process owns."""

    lab: Lab
    clock: Clock
    policy: IngestionPolicy

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        return self.lab.server.execute(statement, self.lab.database)

    def start(self) -> RunId:
        return self.lab.start(self.lab.unit("t"), self.policy)

    def owner(self, run_id: RunId) -> Owner:
        """A new owner; the one before has not been heard of for long."""
        self.clock.ahead += timedelta(hours=1)
        ledger = take_ownership(self.lab.ports, TENANT, run_id)
        assert ledger is not None
        stack = ExitStack()
        source = build_source(self.lab.ports, TENANT, self.lab.endpoint_id)
        return Owner(self.lab.ports, ledger, stack, stack.enter_context(closing(source)))

    def finish(self, run_id: RunId) -> RunId:
        owner = self.owner(run_id)
        owner.read()
        owner.commit()
        owner.end()
        return run_id

    def table(self, run_id: RunId) -> pa.Table:
        run = self.lab.ports.metadata.get_run(TENANT, run_id)
        assert run.target is not None
        return load_table(self.lab.ports, TENANT, run.stream.sink_id, run.target).scan().to_arrow()

    def rows(self, run_id: RunId) -> Counter[tuple[object, ...]]:
        table = self.table(run_id)
        columns = [table[name].to_pylist() for name in ("id", "region", "v")]
        return Counter(zip(*columns, strict=True))

    def expected(self) -> Counter[tuple[object, ...]]:
        return Counter(self.sql("SELECT id, region, v FROM t"))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(options={"max_replication_slots": "40", "autovacuum": "off"}) as server:
        yield server


@pytest.fixture
def runs(server: PostgresServer, tmp_path: Path) -> Iterator[Runs]:
    settings, clock = Settings(home=tmp_path), Clock()
    stores = open_stores(settings)
    ports = Ports(
        settings=settings,
        registry=load_registry(),
        metadata=stores.metadata,
        kv=stores.kv,
        credentials=stores.credentials,
        launcher=RecordingLauncher(),
        clock=clock,
    )
    yield Runs(Lab.open(ports, server), clock, MERGE)
    stores.metadata.close()


def changed(dice: random.Random) -> str:
    one, other = dice.randrange(40), dice.randrange(40)
    region, value = dice.choice("abc"), f"v{dice.randrange(10**6)}"
    return dice.choice(
        [
            f"""INSERT INTO t VALUES ({one}, '{region}', '{value}')
                ON CONFLICT (id) DO UPDATE SET region = '{region}', v = '{value}';""",
            f"UPDATE t SET region = '{region}', v = '{value}' WHERE id % 5 = {one % 5};",
            f"DELETE FROM t WHERE id = {one};",
            f"""UPDATE t SET id = {other} WHERE id = {one}
                AND NOT EXISTS (SELECT FROM t WHERE id = {other});""",
        ]
    )


@pytest.mark.parametrize("partition_by", [(), ("region",)], ids=["plain", "partitioned"])
@pytest.mark.parametrize("seed", range(2))
def test_a_merged_table_equals_its_source_after_every_run(
    runs: Runs, seed: int, partition_by: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners die where dice say, before and behind the commit."""
    monkeypatch.setattr(plans, "LOG_SLICE_BYTES", 8192)
    dice = random.Random(f"{seed} {partition_by}")
    runs.policy = MERGE.model_copy(update={"partition_by": partition_by})
    runs.sql(f"{TABLE}; INSERT INTO t SELECT g, 'a', 'x' FROM generate_series(1, 1000) g; ANALYZE")
    for _ in range(4):
        run_id = runs.start()
        if dice.random() < 0.6:
            dying = runs.owner(run_id)
            dying.read()
            if dice.random() < 0.5:
                dying.commit()
            dying.open.close()
        runs.finish(run_id)
        assert runs.rows(run_id) == runs.expected()
        for _ in range(30):
            runs.sql("".join(changed(dice) for _ in range(dice.randrange(1, 4))))


def test_an_owner_that_only_seemed_dead_cannot_commit_rows_of_its_snapshot(runs: Runs) -> None:
    """Otherwise what happened between the two snapshots would be in neither rows nor log."""
    runs.policy = APPEND
    runs.sql(f"{TABLE}; INSERT INTO t VALUES (1, 'a', 'x')")
    run_id = runs.start()
    zombie = runs.owner(run_id)
    zombie.read()
    runs.sql("INSERT INTO t VALUES (2, 'a', 'x')")
    owner = runs.owner(run_id)
    owner.read()
    with pytest.raises(FencedError):
        zombie.commit()
    zombie.open.close()
    owner.commit()
    owner.end()
    runs.sql("INSERT INTO t VALUES (3, 'a', 'x')")
    assert runs.rows(runs.finish(runs.start())) == runs.expected()


def test_an_owner_that_has_committed_unseen_decides_where_the_log_goes_on(runs: Runs) -> None:
    runs.policy = APPEND
    runs.sql(f"{TABLE}; INSERT INTO t VALUES (1, 'a', 'x')")
    run_id = runs.start()
    dying = runs.owner(run_id)
    dying.read()
    runs.sql("INSERT INTO t VALUES (2, 'a', 'x')")  # in the log, and not in its rows
    dying.commit()
    dying.open.close()
    runs.lab.ports.kv.delete(TENANT, dying.ledger.record.stream.kv_key())  # before the checkpoint
    runs.finish(run_id)
    assert runs.rows(runs.finish(runs.start())) == runs.expected()


def test_what_is_looked_at_starts_nothing(runs: Runs) -> None:
    runs.sql(f"{TABLE}; INSERT INTO t SELECT g, 'a', 'x' FROM generate_series(1, 1000) g; ANALYZE")
    request = LoadRequest(
        endpoint_id=runs.lab.endpoint_id, unit_id=runs.lab.unit("t"), policy=runs.policy
    )
    plan = plan_unit(ADMIN, runs.lab.ports, TENANT, request)
    assert len(plan.slices) > 1
    preview = preview_unit(ADMIN, runs.lab.ports, TENANT, request, limit=3)
    names = ["id", "region", "v", "_change", "_source_version", "_deleted", "_committed_at"]
    assert [column.name for column in preview.columns] == names
    assert len(preview.rows) == 3
    runs.finish(runs.start())
    assert plan_unit(ADMIN, runs.lab.ports, TENANT, request).strategy == plans.LOG
    assert len(preview_unit(ADMIN, runs.lab.ports, TENANT, request, limit=3).rows) == 3


def test_a_run_that_is_taken_back_leaves_no_gap(runs: Runs) -> None:
    runs.sql(f"{TABLE}; INSERT INTO t VALUES (1, 'a', 'x')")
    runs.finish(runs.start())
    runs.sql("INSERT INTO t VALUES (2, 'a', 'x')")
    second = runs.finish(runs.start())
    rollback_run(ADMIN, runs.lab.ports, TENANT, second)
    owner = runs.owner(runs.start())
    with owner.open, pytest.raises(ChangesLostError, match="taken back"):
        owner.read()
