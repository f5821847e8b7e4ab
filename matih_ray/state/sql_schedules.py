"""Schedules in SQL; see `MetadataStore` for what each method promises."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from matih_ray.errors import ConflictError, MatihError, NotFoundError, StateConflictError
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.schedule import Schedule
from matih_ray.state.names import check_page
from matih_ray.state.sql_part import SqlPart, stored_value
from matih_ray.state.tables import endpoints, schedules

_COLUMNS = {
    "tenant_id", "schedule_id", "endpoint_id", "unit_id", "sink_id", "due_at", "version",
}  # fmt: skip


class SqlSchedules(SqlPart):
    """Schedules of streams."""

    def put_schedule(self, schedule: Schedule) -> Schedule:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version."""
        after = schedule.version + 1
        values = {
            "due_at": schedule.due_at,
            "document": schedule.model_dump_json(by_alias=True, exclude=_COLUMNS),
            "version": after,
        }
        with self._database.write(
            "store the schedule", violated=lambda: self._schedule_refused(schedule)
        ) as connection:
            if schedule.version == 0:
                connection.execute(
                    insert(schedules).values(
                        tenant_id=schedule.tenant_id,
                        schedule_id=schedule.schedule_id,
                        endpoint_id=schedule.endpoint_id,
                        unit_id=schedule.unit_id,
                        sink_id=schedule.sink_id,
                        **values,
                    )
                )
            else:
                changed = connection.execute(
                    update(schedules)
                    .where(
                        *_is(schedule.tenant_id, schedule.schedule_id),
                        schedules.c.version == schedule.version,
                    )
                    .values(**values)
                )
                if changed.rowcount == 0:
                    raise _changed(schedule)
        return schedule.model_copy(update={"version": after})

    def get_schedule(self, tenant_id: TenantId, schedule_id: str) -> Schedule:
        """Raises `NotFoundError`."""
        query = select(schedules).where(*_is(tenant_id, schedule_id))
        with self._database.read("read the schedule") as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"no schedule {schedule_id}", schedule_id=schedule_id)
        return _schedule(row)

    def list_schedules(
        self,
        tenant_id: TenantId,
        *,
        endpoint_id: EndpointId | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Schedule]:
        """A page of schedules, ordered by stream."""
        check_page(offset, limit)
        query = select(schedules).where(schedules.c.tenant_id == tenant_id)
        if endpoint_id is not None:
            query = query.where(schedules.c.endpoint_id == endpoint_id)
        query = query.order_by(schedules.c.endpoint_id, schedules.c.unit_id, schedules.c.sink_id)
        with self._database.read("list the schedules") as connection:
            rows = connection.execute(query.offset(offset).limit(limit))
            return [_schedule(row) for row in rows]

    def delete_schedule(self, tenant_id: TenantId, schedule_id: str) -> None:
        """Raises `NotFoundError`."""
        statement = delete(schedules).where(*_is(tenant_id, schedule_id))
        with self._database.write("delete the schedule") as connection:
            if connection.execute(statement).rowcount == 0:
                raise NotFoundError(f"no schedule {schedule_id}", schedule_id=schedule_id)

    def find_due_schedules(self, at: datetime, limit: int = 100) -> list[Schedule]:
        """Schedules of all tenants that are due, longest due first."""
        check_page(0, limit)
        query = (
            select(schedules)
            .where(schedules.c.due_at <= at)
            .order_by(schedules.c.due_at, schedules.c.schedule_id)
            .limit(limit)
        )
        with self._database.read("find schedules that are due") as connection:
            return [_schedule(row) for row in connection.execute(query)]

    def _schedule_refused(self, schedule: Schedule) -> MatihError:
        """Why an insert was: the stream has one, or its endpoint is gone."""
        known = select(endpoints.c.endpoint_id).where(
            endpoints.c.tenant_id == schedule.tenant_id,
            endpoints.c.endpoint_id == schedule.endpoint_id,
        )
        other = select(schedules.c.schedule_id).where(
            schedules.c.tenant_id == schedule.tenant_id,
            schedules.c.endpoint_id == schedule.endpoint_id,
            schedules.c.unit_id == schedule.unit_id,
            schedules.c.sink_id == schedule.sink_id,
        )
        with self._database.read("look for the other schedule") as connection:
            if connection.scalar(known) is None:
                return NotFoundError(
                    f"no endpoint {schedule.endpoint_id}", endpoint_id=schedule.endpoint_id
                )
            existing = connection.scalar(other)
        if existing is None or existing == schedule.schedule_id:
            return _changed(schedule)
        return ConflictError(
            f"unit {schedule.unit_id!r} has the schedule {existing} for this sink; change that one",
            schedule_id=existing,
        )


def _is(tenant_id: TenantId, schedule_id: str) -> tuple[Any, Any]:
    return (schedules.c.tenant_id == tenant_id, schedules.c.schedule_id == schedule_id)


def _changed(schedule: Schedule) -> StateConflictError:
    return StateConflictError(
        f"schedule {schedule.schedule_id} was changed by somebody else, or it is gone; read it "
        "again",
        schedule_id=schedule.schedule_id,
        version=schedule.version,
    )


def _schedule(row: Row[Any]) -> Schedule:
    columns = {name: getattr(row, name) for name in _COLUMNS}
    return stored_value(Schedule, row.document, **columns)
