"""Units of an endpoint's catalog, and plan previews."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request

from matih_ray.api.requests import (
    EndpointPath,
    PageOf,
    PrincipalOf,
    RuntimeOf,
    TenantPath,
    UnitPath,
    page_body,
)
from matih_ray.api.wire import PageBody
from matih_ray.control import catalog as use
from matih_ray.control import unit_configurations as configurations
from matih_ray.control.loads import LoadRequest, plan_unit
from matih_ray.control.previews import DEFAULT_ROWS, MAX_ROWS, preview_unit
from matih_ray.control.unit_configurations import UnitChange
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.preview import Preview
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.unit_configuration import UnitConfiguration

router = APIRouter(prefix="/tenants/{tenantId}", tags=["units"])

LOAD_EXAMPLES = {
    "full": {
        "summary": "Everything, replacing what the table holds",
        "value": {"endpointId": "5f1c…", "unitId": "public.orders"},
    },
    "incremental": {
        "summary": "What is new since the last run",
        "value": {
            "endpointId": "5f1c…",
            "unitId": "public.orders",
            "policy": {"runMode": "incremental", "cursorColumn": "updated_at"},
        },
    },
}

_CHANGE = {
    "policy": {
        "summary": "What runs do unless they say otherwise",
        "value": {"policy": {"runMode": "incremental", "cursorColumn": "updated_at"}},
    },
    "disable": {"summary": "Not to be loaded", "value": {"enabled": False}},
}


@router.get("/endpoints/{endpointId}/units", summary="List units")
def list_units(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    pattern: Annotated[
        str | None, Query(description="Glob on unit ids, such as `public.*`")
    ] = None,
    *,
    include_disabled: Annotated[
        bool, Query(alias="includeDisabled", description="Those that are not to be loaded, too")
    ] = False,
) -> PageBody[EndpointUnitDescriptor]:
    """From the catalog, ordered by id. Empty until the catalog was collected."""
    found = use.list_units(
        principal,
        runtime.ports,
        tenant_id,
        endpoint_id,
        pattern=pattern,
        include_disabled=include_disabled,
        offset=page.offset,
        limit=page.limit,
    )
    return page_body(request, found, lambda unit: unit)


@router.get(
    "/endpoints/{endpointId}/unit-configurations/{unitId:unit_id}",
    summary="Show a unit's configuration",
)
def get_unit_configuration(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    unit_id: UnitPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> UnitConfiguration:
    """Version 0 if nobody has configured it: it is enabled and loaded with defaults."""
    return configurations.get_unit_configuration(
        principal, runtime.ports, tenant_id, endpoint_id, unit_id
    )


@router.patch(
    "/endpoints/{endpointId}/unit-configurations/{unitId:unit_id}", summary="Configure a unit"
)
def configure_unit(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    unit_id: UnitPath,
    change: Annotated[UnitChange, Body(openapi_examples=_CHANGE)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> UnitConfiguration:
    """Whether it may be loaded, and sink and policy of runs that do not name their own.

    What is not given stays. A policy replaces the one before as a whole.
    """
    return configurations.configure_unit(
        principal, runtime.ports, tenant_id, endpoint_id, unit_id, change
    )


@router.get("/endpoints/{endpointId}/units/{unitId:unit_id}", summary="Show a unit")
def get_unit(
    tenant_id: TenantPath,
    endpoint_id: EndpointPath,
    unit_id: UnitPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> EndpointUnitDescriptor:
    """With its columns and how each of them arrives. Percent-encode the id, slashes too."""
    return use.get_unit(principal, runtime.ports, tenant_id, endpoint_id, unit_id)


@router.post("/previews", summary="Preview rows")
async def preview(
    tenant_id: TenantPath,
    load: Annotated[LoadRequest, Body(openapi_examples=LOAD_EXAMPLES)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = DEFAULT_ROWS,
) -> Preview:
    """Some rows that a run would read, through the same readers. Starts and stores nothing."""
    return await runtime.deadlines.run(
        "the preview",
        runtime.limits.plan_s,
        lambda: preview_unit(principal, runtime.ports, tenant_id, load, limit=limit),
    )


@router.post("/plans", summary="Preview a plan")
async def plan(
    tenant_id: TenantPath,
    load: Annotated[LoadRequest, Body(openapi_examples=LOAD_EXAMPLES)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> IngestionPlan:
    """The slices that a run started now would read. Probes the source and starts nothing."""
    return await runtime.deadlines.run(
        "planning",
        runtime.limits.plan_s,
        lambda: plan_unit(principal, runtime.ports, tenant_id, load),
    )
