"""Iceberg tables as a stranger reads them: by name, through the catalog."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from matih_ray.control.building import endpoint_spec
from matih_ray.control.ports import Ports
from matih_ray.model.ids import EndpointId, SinkId, TenantId
from matih_ray.model.value import JsonValue
from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.sinks.iceberg.target import IcebergTarget
from matih_ray.testing.contracts.sink_lab import TENANT


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


@dataclass
class IcebergLake:
    """The catalog of some settings, with the sink of the contract's tenant on it."""

    settings: Settings

    def sink(self) -> IcebergSink:
        """A new sink, as another process would have it."""
        return IcebergSink.from_settings(self.settings, TENANT)

    def catalog(self) -> Catalog:
        """The catalog, asked anew."""
        return open_catalog(CatalogConfig.from_settings(self.settings))

    def table(self, prepared: PreparedTarget) -> Table:
        """The table of a target, freshly loaded."""
        payload = IcebergTarget.from_json(dict(prepared.payload))
        return self.catalog().load_table(payload.identifier)

    def read(self, prepared: PreparedTarget) -> pa.Table:
        """All rows of the table of a target."""
        return self.table(prepared).scan().to_arrow()
