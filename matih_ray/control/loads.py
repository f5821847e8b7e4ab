"""What a caller asks to be loaded, and the preview of it."""

from __future__ import annotations

from dataclasses import dataclass

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import DEFAULT_SINK, build_source
from matih_ray.control.cdm_sinks import check_data_mode
from matih_ray.control.ports import Ports
from matih_ray.control.streams import check_finalize, check_sink, stored_checkpoint, stream_of
from matih_ray.errors import ConflictError, UnitDisabledError, ValidationError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.unit_configuration import UnitConfiguration
from matih_ray.model.value import Value
from matih_ray.planning.planner import make_plan
from matih_ray.state.base import EndpointRecord


class LoadRequest(Value):
    """A unit, where its rows shall go and how.

    `sinkId` and `policy` are by default those that the unit is configured with, else `iceberg` and
    a full load; `stagingProviderId` is by default the runtime's.
    """

    endpoint_id: EndpointId
    unit_id: UnitId
    sink_id: SinkId | None = None
    policy: IngestionPolicy | None = None
    staging_provider_id: str | None = None


@dataclass(frozen=True)
class Load:
    """A load request that was checked: what it names exists and fits together."""

    stream: StreamKey
    unit: EndpointUnitDescriptor
    policy: IngestionPolicy
    staging_provider_id: str


def checked_load(ports: Ports, tenant_id: TenantId, request: LoadRequest) -> Load:
    """Resolve a request against endpoints, catalog and plugins; nothing is connected.

    Raises:
        NotFoundError: No such endpoint.
        UnknownUnitError: The unit is not in the endpoint's catalog.
        UnitDisabledError: The unit is configured not to be loaded.
        ConflictError: The endpoint is disabled.
        ValidationError: Sink, staging provider, policy or data mode do not fit.
        CdmSinkNotProvisionedError: The sink has no table for the unit's model.
    """
    endpoint = ports.metadata.get_endpoint(tenant_id, request.endpoint_id)
    if not endpoint.enabled:
        raise ConflictError(
            f"connector {endpoint.name} is disabled; set its status to ACTIVE first",
            endpoint_id=endpoint.endpoint_id,
        )
    unit = ports.metadata.get_unit(tenant_id, request.endpoint_id, request.unit_id)
    configured = configuration_of(ports, tenant_id, request.endpoint_id, request.unit_id)
    if configured is not None and not configured.enabled:
        raise UnitDisabledError(
            f"{request.unit_id} is disabled for ingestion; enable it in its configuration first",
            unit_id=request.unit_id,
        )
    sink_id, policy = choices_of(request, configured)
    check_sink(ports, tenant_id, sink_id)
    staging = request.staging_provider_id or ports.settings.staging_provider
    if staging not in ports.registry.names("staging"):
        known = ", ".join(ports.registry.names("staging"))
        raise ValidationError(
            f"no staging provider {staging!r}; known: {known}", field="stagingProviderId"
        )
    check_policy(unit, policy)
    check_filter(ports, endpoint, policy)
    check_data_mode(ports, tenant_id, unit, sink_id, policy)
    check_finalize(ports, tenant_id, sink_id, policy)
    stream = stream_of(ports, endpoint, request.unit_id, sink_id)
    return Load(stream, unit, policy, staging)


def choices_of(
    request: LoadRequest, configured: UnitConfiguration | None
) -> tuple[SinkId, IngestionPolicy]:
    """Sink and policy of a load: as asked for, else as configured, else the defaults."""
    sink_id, policy = request.sink_id, request.policy
    if configured is not None:
        sink_id = sink_id or configured.sink_id
        policy = policy or configured.policy
    return sink_id or DEFAULT_SINK, policy or IngestionPolicy()


def configuration_of(
    ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId, unit_id: UnitId
) -> UnitConfiguration | None:
    """A unit's configuration, if it has one."""
    found = ports.metadata.get_unit_configurations(tenant_id, endpoint_id, [unit_id])
    return found.get(unit_id)


def plan_unit(
    principal: Principal, ports: Ports, tenant_id: TenantId, request: LoadRequest
) -> IngestionPlan:
    """The plan that a run started now would follow. Probes the source; starts and stores nothing.

    Raises:
        NotFoundError: No such endpoint, or the unit is not in its catalog.
        ValidationError: Sink, staging provider or policy do not fit.
        PlanError: No plan can be made.
        SourceError: Probing failed.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    load = checked_load(ports, tenant_id, request)
    checkpoint = stored_checkpoint(ports, load.stream)
    source = build_source(ports, tenant_id, request.endpoint_id)
    try:
        return make_plan(source, load.unit, checkpoint, load.policy)
    finally:
        source.close()


def check_filter(ports: Ports, endpoint: EndpointRecord, policy: IngestionPolicy) -> None:
    """Do nothing if the policy has no filter, or one that the endpoint's source takes.

    Raises:
        ValidationError: The source takes no filter, or not this one.
    """
    check_filter_of(ports, endpoint.type, policy)


def check_filter_of(ports: Ports, type_: str, policy: IngestionPolicy) -> None:
    """The same for a connector type. Raises as `check_filter`."""
    if policy.filter is None:
        return
    source = ports.registry.resolve("sources", type_)
    model: type[Value] | None = getattr(source, "filter_model", None)
    if model is None:
        raise ValidationError(
            f"{type_} sources take no filter; choose columns or another unit",
            field="policy.filter",
        )
    model.from_json(dict(policy.filter))


def check_policy(unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> None:
    """Do nothing if a policy fits a unit's description; the planner knows whether it can be loaded.

    Raises:
        ValidationError: It names a column that is not there, or what the unit does not have.
    """
    columns = {column.name for column in unit.columns}
    named = [("columns", name) for name in policy.columns or ()]
    named += [("encodings", name) for name in policy.encodings]
    if policy.cursor_column is not None:
        named.append(("cursorColumn", policy.cursor_column))
    named += [("keyColumns", name) for name in policy.key_columns]
    if policy.order_column is not None:
        named.append(("orderColumn", policy.order_column))
    if policy.delete_column is not None:
        named.append(("deleteColumn", policy.delete_column))
    if policy.finalize is not None:
        named += [(f"finalize.{field}", name) for field, name in policy.finalize.columns]
    for field, name in named:
        if name not in columns:
            raise ValidationError(
                f"{unit.unit_id} has no column {name!r}; if it is new, collect the catalog again",
                field=f"policy.{field}",
            )
    if policy.columns is not None and not policy.columns:
        raise ValidationError("policy.columns selects no column", field="policy.columns")
    if policy.write_mode is WriteMode.MERGE and not (policy.key_columns or unit.primary_key):
        raise ValidationError(
            f"{unit.unit_id} has no primary key to merge by; name columns that are unique and "
            "never NULL in keyColumns",
            field="policy.keyColumns",
        )
