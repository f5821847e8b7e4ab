"""Runs by a table's log as the runtime makes them, without a cluster."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from matih_ray.execution.checkpoints import checkpoint_after
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.postgres import PostgresSource
from matih_ray.testing.devstack.postgres import PostgresServer

APPEND = IngestionPolicy(run_mode=RunMode.CDC)
MERGE = IngestionPolicy(run_mode=RunMode.CDC, write_mode=WriteMode.MERGE)
# Python's values by the names of columns.
Row = dict[str, object]


@dataclass
class ChangeRuns:
    """A database with a table `public.t`, and its runs by the log, of one reader."""

    server: PostgresServer
    database: str
    reader: str = "r1"
    user: str = "postgres"
    policy: IngestionPolicy = APPEND
    checkpoint: Checkpoint | None = None
    plan: IngestionPlan | None = field(default=None, init=False)

    def run_sql(self, statement: str) -> list[tuple[object, ...]]:
        return self.server.execute(statement, self.database)

    def source(self) -> PostgresSource:
        return PostgresSource(
            EndpointSpec(
                tenant_id=TenantId("tenant"),
                endpoint_id=EndpointId("endpoint"),
                name="test",
                type="POSTGRESQL",
                config={
                    "host": self.server.host,
                    "port": self.server.port,
                    "database": self.database,
                    "user": self.user,
                },
            )
        )

    def planned(self, source: PostgresSource) -> IngestionPlan:
        """A plan, its log opened before."""
        unit = source.describe_unit(UnitId("public.t"))
        opened = source.open_log(unit, self.checkpoint, self.policy, self.reader)
        return make_plan(source, unit, opened, self.policy)

    def read(
        self, source: PostgresSource, plan: IngestionPlan, meanwhile: str | None = None
    ) -> list[pa.RecordBatch]:
        """All batches of a plan, which is bound to a snapshot if it must; `meanwhile` happens
        behind the first slice."""
        unit = source.describe_unit(UnitId("public.t"))
        schema = source.read_schema(unit, self.policy)
        held = None if plan.resumable else source.hold_snapshot(plan)
        try:
            if held is not None:
                slices = tuple(map(held.bind, plan.slices))
                plan = plan.model_copy(update={"slices": slices})
            batches: list[pa.RecordBatch] = []
            for number, slice_ in enumerate(plan.slices):
                if number == 1 and meanwhile is not None:
                    self.run_sql(meanwhile)
                batches += source.read(unit, slice_, self.policy)
        finally:
            if held is not None:
                held.close()
        assert all(batch.schema.equals(schema) for batch in batches)
        self.plan = plan
        return batches

    def run(self, meanwhile: str | None = None) -> list[Row]:
        """A whole run: what it reads is durable when this returns."""
        with closing(self.source()) as source:
            batches = self.read(source, self.planned(source), meanwhile)
            assert self.plan is not None
            self.commit(self.plan)
            assert self.checkpoint is not None
            source.confirm_log(self.checkpoint)
        return [row for batch in batches for row in batch.to_pylist()]

    def commit(self, plan: IngestionPlan) -> None:
        through = len(plan.slices)
        self.checkpoint = checkpoint_after(plan, through, self.checkpoint, RunId("r"))

    def lag(self) -> int:
        """Bytes of the log that the server keeps for the slot."""
        ((lag,),) = self.run_sql(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) FROM pg_replication_slots "
            f"WHERE slot_name = 'matih_{self.reader}'"
        )
        return int(str(lag))


@dataclass
class Merged:
    """A table that rows are merged into, as the rule of a merge says."""

    key: tuple[str, ...]
    rows: dict[tuple[object, ...], Row] = field(default_factory=dict)
    versions: dict[tuple[object, ...], str] = field(default_factory=dict)

    def merge(self, arrived: list[Row]) -> None:
        for row in sorted(arrived, key=lambda one: str(one["_source_version"])):
            key = tuple(row[name] for name in self.key)
            if row["_deleted"]:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    def contents(self, *columns: str) -> Counter[tuple[object, ...]]:
        return Counter(tuple(row[name] for name in columns) for row in self.rows.values())


def told(rows: list[Row], *columns: str) -> list[tuple[object, ...]]:
    """What happened, in the order of versions."""
    return [
        tuple(row[name] for name in ("_change", *columns))
        for row in sorted(rows, key=lambda one: str(one["_source_version"]))
    ]
