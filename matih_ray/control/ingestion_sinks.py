"""What a tenant's runs can write to."""

from __future__ import annotations

from dataclasses import dataclass

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.ports import Ports
from matih_ray.model.ids import SinkId, TenantId
from matih_ray.state.base import MAX_PAGE_ROWS


@dataclass(frozen=True)
class KnownSink:
    """A sink by the id that runs name. `supported_cdm_models` may end with `.*`."""

    sink_id: SinkId
    type: str
    name: str
    supported_cdm_models: tuple[str, ...]


def list_sinks(principal: Principal, ports: Ports, tenant_id: TenantId) -> list[KnownSink]:
    """Built-in sinks, then the tenant's sink endpoints by name; at most a page of these."""
    authorize(principal, Action.READ, tenant_id)
    names = ports.registry.names("sinks")
    own = ports.metadata.list_endpoints(tenant_id, types=frozenset(names), limit=MAX_PAGE_ROWS)
    found = [(name, name, name) for name in names]
    found += [(record.endpoint_id, record.type, record.name) for record in own]
    return [
        KnownSink(SinkId(sink_id), type_, name, _supported(ports, type_))
        for sink_id, type_, name in found
    ]


def _supported(ports: Ports, type_: str) -> tuple[str, ...]:
    plugin = ports.registry.resolve("sinks", type_)
    return tuple(getattr(plugin, "supported_cdm_models", ()))
