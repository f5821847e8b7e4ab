"""Schedules: units that are loaded again and again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request, Response

from matih_ray.api.requests import PageOf, PrincipalOf, RuntimeOf, TenantPath, page_body
from matih_ray.api.wire import PageBody
from matih_ray.control import schedules as use
from matih_ray.control.schedules import ScheduleChange, ScheduleDraft
from matih_ray.model.ids import EndpointId
from matih_ray.model.schedule import Schedule

router = APIRouter(prefix="/tenants/{tenantId}/schedules", tags=["schedules"])

SchedulePath = Annotated[str, Path(alias="scheduleId", min_length=1, max_length=64)]

_DRAFT = {
    "nightly": {
        "summary": "Every night at two, what is new",
        "value": {
            "endpointId": "0b1f…",
            "unitId": "public.orders",
            "policy": {"runMode": "incremental", "cursorColumn": "updated_at"},
            "timing": {"cron": "0 2 * * *", "timeZone": "Europe/Berlin"},
        },
    },
    "often": {
        "summary": "Every five minutes",
        "value": {"endpointId": "0b1f…", "unitId": "public.orders", "timing": {"everyS": 300}},
    },
}
_CHANGE = {
    "timing": {"summary": "Other times", "value": {"timing": {"everyS": 3600}}},
    "disable": {"summary": "Disabled", "value": {"enabled": False}},
}


@router.post("", status_code=201, summary="Create a schedule")
def create_schedule(
    tenant_id: TenantPath,
    draft: Annotated[ScheduleDraft, Body(openapi_examples=_DRAFT)],
    response: Response,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> Schedule:
    """One for each endpoint, unit and sink. `dueAt` says when it starts its first run."""
    created = use.create_schedule(principal, runtime.ports, tenant_id, draft)
    response.headers["Location"] = f"schedules/{created.schedule_id}"
    return created


@router.get("", summary="List schedules")
def list_schedules(
    tenant_id: TenantPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    endpoint_id: Annotated[EndpointId | None, Query(alias="endpointId")] = None,
) -> PageBody[Schedule]:
    """Ordered by endpoint and unit."""
    found = use.list_schedules(
        principal,
        runtime.ports,
        tenant_id,
        endpoint_id=endpoint_id,
        offset=page.offset,
        limit=page.limit,
    )
    return page_body(request, found, lambda schedule: schedule)


@router.get("/{scheduleId}", summary="Show a schedule")
def get_schedule(
    tenant_id: TenantPath, schedule_id: SchedulePath, principal: PrincipalOf, runtime: RuntimeOf
) -> Schedule:
    """When it is next due, and how its last time went."""
    return use.get_schedule(principal, runtime.ports, tenant_id, schedule_id)


@router.patch("/{scheduleId}", summary="Change a schedule")
def change_schedule(
    tenant_id: TenantPath,
    schedule_id: SchedulePath,
    change: Annotated[ScheduleChange, Body(openapi_examples=_CHANGE)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> Schedule:
    """What is not given stays."""
    return use.change_schedule(principal, runtime.ports, tenant_id, schedule_id, change)


@router.delete("/{scheduleId}", status_code=204, summary="Delete a schedule")
def delete_schedule(
    tenant_id: TenantPath, schedule_id: SchedulePath, principal: PrincipalOf, runtime: RuntimeOf
) -> None:
    """Starts no further runs; one that is active goes on."""
    use.delete_schedule(principal, runtime.ports, tenant_id, schedule_id)
