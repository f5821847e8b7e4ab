"""Maintains a tenant's tables as a Ray job, with the whole cluster.

    ray job submit -- python -m jobs.housekeeping --tenant acme --policy '{"sortBy": ["id"]}'

Each table's report is a line of JSON on standard output. Exit code 0 means that all tables were
maintained, 1 that some were not. See docs/maintenance.md.
"""

from __future__ import annotations

import sys
from typing import Annotated

import ray
import typer

from matih_ray.control.authorization import Principal, Role
from matih_ray.control.maintenance import maintain_tables, standing_policy
from matih_ray.errors import MatihError
from matih_ray.execution.housekeeping import note_report
from matih_ray.execution.launcher import NAMESPACE
from matih_ray.execution.worker import process_ports
from matih_ray.execution.workforce import RayWorkforce
from matih_ray.model.ids import SinkId, TenantId
from matih_ray.model.maintenance import MaintenancePolicy
from matih_ray.settings import Settings


def housekeeping(
    settings: Settings,
    tenant_id: TenantId,
    sink_id: SinkId,
    policy: MaintenancePolicy,
    tables: list[str],
    *,
    dry_run: bool,
) -> bool:
    """Maintain tables, printing each one's report; whether all went well. Needs a connected Ray."""
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    workforce = RayWorkforce(ray.put(settings), tenant_id, sink_id, cpus)
    operator = Principal("jobs.housekeeping", tenant_id, frozenset({Role.DATA_ENGINEER}))
    ports = process_ports(settings)
    fine = True
    for report in maintain_tables(
        operator,
        ports,
        tenant_id,
        sink_id,
        policy,
        tables=tables,
        dry_run=dry_run,
        workforce=workforce,
    ):
        note_report(tenant_id, report)
        print(report.to_json(), flush=True)  # noqa: T201 a program's own output
        fine = fine and report.error is None
    return fine


def main(
    tenant: Annotated[str, typer.Option(help="Tenant whose tables are maintained.")],
    sink: Annotated[str, typer.Option(help="Sink id.")] = "iceberg",
    table: Annotated[list[str] | None, typer.Option(help="Only this table; repeatable.")] = None,
    policy: Annotated[str, typer.Option(help="Policy as JSON [default: the settings'].")] = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
) -> None:
    """Maintain a tenant's tables."""
    try:
        settings = Settings()
        chosen = MaintenancePolicy.from_json(policy) if policy else standing_policy(settings)
        ray.init(address="auto", namespace=NAMESPACE, ignore_reinit_error=True)
        fine = housekeeping(
            settings, TenantId(tenant), SinkId(sink), chosen, table or [], dry_run=dry_run
        )
    except MatihError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)  # noqa: T201 a program's own output
        raise typer.Exit(2) from None
    raise typer.Exit(0 if fine else 1)


if __name__ == "__main__":
    typer.run(main)
