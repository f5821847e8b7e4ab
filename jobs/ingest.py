"""Runs one unit to its end as a Ray job.

    ray job submit -- python -m jobs.ingest --tenant acme --endpoint 6f1c… --unit public.orders \\
        --policy '{"runMode": "incremental", "cursorColumn": "id"}'

The job is a client of the cluster's planners, like the control API: it queues a run and waits. If
the job is lost, the run goes on; a job with the same `--idempotency-key` waits for the same run.
The last line on standard output is the run as JSON. Exit code 0 means COMPLETED, 1 any other end.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import ray
import typer

from matih_ray.control.authorization import Principal, Role
from matih_ray.control.loads import LoadRequest
from matih_ray.control.runs import start_run
from matih_ray.errors import MatihError
from matih_ray.execution.cluster import ensure_actors
from matih_ray.execution.launcher import NAMESPACE
from matih_ray.execution.worker import process_ports
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.run import RunRecord, RunState
from matih_ray.settings import Settings

# Between two looks at the ledger; a run of a large table takes minutes.
POLL_S = 0.5


def ingest(settings: Settings, tenant_id: TenantId, request: LoadRequest, key: str) -> RunRecord:
    """Queue a run and wait until nobody works on it any more. Needs a connected Ray."""
    ensure_actors(settings)
    ports = process_ports(settings)
    operator = Principal("jobs.ingest", tenant_id, frozenset({Role.DATA_ENGINEER}))
    run = start_run(operator, ports, tenant_id, request, idempotency_key=key or None)
    while run.state.is_active:
        time.sleep(POLL_S)
        run = ports.metadata.get_run(tenant_id, run.run_id)
    return run


def main(
    tenant: Annotated[str, typer.Option(help="Tenant that owns the endpoint.")],
    endpoint: Annotated[str, typer.Option(help="Endpoint id.")],
    unit: Annotated[str, typer.Option(help="Unit id, as the catalog has it.")],
    sink: Annotated[str, typer.Option(help="Sink id; as the unit is configured.")] = "",
    policy: Annotated[str, typer.Option(help="Policy as JSON; as the unit is configured.")] = "",
    idempotency_key: Annotated[str, typer.Option(help="The same key is the same run.")] = "",
) -> None:
    """Run one unit to its end."""
    try:
        request = LoadRequest(
            endpoint_id=EndpointId(endpoint),
            unit_id=UnitId(unit),
            sink_id=SinkId(sink) if sink else None,
            policy=IngestionPolicy.from_json(policy) if policy else None,
        )
        ray.init(address="auto", namespace=NAMESPACE, ignore_reinit_error=True)
        run = ingest(Settings(), TenantId(tenant), request, idempotency_key)
    except MatihError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)  # noqa: T201 a program's own output
        raise typer.Exit(2) from None
    print(run.model_copy(update={"plan": None}).to_json())  # noqa: T201 a program's own output
    raise typer.Exit(0 if run.state is RunState.COMPLETED else 1)


if __name__ == "__main__":
    typer.run(main)
