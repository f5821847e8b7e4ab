"""Reads Iceberg tables back the way a stranger would: by name, through the catalog."""

from __future__ import annotations

from pyiceberg.table import Table

from matih_ray.control.building import endpoint_spec
from matih_ray.control.ports import Ports
from matih_ray.model.ids import EndpointId, SinkId, TenantId
from matih_ray.model.value import JsonValue
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.sinks.iceberg.target import IcebergTarget


def load_table(
    ports: Ports, tenant_id: TenantId, sink_id: SinkId, target: dict[str, JsonValue]
) -> Table:
    """The table of a run's `target`, freshly loaded."""
    if sink_id == "iceberg":
        config = CatalogConfig.from_settings(ports.settings)
    else:
        config = CatalogConfig.from_spec(endpoint_spec(ports, tenant_id, EndpointId(sink_id)))
    payload = IcebergTarget.from_json(dict(PreparedTarget.from_json(target).payload))
    return open_catalog(config).load_table(payload.identifier)
