"""Streams: (tenant, endpoint, unit, sink), and what their past runs mean for the next one.

Two rules here keep rows from being loaded twice, both consequences of checkpoints being resume
points of a *stream* while plans belong to a *run*:

- a full run that appends may not start behind another one that stopped half-way, because the rows
  that one committed would come again;
- a run may only be resumed while no other run has committed to its stream since it began, because
  its plan was made from a cursor that has moved on.
"""

from __future__ import annotations

from collections.abc import Iterator

from matih_ray.control.building import DEFAULT_SINK
from matih_ray.control.connector_types import source_type
from matih_ray.control.ports import Ports
from matih_ray.errors import (
    CommitUnknownError,
    ConflictError,
    NotFoundError,
    StateVersionError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint, StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.policy import DataMode, IngestionPolicy, RunMode, WriteMode
from matih_ray.model.run import RunRecord, RunState
from matih_ray.sinks.base import SupportsFinalize
from matih_ray.state.base import MAX_PAGE_ROWS, EndpointRecord, UnitStateRecord

# Runs of one unit that are looked through for one that has moved the stream on. A run that was
# stopped and left for longer than this is not resumed but started anew.
RUNS_LOOKED_BACK = 200
# Streams of one endpoint: units times sinks, and some room.
MAX_STREAMS = 100_000

_STOPPED = (RunState.FAILED, RunState.PAUSED, RunState.CANCELLED)


def stream_of(
    ports: Ports, endpoint: EndpointRecord, unit_id: UnitId, sink_id: SinkId = DEFAULT_SINK
) -> StreamKey:
    """The identity under which a unit's loads into a sink are kept.

    Raises:
        ValidationError: The endpoint is not a source.
    """
    return StreamKey(
        tenant_id=endpoint.tenant_id,
        vendor=source_type(ports, endpoint).vendor,
        endpoint_id=endpoint.endpoint_id,
        unit_id=unit_id,
        sink_id=sink_id,
    )


def check_sink(ports: Ports, tenant_id: TenantId, sink_id: SinkId) -> None:
    """Do nothing if runs of the tenant can write there; nothing is connected.

    Raises:
        ValidationError: Neither a built-in sink nor one of the tenant's sink endpoints.
    """
    names = ports.registry.names("sinks")
    if sink_id in names:
        return
    try:
        endpoint = ports.metadata.get_endpoint(tenant_id, EndpointId(sink_id))
    except NotFoundError:
        endpoint = None
    if endpoint is None or endpoint.type not in names:
        raise ValidationError(
            f"no sink has the id {sink_id!r}; built-in sinks: {', '.join(names)}", field="sinkId"
        )


def check_finalize(
    ports: Ports, tenant_id: TenantId, sink_id: SinkId, policy: IngestionPolicy
) -> None:
    """Do nothing if the policy finalizes no runs, or the sink can do that.

    Raises:
        ValidationError: It cannot.
    """
    if policy.finalize is None:
        return
    type_ = sink_id
    if sink_id not in ports.registry.names("sinks"):
        type_ = SinkId(ports.metadata.get_endpoint(tenant_id, EndpointId(sink_id)).type)
    if not isinstance(ports.registry.resolve("sinks", type_), SupportsFinalize):
        raise ValidationError(
            f"sink {sink_id!r} shows rows as they are committed and cannot audit them before; "
            "leave finalize out, or choose an Iceberg sink",
            field="policy.finalize",
        )


def stored_checkpoint(ports: Ports, stream: StreamKey) -> Checkpoint | None:
    """The checkpoint of a stream, or None before its first commit.

    Raises:
        StateVersionError: It was written by software with another idea of it.
    """
    stored = ports.kv.get(stream.tenant_id, stream.kv_key())
    if stored is None:
        return None
    if not isinstance(stored.value, dict):
        raise StateVersionError(
            f"the checkpoint of {stream.unit_id!r} is not an object", unit_id=stream.unit_id
        )
    return Checkpoint.from_json(stored.value)


def runs_of(ports: Ports, stream: StreamKey) -> list[RunRecord]:
    """The newest runs of a stream, without plans."""
    runs = ports.metadata.list_runs(
        stream.tenant_id,
        endpoint_id=stream.endpoint_id,
        unit_id=stream.unit_id,
        limit=RUNS_LOOKED_BACK,
    )
    return [run for run in runs if run.stream == stream]


def unit_states(
    ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId
) -> Iterator[UnitStateRecord]:
    """The state of every stream of an endpoint that ever had a run."""
    for offset in range(0, MAX_STREAMS, MAX_PAGE_ROWS):
        page = ports.metadata.list_unit_states(
            tenant_id, endpoint_id=endpoint_id, offset=offset, limit=MAX_PAGE_ROWS
        )
        yield from page
        if len(page) < MAX_PAGE_ROWS:
            return


def check_may_start(ports: Ports, stream: StreamKey, policy: IngestionPolicy) -> None:
    """Do nothing unless a full append would load rows again that a stopped one has loaded.

    Raises:
        ConflictError: Context names the run to resume; resetting the checkpoint allows the run.
    """
    if not _appends_everything(policy):
        return
    checkpoint = stored_checkpoint(ports, stream)
    state = ports.metadata.get_unit_state(stream)
    by_checkpoint = checkpoint.run_id if checkpoint is not None else None
    by_state = state.last_run_id if state is not None else None
    for run_id in {by_checkpoint, by_state} - {None}:
        run = _run_or_none(ports, stream.tenant_id, run_id)
        if run is None or run.state not in _STOPPED or not _appends_everything(run.policy):
            continue
        committed = run.run_id == by_checkpoint and run.through > 0
        uncertain = run.error is not None and run.error.code == CommitUnknownError.code
        if committed or uncertain:
            raise ConflictError(
                f"run {run.run_id} is {run.state.value} after {run.through} committed slices, and "
                f"appending {stream.unit_id!r} from the start would load those rows again; "
                "resume that run, or reset the checkpoint if they shall come twice or are gone",
                run_id=run.run_id,
                unit_id=stream.unit_id,
                sink_id=stream.sink_id,
            )


def check_may_resume(run: RunRecord, others: list[RunRecord]) -> None:
    """Do nothing unless another run has committed to the stream since this one began. Pure.

    Raises:
        ConflictError: Context names the run that has.
    """
    if run.plan is None or run.started_at is None:
        return  # it will plan from the checkpoint as it finds it
    for other in others:
        if other.run_id == run.run_id or other.through == 0:
            continue
        active_until = other.finished_at or other.heartbeat_at or other.created_at
        if active_until > run.started_at:
            raise ConflictError(
                f"run {other.run_id} has loaded {run.stream.unit_id!r} since run {run.run_id} was "
                "planned, so resuming would load rows twice; start a new run",
                run_id=other.run_id,
                unit_id=run.stream.unit_id,
            )


def _appends_everything(policy: IngestionPolicy) -> bool:
    if policy.mode is DataMode.CDM:
        return False  # rows are known by their key, so that none comes twice
    appends = policy.effective_write_mode is WriteMode.APPEND
    return appends and policy.run_mode is RunMode.FULL


def _run_or_none(ports: Ports, tenant_id: TenantId, run_id: RunId | None) -> RunRecord | None:
    if run_id is None:
        return None
    try:
        return ports.metadata.get_run(tenant_id, run_id)
    except NotFoundError:
        return None
