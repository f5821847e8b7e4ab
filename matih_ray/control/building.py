"""Builds source and sink endpoints from stored connectors and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast
from urllib.parse import urlsplit

from matih_ray.control.ports import Ports
from matih_ray.errors import NotFoundError
from matih_ray.model.ids import EndpointId, SinkId, TenantId
from matih_ray.model.value import JsonValue
from matih_ray.sinks.base import SinkEndpoint
from matih_ray.sources.base import EndpointSpec, SourceEndpoint
from matih_ray.sources.guarded_names import guarded
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.provider_services import ProviderServices
from matih_ray.state.base import CredentialStore, EndpointRecord

DEFAULT_SINK = SinkId("iceberg")
# Configuration fields that are URLs of the source.
_URL_FIELDS = ("baseUrl", "url", "endpointOverride", "authUrl")


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
        host_policy=HostPolicy.of(ports.settings),
        services=_services(ports, record),
    )


def source_of(ports: Ports, record: EndpointRecord) -> SourceEndpoint:
    """The runtime object of a connector that need not be stored yet; the caller closes it.

    Raises:
        NotFoundError: Its credentials are gone.
    """
    spec = EndpointSpec(
        tenant_id=record.tenant_id,
        endpoint_id=record.endpoint_id,
        name=record.name,
        type=record.type,
        config=record.config,
        secrets=_secrets(ports, record),
        host_policy=HostPolicy.of(ports.settings),
        services=_services(ports, record),
    )
    return _built_source(ports, spec)


def build_unstored_source(
    ports: Ports,
    tenant_id: TenantId,
    type_: str,
    config: Mapping[str, JsonValue],
    secrets: Mapping[str, str],
) -> SourceEndpoint:
    """The runtime object of a connector that is not stored at all; the caller closes it.

    Raises:
        HostNotAllowedError: The operator does not allow sources where it points to.
        DnsResolutionError: Its host name cannot be resolved.
    """
    spec = EndpointSpec(
        tenant_id=tenant_id,
        endpoint_id=EndpointId(ports.new_id()),
        name="unregistered connector",
        type=type_,
        config=config,
        secrets=secrets,
        host_policy=HostPolicy.of(ports.settings),
        services=ports.provider_services(tenant_id, type_),
    )
    return _built_source(ports, spec)


def addresses_of(config: Mapping[str, JsonValue]) -> list[tuple[str, int]]:
    """Every host and port that a configuration names, the source's own first.

    Directly, as further members of a cluster, or as the URLs of an API and of its tokens.
    """
    found: list[tuple[str, int]] = []
    host, port = config.get("host"), config.get("port")
    if isinstance(host, str) and isinstance(port, int):
        found.append((host, port))
    for name in _URL_FIELDS:
        url = config.get(name)
        if isinstance(url, str) and (parts := urlsplit(url)).hostname:
            default = 80 if parts.scheme == "http" else 443
            found.append((str(parts.hostname), parts.port or default))
    more = config.get("hosts")
    for member in more if isinstance(more, list) else ():
        name, _, digits = str(member).rpartition(":")
        if digits.isdigit():
            found.append((name, int(digits)))
    return found


def _built_source(ports: Ports, spec: EndpointSpec) -> SourceEndpoint:
    """The check of the host is repeated for every use, since names may come to mean others."""
    for address in addresses_of(spec.config):
        spec.host_policy.resolve_allowed(*address)
    source = cast("SourceEndpoint", ports.registry.resolve("sources", spec.type)(spec))
    return guarded(source, spec.host_policy)


@dataclass(frozen=True)
class _StoredSecrets:
    """A `SecretKeeper` over the store of credentials."""

    credentials: CredentialStore
    tenant_id: TenantId
    name: str

    def read(self) -> Mapping[str, str]:
        return self.credentials.get(self.tenant_id, self.name)

    def write(self, secrets: Mapping[str, str]) -> None:
        self.credentials.put(self.tenant_id, self.name, secrets)


def _services(ports: Ports, record: EndpointRecord) -> ProviderServices:
    """Pace and turns are shared by all connectors of one type: limits are the provider's."""
    shared = ports.provider_services(record.tenant_id, record.type)
    if record.credential_name is None:
        return shared
    keeper = _StoredSecrets(ports.credentials, record.tenant_id, record.credential_name)
    return replace(shared, secrets=keeper)


def _secrets(ports: Ports, record: EndpointRecord) -> dict[str, str]:
    if record.credential_name is None:
        return {}
    return ports.credentials.get(record.tenant_id, record.credential_name)


def build_source(ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> SourceEndpoint:
    """The runtime object of a connector; the caller closes it.

    Raises:
        NotFoundError: No such endpoint, or its credentials are gone.
        HostNotAllowedError: The operator does not allow sources where it points to.
        DnsResolutionError: Its host name cannot be resolved.
    """
    return _built_source(ports, endpoint_spec(ports, tenant_id, endpoint_id))


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
