"""Health of connectors: what a test changes in what is known, and whom it is told to.

The status follows every test. People are told less often: a connector that fails once and works
again is noise, so an alert needs `ALERT_AFTER` tests in a row that say the same.
"""

from __future__ import annotations

import random
from datetime import timedelta

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.discovery import changed_state
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.control.webhook_delivery import known
from matih_ray.model.connector import (
    ConnectorState,
    ConnectorTest,
    HealthPoint,
    Notification,
    NotificationKind,
)
from matih_ray.model.ids import TenantId
from matih_ray.state.base import EndpointRecord

# Tests that are kept: half a day of checks every 15 minutes.
MAX_HISTORY = 50
ALERT_AFTER = 2
# Share of the interval by which the next check is moved.
JITTER = 0.1


def note_test(ports: Ports, record: EndpointRecord, outcome: ConnectorTest) -> None:
    """Store a test's outcome, and notify the tenant's admins if it changes the picture.

    Raises:
        NotFoundError: The connector is gone.
    """
    due_at = ports.clock() + _interval(ports)
    alerted: list[bool] = []

    def note(state: ConnectorState) -> ConnectorState:
        alerted[:] = [state.alerted]
        after = after_test(state, outcome)
        alerted.append(after.alerted)
        return after.model_copy(update={"due_at": due_at})

    changed_state(ports, record.tenant_id, record.endpoint_id, note)
    before, after = alerted
    if before is not after:
        hooked = known(ports, record.tenant_id) is not None
        ports.metadata.put_notification(
            _notification(ports, record, outcome), deliver_at=ports.clock() if hooked else None
        )


def postpone(ports: Ports, record: EndpointRecord) -> None:
    """Look at a connector again after the usual time; for those that are disabled."""
    due_at = ports.clock() + _interval(ports)
    changed_state(
        ports,
        record.tenant_id,
        record.endpoint_id,
        lambda state: state.model_copy(update={"due_at": due_at}),
    )


def after_test(state: ConnectorState, outcome: ConnectorTest) -> ConnectorState:
    """What is known after a test. `alerted` changes when enough tests in a row agree."""
    point = HealthPoint(
        tested_at=outcome.tested_at,
        success=outcome.success,
        latency_ms=outcome.latency_ms,
        error_code=outcome.error_code,
    )
    history = (point, *state.history)[:MAX_HISTORY]
    agreed = {seen.success for seen in history[:ALERT_AFTER]} == {outcome.success}
    sure = agreed and len(history) >= ALERT_AFTER
    return state.model_copy(
        update={
            "last_test": outcome,
            "testing_until": None,
            "history": history,
            "alerted": not outcome.success if sure else state.alerted,
        }
    )


def list_notifications(
    principal: Principal, ports: Ports, tenant_id: TenantId, *, offset: int, limit: int
) -> Page[Notification]:
    """A page of the tenant's notifications, newest first."""
    authorize(principal, Action.READ, tenant_id)
    return page_of(
        lambda start, count: ports.metadata.list_notifications(
            tenant_id, offset=start, limit=count
        ),
        offset,
        limit,
    )


def _notification(ports: Ports, record: EndpointRecord, outcome: ConnectorTest) -> Notification:
    kind, message = NotificationKind.CONNECTOR_RECOVERED, f"{record.name} works again"
    if not outcome.success:
        kind = NotificationKind.CONNECTOR_ERROR
        message = f"{record.name} is in error: {outcome.message}. {outcome.remediation or ''}"
    return Notification(
        notification_id=ports.new_id(),
        tenant_id=record.tenant_id,
        connector_id=record.endpoint_id,
        kind=kind,
        message=message.strip(),
        test=outcome,
        created_at=ports.clock(),
    )


def _interval(ports: Ports) -> timedelta:
    share = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 balance, not a secret
    return timedelta(seconds=ports.settings.connector_check_s * share)
