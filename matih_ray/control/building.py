"""Builds source and sink endpoints from stored connectors and settings."""

from __future__ import annotations

from typing import cast

from matih_ray.control.ports import Ports
from matih_ray.errors import NotFoundError
from matih_ray.model.ids import EndpointId, SinkId, TenantId
from matih_ray.sinks.base import SinkEndpoint
from matih_ray.sources.base import EndpointSpec, SourceEndpoint
from matih_ray.state.base import EndpointRecord

DEFAULT_SINK = SinkId("iceberg")


def endpoint_spec(ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> EndpointSpec:
    """A stored connector with its credentials.

    Raises:
        NotFoundError: No such endpoint, or its credentials are gone.
    """
    record = ports.metadata.get_endpoint(tenant_id, endpoint_id)
    try:
        secrets = _secrets(ports, record)
    except NotFoundError:
        # New credentials get a new name and the old ones are deleted: between reading the record
        # and reading them, they may have been replaced.
        record = ports.metadata.get_endpoint(tenant_id, endpoint_id)
        secrets = _secrets(ports, record)
    return EndpointSpec(
        tenant_id=tenant_id,
        endpoint_id=endpoint_id,
        name=record.name,
        type=record.type,
        config=record.config,
        secrets=secrets,
    )


def _secrets(ports: Ports, record: EndpointRecord) -> dict[str, str]:
    if record.credential_name is None:
        return {}
    return ports.credentials.get(record.tenant_id, record.credential_name)


def build_source(ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> SourceEndpoint:
    """The runtime object of a connector; the caller closes it."""
    spec = endpoint_spec(ports, tenant_id, endpoint_id)
    return cast("SourceEndpoint", ports.registry.resolve("sources", spec.type)(spec))


def build_sink(ports: Ports, tenant_id: TenantId, sink_id: SinkId) -> SinkEndpoint:
    """A built-in sink by name, or a sink endpoint of the tenant by id; the caller closes it.

    Built-in sinks are configured by settings: `SinkClass.from_settings(settings, tenant_id)`.

    Raises:
        NotFoundError: Neither a built-in sink nor an endpoint of the tenant has this id.
    """
    if sink_id in ports.registry.names("sinks"):
        sink_class = ports.registry.resolve("sinks", sink_id)
        return cast("SinkEndpoint", sink_class.from_settings(ports.settings, tenant_id))
    try:
        spec = endpoint_spec(ports, tenant_id, EndpointId(sink_id))
    except NotFoundError:
        known = ", ".join(ports.registry.names("sinks"))
        raise NotFoundError(
            f"no sink {sink_id!r}; built-in sinks: {known}", sink_id=sink_id
        ) from None
    return cast("SinkEndpoint", ports.registry.resolve("sinks", spec.type)(spec))
