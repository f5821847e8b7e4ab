"""Notifications: what a tenant's admins should know."""

from __future__ import annotations

from fastapi import APIRouter, Request

from matih_ray.api.requests import PageOf, PrincipalOf, RuntimeOf, TenantPath, page_body
from matih_ray.api.wire import PageBody
from matih_ray.control import connector_health as use
from matih_ray.model.connector import Notification

router = APIRouter(prefix="/tenants/{tenantId}/notifications", tags=["notifications"])


@router.get("", summary="List notifications")
def list_notifications(
    tenant_id: TenantPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> PageBody[Notification]:
    """Newest first: connectors that came to be in error, and those that work again."""
    found = use.list_notifications(
        principal, runtime.ports, tenant_id, offset=page.offset, limit=page.limit
    )
    return page_body(request, found, lambda notification: notification)
