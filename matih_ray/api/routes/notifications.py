"""Notifications: what a tenant's admins should know, and the webhook they are sent to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request

from matih_ray.api.requests import PageOf, PrincipalOf, RuntimeOf, TenantPath, page_body
from matih_ray.api.wire import PageBody
from matih_ray.control import connector_health as use
from matih_ray.control import webhooks
from matih_ray.control.webhooks import WebhookCreated, WebhookDraft
from matih_ray.model.connector import Notification
from matih_ray.model.webhook import Webhook, WebhookAttempt

router = APIRouter(prefix="/tenants/{tenantId}/notifications", tags=["notifications"])

_DRAFT = {
    "receiver": {
        "summary": "A receiver of signed requests",
        "value": {"url": "https://ops.example.com/hooks/matih"},
    }
}


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


@router.put("/webhook", summary="Send notifications to a URL")
async def set_webhook(
    tenant_id: TenantPath,
    draft: Annotated[WebhookDraft, Body(openapi_examples=_DRAFT)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> WebhookCreated:
    """In place of an earlier one. Requests are signed as the Standard Webhooks specification says;
    `secret` is the key for it, shown this once if the request gave none."""
    return await runtime.deadlines.run(
        "setting the webhook",
        runtime.limits.connector_s,
        lambda: webhooks.set_webhook(principal, runtime.ports, tenant_id, draft),
    )


@router.get("/webhook", summary="Show the webhook")
def get_webhook(tenant_id: TenantPath, principal: PrincipalOf, runtime: RuntimeOf) -> Webhook:
    """Without its URL, which may hold a token; and how the last delivery went."""
    return webhooks.get_webhook(principal, runtime.ports, tenant_id)


@router.delete("/webhook", status_code=204, summary="Remove the webhook")
def delete_webhook(tenant_id: TenantPath, principal: PrincipalOf, runtime: RuntimeOf) -> None:
    """What was not delivered yet is not sent any more."""
    webhooks.delete_webhook(principal, runtime.ports, tenant_id)


@router.post("/webhook/test", summary="Try the webhook")
async def try_webhook(
    tenant_id: TenantPath, principal: PrincipalOf, runtime: RuntimeOf
) -> WebhookAttempt:
    """Sends a request of type `webhook.test` now. A receiver that fails is an answer, not an error:
    200 with `success: false`."""
    return await runtime.deadlines.run(
        "trying the webhook",
        runtime.limits.connector_s,
        lambda: webhooks.try_webhook(principal, runtime.ports, tenant_id),
    )
