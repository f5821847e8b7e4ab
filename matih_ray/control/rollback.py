"""Taking a run back: its rows leave the table, and the checkpoint is what it was before.

The sink comes first, because it knows whether this can be done at all; if the caller dies behind
that, the same call goes on where it stopped.
"""

from __future__ import annotations

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import build_sink
from matih_ray.control.ports import Ports
from matih_ray.control.streams import runs_of
from matih_ray.errors import ConflictError, RunOverlapError, StateConflictError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import RunId, TenantId
from matih_ray.model.run import CHECKPOINT_BEFORE, ROLLED_BACK_AT, RunRecord
from matih_ray.sinks.base import PreparedTarget, SupportsRollback


def rollback_run(
    principal: Principal, ports: Ports, tenant_id: TenantId, run_id: RunId
) -> RunRecord:
    """Take back what the newest run of a stream has committed. Idempotent.

    Raises:
        NotFoundError: No such run.
        RunOverlapError: A run of the stream is active; context names it.
        ConflictError: It is not the newest, it committed nothing, others have committed since, or
            what was before has expired.
        ValidationError: The sink cannot do this.
    """
    authorize(principal, Action.RESET, tenant_id)
    run = ports.metadata.get_run(tenant_id, run_id)
    for other in runs_of(ports, run.stream):
        if other.state.is_active:
            raise RunOverlapError(
                f"run {other.run_id} is {other.state.value}; cancel it, or wait until it ends, "
                f"before run {run_id} is taken back",
                run_id=other.run_id,
                state=other.state.value,
            )
    if run.target is None:
        raise ConflictError(f"run {run_id} has written nothing", run_id=run_id)
    if CHECKPOINT_BEFORE not in run.statistics:
        raise ConflictError(
            f"run {run_id} was planned by an older runtime, which did not keep the checkpoint "
            "that it began from",
            run_id=run_id,
        )
    sink = build_sink(ports, tenant_id, run.stream.sink_id)
    try:
        if not isinstance(sink, SupportsRollback):
            raise ValidationError(
                f"sink {run.stream.sink_id!r} cannot take a run back", field="sinkId"
            )
        sink.rollback(PreparedTarget.from_json(run.target), run_id)
    finally:
        sink.close()
    _put_back(ports, run)
    told = {**run.statistics, ROLLED_BACK_AT: ports.clock().isoformat()}
    return ports.metadata.update_run(run.model_copy(update={"statistics": told}))


def _put_back(ports: Ports, run: RunRecord) -> None:
    """The checkpoint as the run found it, unless a newer run has written it."""
    stream, before = run.stream, run.statistics[CHECKPOINT_BEFORE]
    stored = ports.kv.get(stream.tenant_id, stream.kv_key())
    if stored is None or not isinstance(stored.value, dict):
        return
    if Checkpoint.from_json(stored.value).run_id != run.run_id:
        return
    try:
        if before is None:
            ports.kv.delete(stream.tenant_id, stream.kv_key())
        else:
            ports.kv.compare_and_set(stream.tenant_id, stream.kv_key(), before, stored.version)
    except StateConflictError:
        raise RunOverlapError(
            f"the checkpoint of {stream.unit_id!r} changed while run {run.run_id} was being taken "
            "back; look at it and try again",
            run_id=run.run_id,
        ) from None
