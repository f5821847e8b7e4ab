"""The run ledger in SQL. See `MetadataStore` for what each method promises.

An idle incremental run costs three writing transactions (created, taken, completed), each of two or
three statements by primary key. Heartbeats are one statement and leave `version` alone, so they
never make the owner's own update fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    case,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import cast as sql_cast

from matih_ray.errors import (
    ConflictError,
    MatihError,
    NotFoundError,
    RunOverlapError,
    StateConflictError,
)
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.connector import ConnectorUsage
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.run import RunRecord, RunRequest, RunState, check_transition
from matih_ray.state.engine import Database
from matih_ray.state.names import check_page
from matih_ray.state.sql_part import SqlPart, stored_value, utc_now
from matih_ray.state.sql_plans import PlanDigests, write_plan
from matih_ray.state.sql_units import record_unit_state
from matih_ray.state.tables import IS_ACTIVE, run_plans, runs

# Kept in columns: identity, and what changes without a new document.
_RUN_COLUMNS = {
    "run_id", "stream", "state", "requested", "plan", "epoch", "created_at", "heartbeat_at",
    "version",
}  # fmt: skip


class SqlRuns(SqlPart):
    """Runs, their requests and their heartbeats."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(database, clock)
        self._digests = PlanDigests()

    def create_run(self, record: RunRecord) -> RunRecord:
        """Insert a run; returns it with its first version."""
        created = record.model_copy(update={"version": 1})
        stream, now = record.stream, self._clock()
        with self._database.write(
            "create the run", violated=lambda: self._overlap(record, is_new=True)
        ) as connection:
            connection.execute(
                insert(runs).values(
                    tenant_id=stream.tenant_id,
                    run_id=record.run_id,
                    vendor=stream.vendor,
                    endpoint_id=stream.endpoint_id,
                    unit_id=stream.unit_id,
                    sink_id=stream.sink_id,
                    created_at=record.created_at,
                    heartbeat_at=record.heartbeat_at,
                    alive_at=now,
                    plan_digest=self._digests.digest(record.plan) if record.plan else None,
                    **_changing(created),
                )
            )
            if record.plan is not None:
                write_plan(self._database, connection, stream.tenant_id, record.run_id, record.plan)
            record_unit_state(self._database, connection, created, now, claims=True)
        return created

    def get_run(self, tenant_id: TenantId, run_id: RunId) -> RunRecord:
        """The run with its plan. Raises `NotFoundError`."""
        query = (
            select(runs, run_plans.c.document.label("plan_document"))
            .join_from(
                runs,
                run_plans,
                (run_plans.c.tenant_id == runs.c.tenant_id) & (run_plans.c.run_id == runs.c.run_id),
                isouter=True,
            )
            .where(*_is_run(tenant_id, run_id))
        )
        with self._database.read("read the run") as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise _no_run(run_id)
        record = _run(row)
        if row.plan_document is None:
            return record
        plan = stored_value(IngestionPlan, row.plan_document)
        self._digests.remember(plan, row.plan_digest)
        return record.model_copy(update={"plan": plan})

    def update_run(self, record: RunRecord) -> RunRecord:
        """Replace a run by compare-and-set; a record without a plan leaves the stored plan."""
        tenant_id, now = record.stream.tenant_id, self._clock()
        digest = self._digests.digest(record.plan) if record.plan else None
        with self._database.write(
            "update the run", violated=lambda: self._overlap(record, is_new=False)
        ) as connection:
            before = _held_run(connection, tenant_id, record.run_id)
            _check_update(before, record)
            after = record.model_copy(
                update={
                    "version": record.version + 1,
                    "heartbeat_at": _latest(before.heartbeat_at, record.heartbeat_at),
                }
            )
            moved = before.state != record.state.value or before.epoch != record.epoch
            connection.execute(
                update(runs)
                .where(*_is_run(tenant_id, record.run_id))
                .values(
                    heartbeat_at=after.heartbeat_at,
                    alive_at=_latest(before.alive_at, now if moved else after.heartbeat_at),
                    plan_digest=digest or before.plan_digest,
                    **_changing(after),
                )
            )
            if record.plan is not None and digest != before.plan_digest:
                write_plan(self._database, connection, tenant_id, record.run_id, record.plan)
            if before.state != record.state.value:
                claims = record.state.is_active
                record_unit_state(self._database, connection, after, now, claims=claims)
        return after

    def heartbeat(self, tenant_id: TenantId, run_id: RunId, epoch: int, at: datetime) -> RunRecord:
        """Record a sign of life of the owner; returns the run without its plan."""
        statement = (
            update(runs)
            .where(*_is_run(tenant_id, run_id), runs.c.epoch == epoch)
            .values(heartbeat_at=at, alive_at=at)
            .returning(runs)
        )
        with self._database.write("record the heartbeat") as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                owner = _held_run(connection, tenant_id, run_id).epoch
                raise StateConflictError(
                    f"run {run_id} is owned by epoch {owner}, not {epoch}; stop working on it",
                    run_id=run_id,
                    epoch=epoch,
                    owner=owner,
                )
        return _run(row)

    def request(self, tenant_id: TenantId, run_id: RunId, request: RunRequest) -> RunRecord:
        """Ask the owner of an active run to pause or cancel; returns the run without its plan."""
        with self._database.write("ask the run's owner") as connection:
            row = _held_run(connection, tenant_id, run_id)
            if not RunState(row.state).is_active:
                raise ConflictError(
                    f"run {run_id} is {row.state}; only a queued or running run can be asked to "
                    f"{request.value.lower()}",
                    run_id=run_id,
                    state=row.state,
                )
            if row.requested in (request.value, RunRequest.CANCEL.value):
                return _run(row)
            statement = (
                update(runs)
                .where(*_is_run(tenant_id, run_id))
                .values(requested=request.value, version=runs.c.version + 1)
                .returning(runs)
            )
            return _run(connection.execute(statement).one())

    def list_runs(
        self,
        tenant_id: TenantId,
        *,
        endpoint_id: EndpointId | None = None,
        unit_id: UnitId | None = None,
        states: Sequence[RunState] = (),
        offset: int = 0,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Newest first, without plans."""
        check_page(offset, limit)
        query = select(runs).where(runs.c.tenant_id == tenant_id)
        if endpoint_id is not None:
            query = query.where(runs.c.endpoint_id == endpoint_id)
        if unit_id is not None:
            query = query.where(runs.c.unit_id == unit_id)
        if states:
            query = query.where(runs.c.state.in_([state.value for state in states]))
        query = query.order_by(runs.c.created_at.desc(), runs.c.run_id.desc())
        with self._database.read("list the runs") as connection:
            return [_run(row) for row in connection.execute(query.offset(offset).limit(limit))]

    def usage_of(
        self, tenant_id: TenantId, endpoint_id: EndpointId, since: datetime
    ) -> ConnectorUsage:
        """Totals over the endpoint's runs that were created since then; one indexed range."""
        completed = runs.c.state == RunState.COMPLETED.value
        failed = runs.c.state == RunState.FAILED.value
        query = select(
            func.count(),
            func.coalesce(func.sum(case((completed, 1), else_=0)), 0),
            func.coalesce(func.sum(case((failed, 1), else_=0)), 0),
            func.coalesce(func.sum(self._number("rows")), 0),
            func.coalesce(func.sum(self._number("bytes")), 0),
            func.max(runs.c.created_at),
        ).where(
            runs.c.tenant_id == tenant_id,
            runs.c.endpoint_id == endpoint_id,
            runs.c.created_at >= since,
        )
        with self._database.read("add up the runs of the connector") as connection:
            total, done, lost, rows, size, last = connection.execute(query).one()
        return ConnectorUsage(
            connector_id=endpoint_id,
            since=since,
            runs=total,
            completed_runs=done,
            failed_runs=lost,
            rows=int(rows),
            bytes=int(size),
            last_used_at=last,
        )

    def _number(self, field: str) -> ColumnElement[int]:
        """A whole number of the run's document."""
        if self._database.is_sqlite:
            return func.json_extract(runs.c.document, f"$.{field}")
        return sql_cast(sql_cast(runs.c.document, JSON)[field].as_string(), BigInteger)

    def find_orphans(self, heartbeat_before: datetime, limit: int = 100) -> list[RunRecord]:
        """Active runs of all tenants that nobody has worked on since then, longest silent first."""
        check_page(0, limit)
        query = (
            select(runs)
            .where(IS_ACTIVE, runs.c.alive_at < heartbeat_before)
            .order_by(runs.c.alive_at)
            .limit(limit)
        )
        with self._database.read("look for orphaned runs") as connection:
            return [_run(row) for row in connection.execute(query)]

    def find_used_sinks(self) -> list[tuple[TenantId, SinkId]]:
        """Every tenant with every sink that runs of it went to, in order."""
        pair = (runs.c.tenant_id, runs.c.sink_id)
        with self._database.read("look for sinks in use") as connection:
            found = connection.execute(select(*pair).distinct().order_by(*pair))
            return [(TenantId(tenant), SinkId(sink)) for tenant, sink in found]

    def _overlap(self, record: RunRecord, *, is_new: bool) -> MatihError:
        stream = record.stream
        query = select(runs.c.run_id, runs.c.state).where(
            runs.c.tenant_id == stream.tenant_id,
            runs.c.endpoint_id == stream.endpoint_id,
            runs.c.unit_id == stream.unit_id,
            runs.c.sink_id == stream.sink_id,
            runs.c.run_id != record.run_id,
            IS_ACTIVE,
        )
        with self._database.read("look for the overlapping run") as connection:
            same = select(runs.c.version).where(*_is_run(stream.tenant_id, record.run_id))
            if is_new and connection.scalar(same) is not None:
                return StateConflictError(
                    f"run {record.run_id} exists already; read it", run_id=record.run_id
                )
            other = connection.execute(query).first()
        if other is None:
            return RunOverlapError(
                f"another run of unit {stream.unit_id!r} was active a moment ago; try again",
                unit_id=stream.unit_id,
            )
        return RunOverlapError(
            f"run {other.run_id} of unit {stream.unit_id!r} is {other.state}; wait until it ends, "
            "or pause or cancel it",
            run_id=other.run_id,
            state=other.state,
            unit_id=stream.unit_id,
        )


def _is_run(tenant_id: TenantId, run_id: RunId) -> tuple[Any, Any]:
    return (runs.c.tenant_id == tenant_id, runs.c.run_id == run_id)


def _held_run(connection: Connection, tenant_id: TenantId, run_id: RunId) -> Row[Any]:
    """The run's row, which nobody else can change until the transaction ends."""
    query = select(runs).where(*_is_run(tenant_id, run_id)).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _no_run(run_id)
    return row


def _check_update(before: Row[Any], record: RunRecord) -> None:
    if before.version != record.version:
        raise StateConflictError(
            f"run {record.run_id} was changed by somebody else since version {record.version} was "
            "read; read it again",
            run_id=record.run_id,
            version=record.version,
            stored=before.version,
        )
    if _stream(before) != record.stream:
        raise ConflictError(
            f"run {record.run_id} belongs to another stream and cannot be moved",
            run_id=record.run_id,
        )
    if before.state != record.state.value:
        check_transition(record.run_id, RunState(before.state), record.state)


def _latest(before: datetime | None, after: datetime | None) -> datetime | None:
    """The later of two moments: a heartbeat that came between must not be set back."""
    if before is None or after is None:
        return before or after
    return max(before, after)


def _changing(record: RunRecord) -> dict[str, Any]:
    return {
        "state": record.state.value,
        "requested": None if record.requested is None else record.requested.value,
        "epoch": record.epoch,
        "version": record.version,
        "document": record.model_dump_json(by_alias=True, exclude=_RUN_COLUMNS),
    }


def _stream(row: Row[Any]) -> StreamKey:
    return StreamKey(
        tenant_id=row.tenant_id,
        vendor=row.vendor,
        endpoint_id=row.endpoint_id,
        unit_id=row.unit_id,
        sink_id=row.sink_id,
    )


def _run(row: Row[Any]) -> RunRecord:
    return stored_value(
        RunRecord,
        row.document,
        run_id=row.run_id,
        stream=_stream(row),
        state=row.state,
        requested=row.requested,
        epoch=row.epoch,
        created_at=row.created_at,
        heartbeat_at=row.heartbeat_at,
        version=row.version,
    )


def _no_run(run_id: RunId) -> NotFoundError:
    return NotFoundError(f"no run {run_id}", run_id=run_id)
