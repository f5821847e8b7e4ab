"""Runs: starting them, watching them and telling them what to do.

A run is created QUEUED in the ledger and then launched; if launching fails, the supervisor finds
the run and launches it later, so that the ledger alone decides what is to be done.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.loads import LoadRequest, checked_load
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.control.streams import check_may_resume, check_may_start, runs_of
from matih_ray.errors import (
    ConflictError,
    NotFoundError,
    StateConflictError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId
from matih_ray.model.run import RunRecord, RunRequest, RunState, SliceRecord, check_transition

# Changes by others between reading a run and writing it: planners write at most a few times a
# second and each attempt takes milliseconds.
UPDATE_ATTEMPTS = 10
# Runs of one unit among which a running one is looked for without reading its plan again.
RECENT_RUNS = 3

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_RUN_NAMESPACE = uuid.UUID("b2f8b5a4-6c0e-4c93-8c57-2f6a0b6d1a5e")


def start_run(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    request: LoadRequest,
    *,
    idempotency_key: str | None = None,
) -> RunRecord:
    """Queue a run and launch it.

    The same caller, key and request return the run that was started first: its id is made from
    the key, so that the ledger itself remembers, for as long as it keeps the run.

    Raises:
        NotFoundError: No such endpoint, or the unit is not in its catalog.
        ValidationError: The request does not fit, or the key was used for another request.
        RunOverlapError: The stream has an active run.
        ConflictError: An earlier full append stopped half-way.
    """
    authorize(principal, Action.RUN, tenant_id)
    run_id = _run_id(ports, principal, idempotency_key)
    if idempotency_key is not None:
        earlier = _earlier(ports, tenant_id, run_id, request)
        if earlier is not None:
            return earlier
    load = checked_load(ports, tenant_id, request)
    check_may_start(ports, load.stream, load.policy)
    record = RunRecord(
        run_id=run_id,
        stream=load.stream,
        state=RunState.QUEUED,
        policy=load.policy,
        staging_provider_id=load.staging_provider_id,
        created_at=ports.clock(),
    )
    try:
        created = ports.metadata.create_run(record)
    except StateConflictError:  # the same request came twice at the same moment
        created = _earlier(ports, tenant_id, run_id, request) or record
    ports.launcher.launch(tenant_id, run_id)
    return created


def get_run(principal: Principal, ports: Ports, tenant_id: TenantId, run_id: RunId) -> RunRecord:
    """One run with its plan. Raises `NotFoundError`."""
    authorize(principal, Action.READ, tenant_id)
    return ports.metadata.get_run(tenant_id, run_id)


def run_version(principal: Principal, ports: Ports, tenant_id: TenantId, run: RunRecord) -> int:
    """The run's present version. Cheap: plans can be megabytes and are not read.

    Raises:
        NotFoundError: The run is gone.
    """
    authorize(principal, Action.READ, tenant_id)
    recent = ports.metadata.list_runs(
        tenant_id,
        endpoint_id=run.stream.endpoint_id,
        unit_id=run.stream.unit_id,
        limit=RECENT_RUNS,
    )
    for found in recent:
        if found.run_id == run.run_id:
            return found.version
    return ports.metadata.get_run(tenant_id, run.run_id).version


def list_runs(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    *,
    endpoint_id: EndpointId | None,
    unit_id: UnitId | None,
    states: Sequence[RunState],
    offset: int,
    limit: int,
) -> Page[RunRecord]:
    """A page of runs without their plans, newest first."""
    authorize(principal, Action.READ, tenant_id)
    return page_of(
        lambda start, count: ports.metadata.list_runs(
            tenant_id,
            endpoint_id=endpoint_id,
            unit_id=unit_id,
            states=states,
            offset=start,
            limit=count,
        ),
        offset,
        limit,
    )


def list_slices(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    run_id: RunId,
    *,
    offset: int,
    limit: int,
) -> Page[SliceRecord]:
    """A page of a run's slices in commit order, as far as they were worked on.

    Raises:
        NotFoundError: No such run.
    """
    authorize(principal, Action.READ, tenant_id)
    page = page_of(
        lambda start, count: ports.metadata.list_slices(
            tenant_id, run_id, offset=start, limit=count
        ),
        offset,
        limit,
    )
    if not page.items:
        ports.metadata.get_run(tenant_id, run_id)  # tells no slices from no run
    return page


def pause_run(principal: Principal, ports: Ports, tenant_id: TenantId, run_id: RunId) -> RunRecord:
    """Ask a run to stop behind its last committed slice; a queued run is paused at once.

    Raises:
        NotFoundError: No such run.
        ConflictError: The run has ended.
    """
    authorize(principal, Action.RUN, tenant_id)
    return _stop(ports, tenant_id, run_id, RunRequest.PAUSE, RunState.PAUSED)


def cancel_run(principal: Principal, ports: Ports, tenant_id: TenantId, run_id: RunId) -> RunRecord:
    """Ask a run to end; what it has committed stays. A queued or paused run ends at once.

    Raises:
        NotFoundError: No such run.
        ConflictError: The run has completed or failed.
    """
    authorize(principal, Action.RUN, tenant_id)
    return _stop(ports, tenant_id, run_id, RunRequest.CANCEL, RunState.CANCELLED)


def resume_run(principal: Principal, ports: Ports, tenant_id: TenantId, run_id: RunId) -> RunRecord:
    """Queue a paused or failed run again; it goes on behind its last committed slice.

    Raises:
        NotFoundError: No such run, or its endpoint or unit is gone.
        ConflictError: The run has completed or was cancelled, or its stream has moved on.
        RunOverlapError: The stream has another active run.
    """
    authorize(principal, Action.RUN, tenant_id)
    for _ in range(UPDATE_ATTEMPTS):
        run = ports.metadata.get_run(tenant_id, run_id)
        if run.state.is_active and run.requested is None:
            return run
        if run.state.is_active and run.requested is not None:
            raise ConflictError(
                f"run {run_id} is {run.state.value} and about to "
                f"{run.requested.value.lower()}; wait until it has stopped",
                run_id=run_id,
                state=run.state.value,
            )
        check_transition(run_id, run.state, RunState.QUEUED)
        ports.metadata.get_unit(tenant_id, run.stream.endpoint_id, run.stream.unit_id)
        check_may_resume(run, runs_of(ports, run.stream))
        queued = {"state": RunState.QUEUED, "requested": None, "error": None, "finished_at": None}
        try:
            resumed = ports.metadata.update_run(run.model_copy(update=queued))
        except StateConflictError:
            continue
        ports.launcher.launch(tenant_id, run_id)
        return resumed
    raise _too_busy(run_id)


def _stop(
    ports: Ports, tenant_id: TenantId, run_id: RunId, request: RunRequest, stopped: RunState
) -> RunRecord:
    """Stop a run: by asking its owner if it may have one, by changing its state if not."""
    for _ in range(UPDATE_ATTEMPTS):
        run = ports.metadata.get_run(tenant_id, run_id)
        if run.state is stopped:
            return run
        try:
            if run.state is RunState.RUNNING:
                return ports.metadata.request(tenant_id, run_id, request)
            check_transition(run_id, run.state, stopped)
            ended = ports.clock() if stopped.is_terminal else None
            changes = {"state": stopped, "requested": None, "finished_at": ended}
            return ports.metadata.update_run(run.model_copy(update=changes))
        except StateConflictError:
            continue
        except ConflictError:
            if not run.state.is_active:
                raise  # otherwise it ended between reading and asking: look again
    raise _too_busy(run_id)


def _run_id(ports: Ports, principal: Principal, idempotency_key: str | None) -> RunId:
    if idempotency_key is None:
        return RunId(ports.new_id())
    if not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise ValidationError(
            "an idempotency key has 1 to 200 visible ASCII characters", field="Idempotency-Key"
        )
    name = f"{principal.tenant_id}\0{principal.subject}\0{idempotency_key}"
    return RunId(uuid.uuid5(_RUN_NAMESPACE, name).hex)


def _earlier(
    ports: Ports, tenant_id: TenantId, run_id: RunId, request: LoadRequest
) -> RunRecord | None:
    """The run that this key has started already, or None."""
    try:
        run = ports.metadata.get_run(tenant_id, run_id)
    except NotFoundError:
        return None
    stream, staging = run.stream, request.staging_provider_id
    # what was left to the configuration then is left to it now, whatever it says by now
    same = (
        (stream.endpoint_id, stream.unit_id) == (request.endpoint_id, request.unit_id)
        and request.sink_id in (None, stream.sink_id)
        and request.policy in (None, run.policy)
        and staging in (None, run.staging_provider_id)
    )
    if not same:
        raise ValidationError(
            f"this idempotency key has started run {run_id} with another request; "
            "use a new key for a new request",
            field="Idempotency-Key",
            run_id=run_id,
        )
    return run


def _too_busy(run_id: RunId) -> StateConflictError:
    return StateConflictError(
        f"run {run_id} changed {UPDATE_ATTEMPTS} times while it was being changed; try again",
        run_id=run_id,
    )
