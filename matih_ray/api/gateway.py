"""Callers that a gateway has authenticated: their names come in headers instead of a token.

Used only when a setting says so: without a gateway that sets these headers itself and lets nobody
past it, anybody could be anybody.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from matih_ray.api.middleware import Authentication
from matih_ray.control.authorization import Principal, Role
from matih_ray.model.ids import TenantId
from matih_ray.telemetry import bind

_ROLES = {role.value: role for role in Role}


class GatewayAuthentication(Authentication):
    """A bearer token as everywhere; without one, the gateway's headers (seed 000)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Authentication`."""
        principal = _principal_of(Headers(scope=scope)) if scope["type"] == "http" else None
        if principal is None:
            await super().__call__(scope, receive, send)
            return
        scope["state"]["principal"] = principal
        with bind(tenant=principal.tenant_id, subject=principal.subject):
            await self._app(scope, receive, send)


def _principal_of(headers: Headers) -> Principal | None:
    """Who the gateway says is asking; None if it does not, or if there is a token."""
    tenant, subject = headers.get("x-tenant-id"), headers.get("x-user-id")
    if headers.get("authorization") or not tenant or not subject:
        return None
    names = [name.strip() for name in headers.get("x-user-roles", "").split(",")]
    return Principal(
        subject, TenantId(tenant), frozenset(_ROLES[name] for name in names if name in _ROLES)
    )
