"""Checkpoints of streams: showing one, and forgetting it so that the next run starts anew."""

from __future__ import annotations

from dataclasses import dataclass

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import DEFAULT_SINK, build_source
from matih_ray.control.change_logs import drop_logs, read_by_log
from matih_ray.control.ports import Ports
from matih_ray.control.streams import runs_of, stored_checkpoint, stream_of
from matih_ray.errors import RunOverlapError, StateConflictError
from matih_ray.model.checkpoint import Checkpoint, StreamKey
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.run import RunState
from matih_ray.state.base import UnitStateRecord


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands. Both parts are None before its first run."""

    stream: StreamKey
    checkpoint: Checkpoint | None
    unit_state: UnitStateRecord | None


def get_checkpoint(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    unit_id: UnitId,
    sink_id: SinkId = DEFAULT_SINK,
) -> StreamState:
    """The checkpoint and last known state of a stream.

    Raises:
        NotFoundError: No such endpoint.
    """
    authorize(principal, Action.READ, tenant_id)
    endpoint = ports.metadata.get_endpoint(tenant_id, endpoint_id)
    stream = stream_of(ports, endpoint, unit_id, sink_id)
    return StreamState(
        stream, stored_checkpoint(ports, stream), ports.metadata.get_unit_state(stream)
    )


def reset_checkpoint(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    unit_id: UnitId,
    sink_id: SinkId = DEFAULT_SINK,
) -> bool:
    """Forget a stream's checkpoint; tells whether there was one. Rows in the sink stay; what the
    source keeps for runs by its log goes, if it can be reached.

    Raises:
        NotFoundError: No such endpoint.
        RunOverlapError: A run of the stream is active; context names it.
    """
    authorize(principal, Action.RESET, tenant_id)
    endpoint = ports.metadata.get_endpoint(tenant_id, endpoint_id)
    stream = stream_of(ports, endpoint, unit_id, sink_id)
    runs = runs_of(ports, stream)
    for run in runs:
        if run.state.is_active:
            raise RunOverlapError(
                f"run {run.run_id} of {unit_id!r} is {run.state.value}; cancel it, or wait until "
                "it ends, before the checkpoint is reset",
                run_id=run.run_id,
                state=run.state.value,
            )
    # A run that ended badly keeps its target, by which the next run would ask the sink how far it
    # got and restore the very checkpoint that is being forgotten.
    for run in runs:
        if run.state is RunState.COMPLETED:
            break
        if run.target is None:
            continue
        try:
            ports.metadata.update_run(run.model_copy(update={"target": None}))
        except StateConflictError:
            raise RunOverlapError(
                f"run {run.run_id} of {unit_id!r} changed while the checkpoint was being reset; "
                "look at it and try again",
                run_id=run.run_id,
            ) from None
    had_one = ports.kv.delete(tenant_id, stream.kv_key())
    if read_by_log(runs):
        source = build_source(ports, tenant_id, endpoint_id)
        try:
            drop_logs(source, [stream])
        finally:
            source.close()
    return had_one
