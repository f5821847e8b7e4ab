"""Connectors: the nine endpoints of seed 001."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response

from matih_ray.api.connector_wire import ConnectorBody, SchemasBody, schemas_of
from matih_ray.api.requests import (
    ConnectorPath,
    PageOf,
    PrincipalOf,
    Runtime,
    RuntimeOf,
    TenantPath,
    page_body,
)
from matih_ray.api.wire import PageBody
from matih_ray.control import catalog
from matih_ray.control import connectors as use
from matih_ray.control.authorization import Principal
from matih_ray.control.connector_usage import usage_of_connector
from matih_ray.control.connectors import (
    Connector,
    ConnectorChange,
    ConnectorDraft,
    CredentialsChange,
)
from matih_ray.control.discovery import is_running
from matih_ray.model.connector import ConnectorTest, ConnectorUsage
from matih_ray.model.ids import EndpointId, TenantId

router = APIRouter(prefix="/tenants/{tenantId}/connectors", tags=["connectors"])

# One index range is added up; ten years of it are more than anybody keeps.
MAX_USAGE_DAYS = 3660

_DRAFT = {
    "postgres": {
        "summary": "A PostgreSQL database",
        "value": {
            "name": "shop",
            "type": "POSTGRESQL",
            "host": "db.example.com",
            "port": 5432,
            "database": "shop",
            "credentials": {"username": "reader", "password": "…"},
            "sslEnabled": True,
            "sslMode": "verify-full",
            "metadata": {"owner": "sales"},
        },
    }
}
_CHANGE = {
    "host": {
        "summary": "Another host, the stored credentials stay",
        "value": {"host": "db2.example.com", "port": 5432, "database": "shop", "version": 1},
    },
    "disable": {
        "summary": "Disabled",
        "value": {"host": "db.example.com", "database": "shop", "status": "INACTIVE"},
    },
}
_CREDENTIALS = {
    "password": {
        "summary": "A new password",
        "value": {"credentials": {"username": "reader", "password": "…"}},
    }
}


@router.post("", status_code=201, summary="Create a connector")
async def create_connector(
    tenant_id: TenantPath,
    draft: Annotated[ConnectorDraft, Body(openapi_examples=_DRAFT)],
    response: Response,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    idempotency_key: Annotated[
        str | None, Header(description="Repeating the request with it makes no second connector")
    ] = None,
) -> ConnectorBody:
    """Tests the connection first: a connector that cannot connect is answered with 422
    `CONNECTOR_TEST_FAILED`, the cause in `context.errorCode`, and nothing is saved. Then discovery
    is started and waited for, for a few seconds; `tablesDiscovered` is null when it takes longer.
    """
    created = await runtime.deadlines.run(
        "creating the connector",
        runtime.limits.connector_s,
        lambda: use.create_connector(
            principal, runtime.ports, runtime.calls, tenant_id, draft, idempotency_key
        ),
    )
    response.headers["Location"] = f"connectors/{created.record.endpoint_id}"
    return _body(await _discovered(runtime, principal, created))


@router.get("", summary="List connectors")
def list_connectors(
    tenant_id: TenantPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> PageBody[ConnectorBody]:
    """Ordered by name. Nothing is connected: status and test are the last known. The history of its
    tests is shown with one connector, not here."""
    found = use.list_connectors(
        principal, runtime.ports, tenant_id, offset=page.offset, limit=page.limit
    )
    return page_body(request, found, _body)


@router.get("/{connectorId}", summary="Show a connector")
def get_connector(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> ConnectorBody:
    """Without its credentials."""
    return _body(use.get_connector(principal, runtime.ports, tenant_id, connector_id))


@router.put("/{connectorId}", summary="Change a connector")
async def update_connector(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    change: Annotated[ConnectorChange, Body(openapi_examples=_CHANGE)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> ConnectorBody:
    """Replaces all settings, if the changed connector passes the test; else it stays as it was.
    Name and type cannot be changed: tables are named after them."""
    changed = await runtime.deadlines.run(
        "changing the connector",
        runtime.limits.connector_s,
        lambda: use.update_connector(
            principal, runtime.ports, runtime.calls, tenant_id, connector_id, change
        ),
    )
    return _body(changed)


@router.delete("/{connectorId}", status_code=204, summary="Delete a connector")
def delete_connector(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> None:
    """With its credentials, catalog and checkpoints. Its runs stay in the ledger; so do tables."""
    use.delete_connector(principal, runtime.ports, tenant_id, connector_id)


@router.post("/{connectorId}/test", summary="Test a connector")
async def check_connector(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> ConnectorTest:
    """A connection that fails is an answer, not an error: 200 with `success: false`, a stable
    `errorCode`, the stage that failed and what to do about it."""
    return await runtime.deadlines.run(
        "the connection test",
        runtime.limits.connector_s,
        lambda: use.check_connector(
            principal, runtime.ports, runtime.calls, tenant_id, connector_id
        ),
    )


@router.post("/{connectorId}/discover", status_code=202, summary="Discover schemas")
async def discover_connector(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> ConnectorBody:
    """Starts reading the source's catalog, unless that is under way; `discovery` tells how it goes
    and what has changed since the last one."""
    return _body(
        await runtime.deadlines.run(
            "starting the discovery",
            runtime.limits.connector_s,
            lambda: use.discover_connector(
                principal, runtime.ports, runtime.calls, tenant_id, connector_id
            ),
        )
    )


@router.delete("/{connectorId}/discover", summary="Cancel a discovery")
def cancel_discovery(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> ConnectorBody:
    """The catalog stays as it was. Harmless when none is running; a new one may start at once."""
    return _body(use.cancel_discovery(principal, runtime.ports, tenant_id, connector_id))


@router.get("/{connectorId}/usage", summary="Show what a connector was used for")
def get_usage(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    days: Annotated[int, Query(ge=1, le=MAX_USAGE_DAYS, description="How far back")] = 30,
) -> ConnectorUsage:
    """Runs, rows and bytes of its runs that were created within the last `days`."""
    return usage_of_connector(principal, runtime.ports, tenant_id, connector_id, days)


@router.get("/{connectorId}/schemas", summary="Show discovered schemas")
def get_schemas(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    *,
    columns: Annotated[
        bool, Query(description="Show each table's columns and their types")
    ] = False,
) -> SchemasBody:
    """From the catalog, a page of tables at a time. Empty until a discovery has completed."""
    known = use.get_connector(principal, runtime.ports, tenant_id, connector_id)
    found = catalog.list_units(
        principal,
        runtime.ports,
        tenant_id,
        connector_id,
        pattern=None,
        offset=page.offset,
        limit=page.limit,
    )
    discovery = known.state.discovery
    return SchemasBody(
        connector_id=connector_id,
        schemas=schemas_of(found.items, columns=columns),
        discovered_at=None if discovery is None else discovery.discovered_at,
        discovery=discovery,
        next=page_body(request, found, lambda unit: unit.unit_id).next,
    )


@router.put("/{connectorId}/credentials", summary="Change a connector's credentials")
async def rotate_credentials(
    tenant_id: TenantPath,
    connector_id: ConnectorPath,
    change: Annotated[CredentialsChange, Body(openapi_examples=_CREDENTIALS)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> ConnectorBody:
    """Replaces all of them, if they pass the test; else the old ones stay."""
    changed = await runtime.deadlines.run(
        "changing the credentials",
        runtime.limits.connector_s,
        lambda: use.rotate_credentials(
            principal, runtime.ports, runtime.calls, tenant_id, connector_id, change
        ),
    )
    return _body(changed)


def _body(connector: Connector) -> ConnectorBody:
    return ConnectorBody.of(connector.record, connector.state, connector.status)


async def _discovered(runtime: Runtime, principal: Principal, created: Connector) -> Connector:
    """The connector when its discovery is over, or as it is after `discovery_wait_s`."""
    tenant_id: TenantId = created.record.tenant_id
    connector_id: EndpointId = created.record.endpoint_id
    deadline = time.monotonic() + runtime.limits.discovery_wait_s
    while is_running(created.state.discovery, runtime.ports) and time.monotonic() < deadline:
        await asyncio.sleep(runtime.limits.poll_every_s)
        created = use.get_connector(principal, runtime.ports, tenant_id, connector_id)
    return created
