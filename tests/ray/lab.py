"""What the fault tests share: a source table, runs through the real ports, and the comparison."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from matih_ray.control.building import build_source
from matih_ray.control.ports import Ports
from matih_ray.execution.steps import Step
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.run import RunRecord, RunState
from matih_ray.model.value import JsonValue
from matih_ray.state.base import EndpointRecord
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.faults import Faults

TENANT = TenantId("acme")
# One slice is about 4 MB of Arrow: far over the 100 KB below which Ray inlines objects.
ROWS = 240_000
SLICE_ROWS = 30_000
# Ends what hangs; a cold cluster on a slow machine takes a minute and a half for a run.
RUN_TIMEOUT_S = 180


def create_table(server: PostgresServer, database: str, name: str, rows: int = ROWS) -> None:
    """A keyed table with a wide text column, and statistics for the planner."""
    server.execute(
        f"""
        CREATE TABLE "{name}" (id bigint PRIMARY KEY, amount numeric(12,2), note text);
        INSERT INTO "{name}"
          SELECT g, g * 1.25, CASE WHEN g % 11 = 0 THEN NULL ELSE repeat(md5(g::text), 3) END
          FROM generate_series(1, {rows}) g;
        ANALYZE "{name}";
        """,
        database,
    )


@dataclass(frozen=True)
class Lab:
    """One runtime, one source database, one endpoint."""

    ports: Ports
    server: PostgresServer
    database: str
    endpoint_id: EndpointId
    faults: Faults
    tenant: TenantId = TENANT

    @classmethod
    def open(cls, ports: Ports, server: PostgresServer) -> Lab:
        """A fresh database and an endpoint that points at it."""
        database = f"lab_{uuid.uuid4().hex[:8]}"
        server.create_database(database)
        endpoint_id = EndpointId(uuid.uuid4().hex)
        now = ports.clock()
        ports.metadata.put_endpoint(
            EndpointRecord(
                endpoint_id=endpoint_id,
                tenant_id=TENANT,
                name=database,
                type="POSTGRESQL",
                config={
                    "host": server.host,
                    "port": server.port,
                    "database": database,
                    "user": server.user,
                    "sslMode": "disable",
                },
                created_at=now,
                updated_at=now,
            )
        )
        return cls(ports, server, database, endpoint_id, Faults(ports.settings.home))

    def log_in_as(self, user: str) -> None:
        """Let the endpoint use another account."""
        record = self.ports.metadata.get_endpoint(TENANT, self.endpoint_id)
        self.ports.metadata.put_endpoint(
            record.model_copy(update={"config": {**record.config, "user": user}})
        )

    def sink(self, config: dict[str, JsonValue]) -> str:
        """Register an Iceberg catalog as a sink endpoint and return its id."""
        sink_id = uuid.uuid4().hex
        now = self.ports.clock()
        self.ports.metadata.put_endpoint(
            EndpointRecord(
                endpoint_id=EndpointId(sink_id),
                tenant_id=TENANT,
                name=f"sink_{sink_id[:8]}",
                type="iceberg",
                config=config,
                created_at=now,
                updated_at=now,
            )
        )
        return sink_id

    def resume(self, run_id: RunId) -> RunRecord:
        """Queue a stopped run again and wait for its end."""
        stopped = self.ports.metadata.get_run(TENANT, run_id)
        self.ports.metadata.update_run(stopped.model_copy(update={"state": RunState.QUEUED}))
        self.ports.launcher.launch(TENANT, run_id)
        return self.wait(run_id, states=(RunState.COMPLETED, RunState.FAILED))

    def unit(self, name: str) -> UnitId:
        """Catalog one table and return its unit id."""
        source = build_source(self.ports, TENANT, self.endpoint_id)
        try:
            unit = source.describe_unit(UnitId(f"public.{name}"))
        finally:
            source.close()
        self.ports.metadata.put_unit(TENANT, unit)
        return unit.unit_id

    def start(
        self,
        unit_id: UnitId,
        policy: IngestionPolicy,
        sink_id: str = "iceberg",
        staging: str = "object_store",
    ) -> RunId:
        """Queue a run and launch it."""
        run_id = RunId(uuid.uuid4().hex)
        record = RunRecord(
            run_id=run_id,
            stream=StreamKey(
                tenant_id=TENANT,
                vendor="jdbc.postgres",
                endpoint_id=self.endpoint_id,
                unit_id=unit_id,
                sink_id=SinkId(sink_id),
            ),
            state=RunState.QUEUED,
            policy=policy,
            staging_provider_id=staging,
            created_at=self.ports.clock(),
        )
        self.ports.metadata.create_run(record)
        self.ports.launcher.launch(TENANT, run_id)
        return run_id

    def wait(
        self,
        run_id: RunId,
        states: Iterable[RunState] = (
            RunState.COMPLETED,
            RunState.FAILED,
            RunState.CANCELLED,
            RunState.PAUSED,
        ),
        timeout_s: float = RUN_TIMEOUT_S,
    ) -> RunRecord:
        """Wait until the run is in one of the states."""
        deadline = time.monotonic() + timeout_s
        while True:
            record = self.ports.metadata.get_run(TENANT, run_id)
            if record.state in states:
                return record
            if time.monotonic() > deadline:
                raise AssertionError(f"run is {record.state} after {timeout_s} s: {record}")
            time.sleep(0.1)

    def wait_for_fault(self, step: Step, timeout_s: float = RUN_TIMEOUT_S) -> None:
        """Wait until an armed fault has happened."""
        deadline = time.monotonic() + timeout_s
        while self.faults.is_armed(step):
            if time.monotonic() > deadline:
                runs = [
                    (run.run_id, run.state, run.through, run.error, self.faults.journal(run.run_id))
                    for run in self.ports.metadata.list_runs(self.tenant)
                ]
                raise AssertionError(f"nothing reached {step} in {timeout_s} s: {runs}")
            time.sleep(0.02)

    def source_rows(self, name: str) -> tuple[int, str]:
        """Count and order-independent checksum of the source table."""
        count, total = self.server.execute(
            f"""SELECT count(*), coalesce(sum(('x' || substr(md5(
                concat_ws('|', id, coalesce(amount::text, '~'), coalesce(note, '~'))), 1, 15)
                )::bit(60)::bigint), 0)::text FROM "{name}" """,
            self.database,
        )[0]
        return int(str(count)), str(total)

    def sink_rows(self, run: RunRecord, sink_id: str = "iceberg") -> tuple[int, str]:
        """The same of the table a run wrote to, read by PyIceberg and summed by DuckDB."""
        import duckdb

        from matih_ray.testing.iceberg import load_table

        assert run.target is not None
        rows = load_table(self.ports, TENANT, SinkId(sink_id), run.target).scan().to_arrow()
        connection = duckdb.connect()
        connection.register("rows", rows)
        [(count, total)] = connection.execute(
            """SELECT count(*), coalesce(sum(('0x' || substr(md5(concat_ws('|', id,
               coalesce(amount::varchar, '~'), coalesce(note, '~'))), 1, 15))::hugeint), 0)::varchar
               FROM rows"""
        ).fetchall()
        return int(count), str(total)
