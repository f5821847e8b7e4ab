"""What a connector was used for."""

from __future__ import annotations

from datetime import timedelta

from matih_ray.control.authorization import Principal
from matih_ray.control.connectors import get_connector
from matih_ray.control.ports import Ports
from matih_ray.model.connector import ConnectorUsage
from matih_ray.model.ids import EndpointId, TenantId


def usage_of_connector(
    principal: Principal, ports: Ports, tenant_id: TenantId, connector_id: EndpointId, days: int
) -> ConnectorUsage:
    """What its runs that were created in the last `days` have read. Raises `NotFoundError`."""
    get_connector(principal, ports, tenant_id, connector_id)
    since = ports.clock() - timedelta(days=days)
    return ports.metadata.usage_of(tenant_id, connector_id, since)
