"""What is known of each stream and each slice, in SQL: unit states and slice statistics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from matih_ray.errors import NotFoundError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId
from matih_ray.model.run import RunRecord, RunState, SliceRecord
from matih_ray.state.base import UnitStateRecord
from matih_ray.state.engine import Database
from matih_ray.state.names import check_page
from matih_ray.state.sql_part import SqlPart, stored_value
from matih_ray.state.tables import run_slices, unit_states


class SqlSlices(SqlPart):
    """Statistics of slices; see `MetadataStore` for each method."""

    def put_slices(self, tenant_id: TenantId, run_id: RunId, slices: Sequence[SliceRecord]) -> None:
        """Insert or replace slice statistics by (run, sequence). Raises `NotFoundError`."""
        rows = {
            record.sequence: {
                "tenant_id": tenant_id,
                "run_id": run_id,
                "sequence": record.sequence,
                "document": record.to_json(),
            }
            for record in slices
        }
        if not rows:
            return
        statement = self._database.insert(run_slices)
        upsert = statement.on_conflict_do_update(
            index_elements=list(run_slices.primary_key),
            set_={"document": statement.excluded.document},
            # asking for rows back makes SQLAlchemy send many per statement: eight times as fast
        ).returning(run_slices.c.sequence)
        with self._database.write(
            "store slice statistics",
            violated=lambda: NotFoundError(f"no run {run_id}", run_id=run_id),
        ) as connection:
            # in one order always, so that two writers cannot wait for each other
            connection.execute(upsert, [rows[sequence] for sequence in sorted(rows)])

    def list_slices(
        self, tenant_id: TenantId, run_id: RunId, *, offset: int = 0, limit: int = 100
    ) -> list[SliceRecord]:
        """A page of slice statistics, in commit order."""
        check_page(offset, limit)
        query = (
            select(run_slices.c.document)
            .where(run_slices.c.tenant_id == tenant_id, run_slices.c.run_id == run_id)
            .order_by(run_slices.c.sequence)
            .offset(offset)
            .limit(limit)
        )
        with self._database.read("list the slices") as connection:
            documents = connection.scalars(query).all()
        return [stored_value(SliceRecord, document) for document in documents]


class SqlUnitStates(SqlPart):
    """The last known state of each stream."""

    def get_unit_state(self, stream: StreamKey) -> UnitStateRecord | None:
        """The state of a stream; None if it never had a run."""
        with self._database.read("read the unit state") as connection:
            row = connection.execute(select(unit_states).where(*_is_stream(stream))).one_or_none()
        return None if row is None else _unit_state(row)

    def list_unit_states(
        self,
        tenant_id: TenantId,
        *,
        endpoint_id: EndpointId | None = None,
        sink_id: SinkId | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> list[UnitStateRecord]:
        """A page of states, ordered by endpoint, unit and sink."""
        check_page(offset, limit)
        query = select(unit_states).where(unit_states.c.tenant_id == tenant_id)
        if endpoint_id is not None:
            query = query.where(unit_states.c.endpoint_id == endpoint_id)
        if sink_id is not None:
            query = query.where(unit_states.c.sink_id == sink_id)
        query = query.order_by(*unit_states.primary_key).offset(offset).limit(limit)
        with self._database.read("list the unit states") as connection:
            return [_unit_state(row) for row in connection.execute(query)]


def record_unit_state(
    database: Database, connection: Connection, run: RunRecord, now: datetime, *, claims: bool
) -> None:
    """Note a run's new state as the state of its stream.

    A run that `claims` its stream becomes its last run. Any other change counts only while the run
    still is the last one: cancelling a paused run must not hide a later one.
    """
    changed: dict[str, Any] = {"state": run.state.value, "updated_at": now}
    if run.state is RunState.COMPLETED:
        changed["last_completed_run_id"] = run.run_id
    if not claims:
        connection.execute(
            update(unit_states)
            .where(*_is_stream(run.stream), unit_states.c.last_run_id == run.run_id)
            .values(**changed)
        )
        return
    changed["last_run_id"] = run.run_id
    connection.execute(
        database.insert(unit_states)
        .values(
            tenant_id=run.stream.tenant_id,
            endpoint_id=run.stream.endpoint_id,
            unit_id=run.stream.unit_id,
            sink_id=run.stream.sink_id,
            vendor=run.stream.vendor,
            **changed,
        )
        .on_conflict_do_update(index_elements=list(unit_states.primary_key), set_=changed)
    )


def _is_stream(stream: StreamKey) -> tuple[Any, Any, Any, Any]:
    return (
        unit_states.c.tenant_id == stream.tenant_id,
        unit_states.c.endpoint_id == stream.endpoint_id,
        unit_states.c.unit_id == stream.unit_id,
        unit_states.c.sink_id == stream.sink_id,
    )


def _unit_state(row: Row[Any]) -> UnitStateRecord:
    return UnitStateRecord(
        stream=StreamKey(
            tenant_id=row.tenant_id,
            vendor=row.vendor,
            endpoint_id=row.endpoint_id,
            unit_id=row.unit_id,
            sink_id=row.sink_id,
        ),
        state=RunState(row.state),
        last_run_id=row.last_run_id,
        last_completed_run_id=row.last_completed_run_id,
        updated_at=row.updated_at,
    )
