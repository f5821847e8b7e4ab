"""What is known about connectors, and what people are told about them, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from pydantic import ConfigDict
from sqlalchemy import Row, Select, and_, delete, insert, or_, select, update

from matih_ray.errors import NotFoundError, StateConflictError
from matih_ray.model.connector import ConnectorState, ConnectorTest, Discovery, Notification
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.value import Value
from matih_ray.state.base import MAX_NOTIFICATIONS, Delivery, EndpointRecord
from matih_ray.state.names import check_page
from matih_ray.state.sql_endpoints import endpoint_of
from matih_ray.state.sql_part import SqlPart, remembered, stored_value
from matih_ray.state.tables import connector_states, endpoints, notifications

_COLUMNS = {"tenant_id", "endpoint_id", "due_at", "version"}


class SqlConnectorStates(SqlPart):
    """States of connectors; see `MetadataStore` for each method."""

    def get_connector_state(
        self, tenant_id: TenantId, endpoint_id: EndpointId
    ) -> ConnectorState | None:
        """None if nothing is known about it."""
        return self.list_connector_states(tenant_id, [endpoint_id]).get(endpoint_id)

    def list_connector_states(
        self,
        tenant_id: TenantId,
        endpoint_ids: Sequence[EndpointId],
        *,
        with_history: bool = True,
    ) -> dict[EndpointId, ConnectorState]:
        """The states of these endpoints, in one statement."""
        check_page(0, max(1, len(endpoint_ids)))
        query = select(connector_states).where(
            connector_states.c.tenant_id == tenant_id,
            connector_states.c.endpoint_id.in_(endpoint_ids),
        )
        with self._database.read("read the states of connectors") as connection:
            rows = connection.execute(query).all()
        return {row.endpoint_id: _state(row, with_history=with_history) for row in rows}

    def put_connector_state(self, state: ConnectorState) -> ConnectorState:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version."""
        after = state.version + 1
        key = {"tenant_id": state.tenant_id, "endpoint_id": state.endpoint_id}
        values = {
            "due_at": state.due_at,
            "document": state.model_dump_json(by_alias=True, exclude=_COLUMNS),
            "version": after,
        }
        with self._database.write(
            "store the state of the connector", violated=lambda: self._refused(state)
        ) as connection:
            if state.version == 0:
                connection.execute(insert(connector_states).values(**key, **values))
            else:
                changed = connection.execute(
                    update(connector_states)
                    .where(
                        connector_states.c.tenant_id == state.tenant_id,
                        connector_states.c.endpoint_id == state.endpoint_id,
                        connector_states.c.version == state.version,
                    )
                    .values(**values)
                )
                if changed.rowcount == 0:
                    raise _changed(state)
        return state.model_copy(update={"version": after})

    def find_due_connectors(
        self, types: Collection[str], at: datetime, limit: int = 100
    ) -> list[EndpointRecord]:
        """Endpoints whose health check is due, longest due first."""
        check_page(0, limit)
        known = and_(
            connector_states.c.tenant_id == endpoints.c.tenant_id,
            connector_states.c.endpoint_id == endpoints.c.endpoint_id,
        )
        query = (
            select(endpoints)
            .outerjoin(connector_states, known)
            .where(
                endpoints.c.type.in_(types),
                or_(connector_states.c.due_at.is_(None), connector_states.c.due_at <= at),
            )
            .order_by(connector_states.c.due_at.nulls_first(), endpoints.c.endpoint_id)
            .limit(limit)
        )
        with self._database.read("find connectors to check") as connection:
            return [endpoint_of(row) for row in connection.execute(query)]

    def _refused(self, state: ConnectorState) -> NotFoundError | StateConflictError:
        if self.get_connector_state(state.tenant_id, state.endpoint_id) is not None:
            return _changed(state)
        return NotFoundError(f"no endpoint {state.endpoint_id}", endpoint_id=state.endpoint_id)


class SqlNotifications(SqlPart):
    """Notifications of each tenant; see `MetadataStore` for each method."""

    def put_notification(
        self, notification: Notification, deliver_at: datetime | None = None
    ) -> None:
        """Store it and drop the oldest beyond the limit."""
        tenant_id = notification.tenant_id
        statement = self._database.insert(notifications).values(
            tenant_id=tenant_id,
            notification_id=notification.notification_id,
            created_at=notification.created_at,
            document=notification.to_json(),
            deliver_at=deliver_at,
        )
        kept = (
            _newest_first(tenant_id)
            .with_only_columns(notifications.c.notification_id)
            .limit(MAX_NOTIFICATIONS)
        )
        with self._database.write("store the notification") as connection:
            connection.execute(statement.on_conflict_do_nothing())
            connection.execute(
                delete(notifications).where(
                    notifications.c.tenant_id == tenant_id,
                    notifications.c.notification_id.not_in(kept),
                )
            )

    def find_due_deliveries(self, at: datetime, limit: int = 100) -> list[Delivery]:
        """Notifications of all tenants that are due to be sent, longest due first."""
        check_page(0, limit)
        query = (
            select(notifications)
            .where(notifications.c.deliver_at <= at)
            .order_by(notifications.c.deliver_at, notifications.c.notification_id)
            .limit(limit)
        )
        with self._database.read("find notifications to send") as connection:
            return [
                Delivery(stored_value(Notification, row.document), row.attempts or 0)
                for row in connection.execute(query)
            ]

    def note_delivery(self, delivery: Delivery, deliver_at: datetime | None) -> None:
        """Count one more attempt."""
        notification = delivery.notification
        statement = (
            update(notifications)
            .where(
                notifications.c.tenant_id == notification.tenant_id,
                notifications.c.notification_id == notification.notification_id,
            )
            .values(deliver_at=deliver_at, attempts=delivery.attempts + 1)
        )
        with self._database.write("note that a notification was sent") as connection:
            connection.execute(statement)

    def list_notifications(
        self, tenant_id: TenantId, *, offset: int = 0, limit: int = 100
    ) -> list[Notification]:
        """A page of notifications, newest first."""
        check_page(offset, limit)
        query = _newest_first(tenant_id).offset(offset).limit(limit)
        with self._database.read("list the notifications") as connection:
            return [stored_value(Notification, row.document) for row in connection.execute(query)]


class _WithoutHistory(Value):
    """What a listing reads of a state. The parser steps over a history without making values of it,
    which takes an eighth of the time."""

    model_config = ConfigDict(extra="ignore")

    last_test: ConnectorTest | None = None
    testing_until: datetime | None = None
    alerted: bool = False
    discovery: Discovery | None = None


def _state(row: Row[Any], *, with_history: bool) -> ConnectorState:
    columns = {name: getattr(row, name) for name in _COLUMNS}
    if with_history:
        return stored_value(ConnectorState, row.document, **columns)
    return _state_without_history(row.document, **columns)


@remembered
def _state_without_history(document: str, **columns: Any) -> ConnectorState:
    return ConnectorState(**columns, **dict(stored_value(_WithoutHistory, document)))


def _newest_first(tenant_id: TenantId) -> Select[Any]:
    return (
        select(notifications)
        .where(notifications.c.tenant_id == tenant_id)
        .order_by(notifications.c.created_at.desc(), notifications.c.notification_id)
    )


def _changed(state: ConnectorState) -> StateConflictError:
    return StateConflictError(
        f"the state of connector {state.endpoint_id} was changed by somebody else, or it is gone; "
        "read it again",
        endpoint_id=state.endpoint_id,
        version=state.version,
    )
