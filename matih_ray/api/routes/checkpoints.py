"""Checkpoints of streams."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from matih_ray.api.requests import PrincipalOf, RuntimeOf, TenantPath
from matih_ray.api.wire import CheckpointBody
from matih_ray.control import checkpoints as use
from matih_ray.control.building import DEFAULT_SINK
from matih_ray.model.ids import EndpointId, SinkId, UnitId

router = APIRouter(prefix="/tenants/{tenantId}/checkpoints", tags=["checkpoints"])


@router.get("", summary="Show a checkpoint")
def get_checkpoint(
    tenant_id: TenantPath,
    endpoint_id: Annotated[EndpointId, Query(alias="endpointId")],
    unit_id: Annotated[UnitId, Query(alias="unitId")],
    principal: PrincipalOf,
    runtime: RuntimeOf,
    sink_id: Annotated[SinkId, Query(alias="sinkId")] = DEFAULT_SINK,
) -> CheckpointBody:
    """Where the next incremental run of this unit into this sink starts."""
    state = use.get_checkpoint(principal, runtime.ports, tenant_id, endpoint_id, unit_id, sink_id)
    return CheckpointBody.of(
        state.checkpoint,
        state.unit_state,
        endpoint_id=endpoint_id,
        unit_id=unit_id,
        sink_id=sink_id,
    )


@router.delete("", status_code=204, summary="Reset a checkpoint")
def reset_checkpoint(
    tenant_id: TenantPath,
    endpoint_id: Annotated[EndpointId, Query(alias="endpointId")],
    unit_id: Annotated[UnitId, Query(alias="unitId")],
    principal: PrincipalOf,
    runtime: RuntimeOf,
    sink_id: Annotated[SinkId, Query(alias="sinkId")] = DEFAULT_SINK,
) -> None:
    """Forgets it, so that the next run starts from the beginning. Loaded rows stay. Refused
    while a run of the stream is active."""
    use.reset_checkpoint(principal, runtime.ports, tenant_id, endpoint_id, unit_id, sink_id)
