"""Configurations of units: whether a unit may be loaded, where its rows go and how.

Kept apart from the catalog, which mirrors the source and is replaced by each collection.
"""

from __future__ import annotations

from collections.abc import Sequence

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import DEFAULT_SINK
from matih_ray.control.cdm_sinks import check_data_mode
from matih_ray.control.loads import check_filter, check_policy, configuration_of
from matih_ray.control.ports import Ports
from matih_ray.control.streams import check_finalize, check_sink
from matih_ray.errors import StateConflictError
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit_configuration import UnitConfiguration
from matih_ray.model.value import Value


class UnitChange(Value):
    """What to change of a unit's configuration; what is not given stays.

    With `version` the change is refused if somebody else has made another one since.
    """

    enabled: bool | None = None
    sink_id: SinkId | None = None
    policy: IngestionPolicy | None = None
    version: int | None = None


def configure_unit(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    unit_id: UnitId,
    change: UnitChange,
) -> UnitConfiguration:
    """Change a unit's configuration; repeating it changes nothing more.

    Raises:
        NotFoundError: No such endpoint.
        UnknownUnitError: The unit is not in its catalog.
        ValidationError: Sink, policy or data mode do not fit the unit.
        CdmSinkNotProvisionedError: The sink has no table for the unit's model.
        StateConflictError: Somebody else changed it.
    """
    authorize(principal, Action.RUN, tenant_id)
    endpoint = ports.metadata.get_endpoint(tenant_id, endpoint_id)
    unit = ports.metadata.get_unit(tenant_id, endpoint_id, unit_id)
    before = configuration_of(ports, tenant_id, endpoint_id, unit_id)
    version = 0 if before is None else before.version
    if change.version not in (None, version):
        raise StateConflictError(
            f"the configuration of {unit_id!r} has version {version}, not {change.version}; read "
            "it again",
            unit_id=unit_id,
            version=version,
        )
    given = {"enabled": change.enabled, "sink_id": change.sink_id, "policy": change.policy}
    given = {name: value for name, value in given.items() if value is not None}
    before = before or _unconfigured(principal, ports, tenant_id, endpoint_id, unit_id)
    after = before.model_copy(update=given)
    if after.sink_id is not None:
        check_sink(ports, tenant_id, after.sink_id)
    if after.policy is not None:
        check_policy(unit, after.policy)
        check_filter(ports, endpoint, after.policy)
    if given.keys() & {"sink_id", "policy"}:
        sink_id, policy = after.sink_id or DEFAULT_SINK, after.policy or IngestionPolicy()
        check_data_mode(ports, tenant_id, unit, sink_id, policy)
        check_finalize(ports, tenant_id, sink_id, policy)
    if after == before:
        return before
    noted = {"updated_by": principal.subject, "updated_at": ports.clock()}
    return ports.metadata.put_unit_configuration(after.model_copy(update=noted))


def get_unit_configuration(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    unit_id: UnitId,
) -> UnitConfiguration:
    """A unit's configuration; version 0 if it has none of its own.

    Raises:
        NotFoundError: No such endpoint.
        UnknownUnitError: The unit is not in its catalog.
    """
    authorize(principal, Action.READ, tenant_id)
    ports.metadata.get_endpoint(tenant_id, endpoint_id)
    ports.metadata.get_unit(tenant_id, endpoint_id, unit_id)
    found = configuration_of(ports, tenant_id, endpoint_id, unit_id)
    return found or _unconfigured(principal, ports, tenant_id, endpoint_id, unit_id)


def configurations_of(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    unit_ids: Sequence[UnitId],
) -> dict[UnitId, UnitConfiguration]:
    """The configurations of a page of units, of those that have one."""
    authorize(principal, Action.READ, tenant_id)
    return ports.metadata.get_unit_configurations(tenant_id, endpoint_id, unit_ids)


def _unconfigured(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    unit_id: UnitId,
) -> UnitConfiguration:
    return UnitConfiguration(
        tenant_id=tenant_id,
        endpoint_id=endpoint_id,
        unit_id=unit_id,
        updated_by=principal.subject,
        updated_at=ports.clock(),
    )
