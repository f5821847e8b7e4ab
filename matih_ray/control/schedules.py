"""Schedules: units that are loaded again and again, and the one function that starts due runs."""

from __future__ import annotations

from datetime import datetime, timedelta

from matih_ray.control.authorization import Action, Principal, Role, authorize
from matih_ray.control.building import DEFAULT_SINK
from matih_ray.control.loads import LoadRequest, checked_load
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.control.runs import start_run
from matih_ray.errors import MatihError, RunOverlapError, StateConflictError, StateError
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.schedule import Firing, FiringOutcome, Overlap, Schedule, Timing
from matih_ray.model.value import Value
from matih_ray.planning.times import check_timing, due_after

# Schedules of one pass; the next one follows at once while there are as many.
PASS_SCHEDULES = 100
# How soon a schedule that waits for an active run looks again.
LOOK_AGAIN = timedelta(seconds=10)


class ScheduleDraft(Value):
    """A new schedule: what is loaded, and when."""

    endpoint_id: EndpointId
    unit_id: UnitId
    sink_id: SinkId = DEFAULT_SINK
    policy: IngestionPolicy = IngestionPolicy()
    timing: Timing
    enabled: bool = True


class ScheduleChange(Value):
    """What can be changed about a schedule; what is not given stays. `version`, when given, must
    be the stored one."""

    timing: Timing | None = None
    policy: IngestionPolicy | None = None
    enabled: bool | None = None
    version: int | None = None


def create_schedule(
    principal: Principal, ports: Ports, tenant_id: TenantId, draft: ScheduleDraft
) -> Schedule:
    """Load a unit at these times from now on.

    Raises:
        NotFoundError: No such endpoint, or the unit is not in its catalog.
        ValidationError: Timing, sink or policy do not fit.
        ConflictError: The unit has a schedule for this sink, or its connector is disabled.
    """
    authorize(principal, Action.RUN, tenant_id)
    check_timing(draft.timing)
    load = checked_load(ports, tenant_id, _request(draft))
    now = ports.clock()
    schedule = Schedule(
        schedule_id=ports.new_id(),
        tenant_id=tenant_id,
        endpoint_id=draft.endpoint_id,
        unit_id=draft.unit_id,
        sink_id=draft.sink_id,
        timing=draft.timing,
        policy=load.policy,
        enabled=draft.enabled,
        created_by=principal.subject,
        created_at=now,
        updated_at=now,
    )
    return ports.metadata.put_schedule(_due(schedule, now))


def change_schedule(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    schedule_id: str,
    change: ScheduleChange,
) -> Schedule:
    """Change a schedule; it is next due as if it had just been made.

    Raises:
        NotFoundError: No such schedule.
        ValidationError: Timing or policy do not fit.
        StateConflictError: Somebody else changed it.
    """
    authorize(principal, Action.RUN, tenant_id)
    before = ports.metadata.get_schedule(tenant_id, schedule_id)
    if change.version not in (None, before.version):
        raise StateConflictError(
            f"schedule {schedule_id} has version {before.version}, not {change.version}; read it "
            "again",
            schedule_id=schedule_id,
            version=before.version,
        )
    given = {
        "timing": change.timing,
        "policy": change.policy,
        "enabled": change.enabled,
        "updated_at": ports.clock(),
    }
    after = before.model_copy(update={k: v for k, v in given.items() if v is not None})
    check_timing(after.timing)
    checked_load(ports, tenant_id, _request(after))
    return ports.metadata.put_schedule(_due(after, ports.clock()))


def get_schedule(
    principal: Principal, ports: Ports, tenant_id: TenantId, schedule_id: str
) -> Schedule:
    """One schedule. Raises `NotFoundError`."""
    authorize(principal, Action.READ, tenant_id)
    return ports.metadata.get_schedule(tenant_id, schedule_id)


def list_schedules(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    *,
    endpoint_id: EndpointId | None = None,
    offset: int,
    limit: int,
) -> Page[Schedule]:
    """A page of the tenant's schedules, ordered by what they load."""
    authorize(principal, Action.READ, tenant_id)
    return page_of(
        lambda start, count: ports.metadata.list_schedules(
            tenant_id, endpoint_id=endpoint_id, offset=start, limit=count
        ),
        offset,
        limit,
    )


def delete_schedule(
    principal: Principal, ports: Ports, tenant_id: TenantId, schedule_id: str
) -> None:
    """Start no further runs; one that is active goes on. Raises `NotFoundError`."""
    authorize(principal, Action.RUN, tenant_id)
    ports.metadata.delete_schedule(tenant_id, schedule_id)


def start_due_runs(ports: Ports) -> int:
    """Start the runs of all schedules that are due; returns how many schedules there were.

    A run's id is made from the schedule and its due time, so that one time starts one run, even if
    this process dies before it has noted that it did.

    Raises:
        StateError: The stores cannot be reached.
    """
    due = ports.metadata.find_due_schedules(ports.clock(), PASS_SCHEDULES)
    for schedule in due:
        _fire(ports, schedule)
    return len(due)


def _fire(ports: Ports, schedule: Schedule) -> None:
    now = ports.clock()
    due_at = schedule.due_at or now
    firing = _started(ports, schedule, due_at, now)
    if firing.outcome is FiringOutcome.SKIPPED and schedule.timing.overlap is Overlap.WAIT:
        after = schedule.model_copy(update={"due_at": now + LOOK_AGAIN})
    else:
        after = _due(schedule.model_copy(update={"last": firing}), now)
    try:
        ports.metadata.put_schedule(after)
    except StateConflictError:  # changed or deleted meanwhile, which decides when it is next due
        return


def _started(ports: Ports, schedule: Schedule, due_at: datetime, now: datetime) -> Firing:
    principal = Principal(
        f"schedule:{schedule.created_by}", schedule.tenant_id, frozenset({Role.DATA_ENGINEER})
    )
    key = f"{schedule.schedule_id}:{int(due_at.timestamp())}"
    try:
        run = start_run(
            principal, ports, schedule.tenant_id, _request(schedule), idempotency_key=key
        )
    except StateError:
        raise
    except RunOverlapError as error:
        outcome, message = FiringOutcome.SKIPPED, error.message
    except MatihError as error:
        outcome, message = FiringOutcome.FAILED, f"{error.message} [{error.code}]"
    else:
        return Firing(due_at=due_at, fired_at=now, outcome=FiringOutcome.STARTED, run_id=run.run_id)
    return Firing(due_at=due_at, fired_at=now, outcome=outcome, message=message)


def _due(schedule: Schedule, after: datetime) -> Schedule:
    due_at = None
    if schedule.enabled:
        due_at = due_after(schedule.timing, schedule.schedule_id, schedule.created_at, after)
    return schedule.model_copy(update={"due_at": due_at})


def _request(schedule: Schedule | ScheduleDraft) -> LoadRequest:
    return LoadRequest(
        endpoint_id=schedule.endpoint_id,
        unit_id=schedule.unit_id,
        sink_id=schedule.sink_id,
        policy=schedule.policy,
    )
