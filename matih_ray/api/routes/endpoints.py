"""Endpoints: create, show, change, delete, test, collect."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response

from matih_ray.api.requests import (
    EndpointPath,
    PageOf,
    PrincipalOf,
    RuntimeOf,
    TenantPath,
    page_body,
)
from matih_ray.api.wire import (
    CollectedBody,
    ConnectionTestBody,
    EndpointBody,
    PageBody,
    ProvisionedBody,
    ProvisionRequest,
    SkippedUnitBody,
)
from matih_ray.control import endpoints as use
from matih_ray.control.catalog import collect_catalog
from matih_ray.control.cdm_sinks import provision_cdm_sink
from matih_ray.control.endpoints import EndpointChange, EndpointDraft
from matih_ray.errors import SourceError
from matih_ray.model.ids import SinkId

router = APIRouter(prefix="/tenants/{tenantId}/endpoints", tags=["endpoints"])

_DRAFT = {
    "postgres": {
        "summary": "A PostgreSQL database",
        "value": {
            "name": "shop",
            "type": "POSTGRESQL",
            "config": {
                "host": "db.example.com",
                "port": 5432,
                "database": "shop",
                "user": "reader",
                "sslMode": "verify-full",
            },
            "secrets": {"password": "…"},
        },
    }
}
_CHANGE = {
    "new-host": {
        "summary": "Another host, the stored password stays",
        "value": {
            "config": {"host": "db2.example.com", "database": "shop", "user": "reader"},
            "version": 1,
        },
    }
}


@router.post("", status_code=201, summary="Create an endpoint")
def create_endpoint(
    tenant_id: TenantPath,
    draft: Annotated[EndpointDraft, Body(openapi_examples=_DRAFT)],
    response: Response,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> EndpointBody:
    """Stores the configuration, and the secrets apart from it. Nothing is connected yet."""
    record = use.create_endpoint(principal, runtime.ports, tenant_id, draft)
    response.headers["Location"] = f"endpoints/{record.endpoint_id}"
    return EndpointBody.of(record)


@router.get("", summary="List endpoints")
def list_endpoints(
    tenant_id: TenantPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    name: Annotated[str | None, Query(description="Only the endpoint of this name")] = None,
) -> PageBody[EndpointBody]:
    """Ordered by name."""
    found = use.list_endpoints(
        principal, runtime.ports, tenant_id, name=name, offset=page.offset, limit=page.limit
    )
    return page_body(request, found, EndpointBody.of)


@router.get("/{endpointId}", summary="Show an endpoint")
def get_endpoint(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> EndpointBody:
    """Without its secrets."""
    return EndpointBody.of(use.get_endpoint(principal, runtime.ports, tenant_id, endpoint_id))


@router.put("/{endpointId}", summary="Change an endpoint")
def update_endpoint(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    change: Annotated[EndpointChange, Body(openapi_examples=_CHANGE)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> EndpointBody:
    """Replaces the configuration as a whole. Name and type stay: tables are named after them."""
    return EndpointBody.of(
        use.update_endpoint(principal, runtime.ports, tenant_id, endpoint_id, change)
    )


@router.delete("/{endpointId}", status_code=204, summary="Delete an endpoint")
def delete_endpoint(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> None:
    """With its catalog, checkpoints and secrets. Its runs stay in the ledger, tables stay too."""
    use.delete_endpoint(principal, runtime.ports, tenant_id, endpoint_id)


@router.post("/{endpointId}/test", summary="Test the connection")
async def test_endpoint(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> ConnectionTestBody:
    """Connects and authenticates. A connection that fails is an answer, not an error: 200 with
    `success: false` and a stable `errorCode`."""
    ports = runtime.ports
    try:
        outcome = await runtime.deadlines.run(
            "the connection test",
            runtime.limits.test_s,
            lambda: use.check_endpoint(principal, ports, tenant_id, endpoint_id),
        )
    except SourceError as error:
        return ConnectionTestBody(
            endpoint_id=endpoint_id,
            success=False,
            message=error.message,
            error_code=error.code,
            tested_at=ports.clock(),
        )
    return ConnectionTestBody(
        endpoint_id=endpoint_id,
        success=True,
        latency_ms=outcome.latency_ms,
        server_version=outcome.server_version,
        message="Connection successful",
        tested_at=ports.clock(),
    )


@router.post("/{endpointId}/collect", summary="Collect the catalog")
async def collect(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    pattern: Annotated[
        str | None, Query(description="Glob on unit ids; others stay as they are")
    ] = None,
) -> CollectedBody:
    """Reads the units that the source shows into the catalog; only those can be loaded."""
    found = await runtime.deadlines.run(
        "collecting the catalog",
        runtime.limits.collect_s,
        lambda: collect_catalog(principal, runtime.ports, tenant_id, endpoint_id, pattern=pattern),
    )
    return CollectedBody(
        endpoint_id=endpoint_id,
        units=found.units,
        skipped_total=found.skipped_total,
        skipped=tuple(SkippedUnitBody(unit_id=s.unit_id, error=s.error) for s in found.skipped),
    )


@router.post("/{endpointId}/provision", summary="Provision a sink for a model")
async def provision(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    wanted: Annotated[
        ProvisionRequest,
        Body(
            openapi_examples={
                "items": {"summary": "Work items", "value": {"cdmModelId": "cdm.work.item"}}
            }
        ),
    ],
) -> ProvisionedBody:
    """Creates or extends the model's table in a sink of the type `cdm.jdbc` and puts it into the
    catalog. Repeating it changes nothing."""
    found = await runtime.deadlines.run(
        "provisioning the sink",
        runtime.limits.test_s,
        lambda: provision_cdm_sink(
            principal, runtime.ports, tenant_id, SinkId(endpoint_id), wanted.cdm_model_id
        ),
    )
    return ProvisionedBody(
        endpoint_id=endpoint_id,
        cdm_model_id=found.cdm_model_id,
        table_schema=found.table.namespace,
        table=found.table.name,
        labels=() if found.dataset is None else found.dataset.labels,
    )
