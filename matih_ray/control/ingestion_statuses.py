"""Where the streams of a tenant stand."""

from __future__ import annotations

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.checkpoints import get_checkpoint
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.errors import NotFoundError
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.state.base import UnitStateRecord


def list_statuses(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    *,
    endpoint_id: EndpointId | None = None,
    offset: int,
    limit: int,
) -> Page[UnitStateRecord]:
    """A page of the states of streams that were ever loaded."""
    authorize(principal, Action.READ, tenant_id)
    return page_of(
        lambda start, count: ports.metadata.list_unit_states(
            tenant_id, endpoint_id=endpoint_id, offset=start, limit=count
        ),
        offset,
        limit,
    )


def last_run(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    unit_id: UnitId,
    sink_id: SinkId,
) -> RunId:
    """The last run of a stream.

    Raises:
        NotFoundError: No such endpoint, or the stream never had a run.
    """
    state = get_checkpoint(principal, ports, tenant_id, endpoint_id, unit_id, sink_id).unit_state
    if state is None:
        raise NotFoundError(f"unit {unit_id!r} was never loaded into {sink_id}", unit_id=unit_id)
    return state.last_run_id
