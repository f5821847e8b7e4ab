"""Discovery: the catalog is collected behind the caller's back, and what changed is told.

The state of a discovery is stored before it starts and when it ends. One that was lost with its
process is recognised by its age, and the next one takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

from matih_ray.control.catalog import catalogued, collect_units
from matih_ray.control.ports import Ports
from matih_ray.errors import MatihError, StateConflictError
from matih_ray.model.connector import CatalogChanges, ConnectorState, Discovery, DiscoveryState
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.run import RunError
from matih_ray.model.unit import EndpointUnitDescriptor

# Ten thousand tables take about a minute; what has not ended after this was lost.
LOST_AFTER = timedelta(minutes=15)
# Ids of one kind of change that are named; all are counted.
MAX_CHANGES_SHOWN = 100
# Writers of one connector's state: a test, a discovery and a health check at once.
WRITE_ATTEMPTS = 8


def changed_state(
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    change: Callable[[ConnectorState], ConnectorState | None],
) -> ConnectorState:
    """Replace what is known about a connector; `change` may be called again, None leaves it.

    Raises:
        NotFoundError: The connector is gone.
        StateConflictError: Others kept changing it.
    """
    for attempt in range(WRITE_ATTEMPTS):
        before = ports.metadata.get_connector_state(tenant_id, endpoint_id) or ConnectorState(
            tenant_id=tenant_id, endpoint_id=endpoint_id
        )
        after = change(before)
        if after is None:
            return before
        try:
            return ports.metadata.put_connector_state(after)
        except StateConflictError:
            if attempt == WRITE_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def begin_discovery(ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> bool:
    """Note a discovery as running; False when one is running already."""
    now = ports.clock()
    began = False

    def begin(state: ConnectorState) -> ConnectorState | None:
        nonlocal began
        began = not is_running(state.discovery, ports)
        if not began:
            return None
        before = state.discovery
        discovery = Discovery(
            state=DiscoveryState.RUNNING,
            started_at=now,
            discovered_at=before.discovered_at if before else None,
            schemas=before.schemas if before else None,
            tables=before.tables if before else None,
        )
        return state.model_copy(update={"discovery": discovery})

    changed_state(ports, tenant_id, endpoint_id, begin)
    return began


def is_running(discovery: Discovery | None, ports: Ports) -> bool:
    """Whether a discovery is under way, as far as can be told."""
    if discovery is None or discovery.state is not DiscoveryState.RUNNING:
        return False
    return ports.clock() - discovery.started_at < LOST_AFTER


def cancel_discovery(ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
    """Let a running discovery end without touching the catalog; harmless if none is running.

    Raises:
        NotFoundError: The connector is gone.
    """

    def cancel(state: ConnectorState) -> ConnectorState | None:
        if state.discovery is None or not is_running(state.discovery, ports):
            return None
        cancelled = {"state": DiscoveryState.CANCELLED}
        return state.model_copy(update={"discovery": state.discovery.model_copy(update=cancelled)})

    changed_state(ports, tenant_id, endpoint_id, cancel)


def run_discovery(ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
    """Carry out a discovery that was begun; how it ended is stored, not raised."""
    begun = _current(ports, tenant_id, endpoint_id)
    before = {unit.unit_id: unit for unit in catalogued(ports, tenant_id, endpoint_id)}

    def is_wanted() -> bool:
        now = _current(ports, tenant_id, endpoint_id)
        return now is not None and begun is not None and _is_same(now, begun)

    try:
        collected = collect_units(ports, tenant_id, endpoint_id, is_wanted=is_wanted)
    except MatihError as error:
        failed = {"state": DiscoveryState.FAILED, "error": RunError.of(error)}
        _end(ports, tenant_id, endpoint_id, begun, failed)
        return
    if collected is None:  # cancelled
        return
    after = {unit.unit_id: unit for unit in catalogued(ports, tenant_id, endpoint_id)}
    _end(
        ports,
        tenant_id,
        endpoint_id,
        begun,
        {
            "state": DiscoveryState.COMPLETED,
            "error": None,
            "discovered_at": ports.clock(),
            "schemas": len({unit.namespace for unit in after.values()}),
            "tables": len(after),
            "skipped": collected.skipped_total,
            "changes": changes_between(before, after),
        },
    )


def changes_between(
    before: dict[UnitId, EndpointUnitDescriptor], after: dict[UnitId, EndpointUnitDescriptor]
) -> CatalogChanges:
    """What a discovery found that was not there before, or was there and is not."""
    both = before.keys() & after.keys()
    added = sorted(after.keys() - before.keys())
    removed = sorted(before.keys() - after.keys())
    changed = sorted(unit for unit in both if _shape(before[unit]) != _shape(after[unit]))
    return CatalogChanges(
        added=_shown(added),
        removed=_shown(removed),
        changed=_shown(changed),
        added_total=len(added),
        removed_total=len(removed),
        changed_total=len(changed),
    )


def _current(ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> Discovery | None:
    state = ports.metadata.get_connector_state(tenant_id, endpoint_id)
    return None if state is None else state.discovery


def _is_same(now: Discovery, begun: Discovery) -> bool:
    """Whether the discovery that was begun is still the one that runs: neither cancelled, nor
    given up for lost and begun again."""
    return now.state is DiscoveryState.RUNNING and now.started_at == begun.started_at


def _end(
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    begun: Discovery | None,
    changes: dict[str, object],
) -> None:
    def end(state: ConnectorState) -> ConnectorState | None:
        running = state.discovery
        if running is None or begun is None or not _is_same(running, begun):
            return None
        return state.model_copy(update={"discovery": running.model_copy(update=changes)})

    changed_state(ports, tenant_id, endpoint_id, end)


def _shape(unit: EndpointUnitDescriptor) -> tuple[object, ...]:
    """What a unit is apart from its statistics."""
    return (unit.columns, unit.primary_key, unit.kind)


def _shown(ids: Iterable[UnitId]) -> tuple[UnitId, ...]:
    return tuple(ids)[:MAX_CHANGES_SHOWN]
