"""Table maintenance of a whole cluster, at an interval, in one process that yields to all others.

An actor for each pass, like that of the health checks and for the same reasons. It does the work
itself and not on the cluster: nobody waits for a compaction, and people wait for loads. A job
(`jobs.housekeeping`) uses the whole cluster.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import ray
import structlog
from ray.util import metrics

from matih_ray import telemetry
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.maintenance import maintain_tables, standing_policy
from matih_ray.control.ports import Ports
from matih_ray.errors import MatihError, ValidationError
from matih_ray.execution.worker import process_ports
from matih_ray.model.ids import SinkId, TenantId
from matih_ray.model.maintenance import MaintenanceReport
from matih_ray.settings import Settings

# A pass that has not ended by then hangs; what it has committed stays.
PASS_DEADLINE_S = 12 * 3600.0
NICENESS = 19
SUBJECT = "housekeeping"

log = structlog.get_logger(__name__)


def keep_house(settings: Settings, ports: Ports) -> int:
    """One pass over all tables of all tenants; returns how many tables were looked at.

    Raises:
        MatihError: The stores cannot be reached, or the settings' policy is none.
    """
    standing_policy(settings)  # said here, not once for each tenant
    used = ports.metadata.find_used_sinks()
    if not used:
        return 0
    keeper = _HousekeeperActor.remote(settings)
    try:
        found: int = ray.get(keeper.keep.remote(used), timeout=PASS_DEADLINE_S)
        return found
    finally:
        ray.kill(keeper)


class Housekeeper:
    """Maintains tables in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        os.nice(NICENESS)
        self._ports = process_ports(settings)

    def keep(self, sinks: list[tuple[TenantId, SinkId]]) -> int:
        """Maintain all tables of some sinks; a sink that fails holds up no other."""
        count = 0
        for tenant_id, sink_id in sinks:
            principal = Principal(SUBJECT, tenant_id, frozenset({Role.DATA_ENGINEER}))
            try:
                for report in maintain_tables(principal, self._ports, tenant_id, sink_id):
                    note_report(tenant_id, report)
                    count += 1
            except ValidationError:
                continue  # a sink without tables to care for
            except MatihError as error:
                log.warning(
                    "maintenance_failed", tenant=tenant_id, sink=sink_id, detail=error.message
                )
        return count


_HousekeeperActor = ray.remote(num_cpus=0, max_restarts=0)(Housekeeper)


class MaintenanceMetrics:
    """Counters of this process; the tag is the tenant."""

    def __init__(self) -> None:
        self._counters = {
            name: metrics.Counter(name, description, tag_keys=("tenant",))
            for name, description in telemetry.MAINTENANCE_METRICS.items()
        }

    def count(self, tenant_id: TenantId, report: MaintenanceReport) -> None:
        """Count what a pass did to one table."""
        done = report.compaction
        amounts = {
            telemetry.METRIC_COMPACTED_FILES: done.files_before,
            telemetry.METRIC_COMPACTED_BYTES: done.bytes_written,
            telemetry.METRIC_EXPIRED_SNAPSHOTS: report.snapshots_expired,
            telemetry.METRIC_ORPHAN_FILES: report.orphan_files,
            telemetry.METRIC_MAINTENANCE_FAILURES: int(report.error is not None),
        }
        for name, amount in amounts.items():
            if amount > 0:
                self._counters[name].inc(amount, {"tenant": tenant_id})


@lru_cache(maxsize=1)
def process_maintenance_metrics() -> MaintenanceMetrics:
    """The metrics of this process; Ray allows each name once."""
    return MaintenanceMetrics()


def note_report(tenant_id: TenantId, report: MaintenanceReport) -> None:
    """Count a report and log it."""
    if not report.dry_run:
        process_maintenance_metrics().count(tenant_id, report)
    told: dict[str, Any] = report.to_dict()
    event = "table_maintained" if report.error is None else "table_not_maintained"
    log.info(event, tenant=tenant_id, **told)
