"""Maintenance of a tenant's tables: which of them, within which budget, and beside which runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import DEFAULT_SINK, build_sink
from matih_ray.control.ports import Ports
from matih_ray.errors import MatihError, NotFoundError, ValidationError
from matih_ray.model.ids import SinkId, TenantId
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceReport
from matih_ray.model.run import RunState
from matih_ray.settings import Settings
from matih_ray.sinks.base import SupportsMaintenance, SupportsWork, Workforce

# Active runs that are looked through at a time for the one that began first.
PAGE_RUNS = 500


def maintain_tables(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    sink_id: SinkId = DEFAULT_SINK,
    policy: MaintenancePolicy | None = None,
    *,
    tables: Sequence[str] = (),
    dry_run: bool = False,
    workforce: Workforce | None = None,
) -> Iterator[MaintenanceReport]:
    """Care for some or all tables of a sink, one after the other; each is told when it is done.

    The policy's budget is for all of them together. Each pass begins with another table, so that a
    budget that is too small leaves none out for good. A table that cannot be maintained is
    reported with its error and holds up no other.

    Raises:
        NotFoundError: No such sink, or no such table.
        ValidationError: The sink has nothing to maintain.
        SinkUnavailableError: The catalog cannot be reached.
    """
    authorize(principal, Action.MAINTAIN, tenant_id)
    policy = policy or standing_policy(ports.settings)
    sink = build_sink(ports, tenant_id, sink_id)
    try:
        if not isinstance(sink, SupportsMaintenance):
            raise ValidationError(f"sink {sink_id!r} needs no maintenance", field="sinkId")
        if workforce is not None and isinstance(sink, SupportsWork):
            sink.hire(workforce)
        now = ports.clock()
        chosen = _chosen(sink.tables(), tables, now)
        left = policy.budget_bytes
        for table in chosen:
            within = policy.model_copy(update={"budget_bytes": left})
            report = _maintain(ports, sink, tenant_id, table, within, dry_run=dry_run)
            if left is not None:
                left = max(0, left - report.compaction.bytes_read)
            yield report
    finally:
        sink.close()


def standing_policy(settings: Settings) -> MaintenancePolicy:
    """What the settings say about all tables.

    Raises:
        ValidationError: `MATIH_MAINTENANCE_POLICY` is not a policy.
    """
    policy = MaintenancePolicy.from_json(settings.maintenance_policy)
    if policy.budget_bytes is not None:
        return policy
    return policy.model_copy(update={"budget_bytes": settings.maintenance_budget_bytes})


def _maintain(
    ports: Ports,
    sink: SupportsMaintenance,
    tenant_id: TenantId,
    table: str,
    policy: MaintenancePolicy,
    *,
    dry_run: bool,
) -> MaintenanceReport:
    try:
        return sink.maintain(
            table,
            policy,
            ports.clock(),
            protect_since=_oldest_active(ports, tenant_id),
            dry_run=dry_run,
        )
    except MatihError as error:
        return MaintenanceReport(table=table, dry_run=dry_run, error=error.message)


def _chosen(present: Sequence[str], wanted: Sequence[str], now: datetime) -> list[str]:
    if missing := sorted(set(wanted) - set(present)):
        raise NotFoundError(f"no table {missing[0]!r} in this sink", table=missing[0])
    if wanted or not present:
        return list(wanted)
    first = int(now.timestamp() // 60) % len(present)
    return [*present[first:], *present[:first]]


def _oldest_active(ports: Ports, tenant_id: TenantId) -> datetime | None:
    """Since when a run may have written files that it has not committed."""
    oldest: datetime | None = None
    offset = 0
    while True:
        page = ports.metadata.list_runs(
            tenant_id,
            states=(RunState.QUEUED, RunState.RUNNING),
            offset=offset,
            limit=PAGE_RUNS,
        )
        begun = [run.created_at for run in page]
        oldest = min([*begun, *([oldest] if oldest is not None else [])], default=None)
        if len(page) < PAGE_RUNS:
            return oldest
        offset += PAGE_RUNS
