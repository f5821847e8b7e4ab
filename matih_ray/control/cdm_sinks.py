"""The canonical data model: which loads may use it, and making sinks ready for it.

Data mode `cdm` asks three things of a load, each with an error of its own: the unit has a model,
the sink takes that model, and the sink is an endpoint that says where the model's tables are. The
last also means that it was provisioned for the model, which is explicit: a run creates no tables
that nobody has asked for. The operator's own database (`CDM_WORK_DATABASE_URL`) needs neither
endpoint nor provisioning; it is there to try things out.
"""

from __future__ import annotations

from dataclasses import dataclass

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import build_sink
from matih_ray.control.ports import Ports
from matih_ray.errors import (
    CdmModelMissingError,
    CdmModelUnsupportedError,
    CdmSinkNotProvisionedError,
    CdmSinkRequiredError,
    NotFoundError,
    UnknownUnitError,
    ValidationError,
)
from matih_ray.model.cdm import CDM_MODELS, CdmModel, covers
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.policy import DataMode, IngestionPolicy, WriteMode
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.sinks.base import ProvisionedTable, SupportsCdm


@dataclass(frozen=True)
class ProvisionedModel:
    """A model's table in a sink. `dataset` is its catalog record, which built-in sinks have not."""

    sink_id: SinkId
    cdm_model_id: str
    table: ProvisionedTable
    dataset: EndpointUnitDescriptor | None


def provision_cdm_sink(
    principal: Principal, ports: Ports, tenant_id: TenantId, sink_id: SinkId, cdm_model_id: str
) -> ProvisionedModel:
    """Make a sink ready for a model: check, create or extend its table, note it in the catalog.

    Idempotent; also adds the columns that a newer version of the model has.

    Raises:
        NotFoundError: The tenant has no such sink.
        ValidationError: There is no such model, or the endpoint is no CDM sink.
        CdmModelUnsupportedError: The sink does not take the model.
        SinkError: The table cannot be made.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    model = _model(cdm_model_id)
    type_ = _sink_type(ports, tenant_id, sink_id)
    _check_supported(ports, type_, sink_id, cdm_model_id)
    sink = build_sink(ports, tenant_id, sink_id)
    try:
        if not isinstance(sink, SupportsCdm):
            raise _no_cdm_sink(sink_id, cdm_model_id)
        table = sink.provision(model)
    finally:
        sink.close()
    dataset = None
    if sink_id not in ports.registry.names("sinks"):
        dataset = _dataset(EndpointId(sink_id), model, table)
        ports.metadata.put_unit(tenant_id, dataset)
    return ProvisionedModel(sink_id, cdm_model_id, table, dataset)


def check_data_mode(
    ports: Ports,
    tenant_id: TenantId,
    unit: EndpointUnitDescriptor,
    sink_id: SinkId,
    policy: IngestionPolicy,
) -> None:
    """Do nothing if the policy's data mode fits unit and sink; nothing is connected.

    Raises:
        CdmModelMissingError: Mode `cdm`, and the unit has no model.
        CdmModelUnsupportedError: Mode `cdm`, and the sink does not take the model.
        CdmSinkRequiredError: Mode `cdm`, and the sink is no endpoint for it.
        CdmSinkNotProvisionedError: The sink has no table for the model.
        ValidationError: The policy's other choices do not go with the mode, or mode `raw` with a
            sink that takes nothing but models.
    """
    type_ = _sink_type(ports, tenant_id, sink_id)
    _check_write_mode(ports, type_, sink_id, policy)
    is_cdm_sink = _is_cdm_sink(ports, type_)
    if policy.mode is not DataMode.CDM:
        if is_cdm_sink:
            raise ValidationError(
                f"sink {sink_id} takes rows of the canonical data model only; use mode=cdm or "
                "another sink",
                field="policy.mode",
            )
        return
    model_id = unit.cdm_model_id
    if model_id is None:
        raise CdmModelMissingError(
            f"{unit.unit_id} has no canonical data model; use mode=raw",
            field="policy.mode",
            unit_id=unit.unit_id,
        )
    _check_supported(ports, type_, sink_id, model_id)
    if not is_cdm_sink or (_is_built_in(ports, sink_id) and not _is_ready(ports, type_)):
        raise _no_cdm_sink(sink_id, model_id)
    _check_provisioned(ports, tenant_id, sink_id, model_id)
    _check_choices(policy)


def _check_supported(ports: Ports, type_: str, sink_id: SinkId, model_id: str) -> None:
    supported = _supported(ports, type_)
    if not covers(supported, model_id):
        raise CdmModelUnsupportedError(
            f"sink {sink_id} does not take {model_id}; it takes: {', '.join(supported) or 'none'}",
            field="sinkId",
            sink_id=sink_id,
            cdm_model_id=model_id,
        )


def _check_provisioned(ports: Ports, tenant_id: TenantId, sink_id: SinkId, model_id: str) -> None:
    if _is_built_in(ports, sink_id):
        return
    try:
        ports.metadata.get_unit(tenant_id, EndpointId(sink_id), UnitId(model_id))
    except UnknownUnitError:
        raise CdmSinkNotProvisionedError(
            f"sink {sink_id} has no table for {model_id} yet; provision it for this model first",
            sink_id=sink_id,
            cdm_model_id=model_id,
        ) from None


def _check_write_mode(ports: Ports, type_: str, sink_id: SinkId, policy: IngestionPolicy) -> None:
    """Sinks that cannot do every write mode say which they can."""
    modes = getattr(ports.registry.resolve("sinks", type_), "write_modes", tuple(WriteMode))
    if policy.effective_write_mode not in modes:
        raise ValidationError(
            f"sink {sink_id} cannot {policy.effective_write_mode.value}; writeMode is one of: "
            f"{', '.join(mode.value for mode in modes)}",
            field="policy.writeMode",
        )


def _check_choices(policy: IngestionPolicy) -> None:
    """A model has its own columns, key and table."""
    chosen = {
        "columns": policy.columns is not None,
        "partitionBy": bool(policy.partition_by),
        "target": policy.target is not None,
        "writeMode": policy.write_mode is WriteMode.MERGE,
    }
    for name, is_chosen in chosen.items():
        if is_chosen:
            raise ValidationError(
                f"mode=cdm maps whole rows into the model's own table by its own key; leave out "
                f"{name}{'=merge' if name == 'writeMode' else ''}",
                field=f"policy.{name}",
            )


def _model(cdm_model_id: str) -> CdmModel:
    model = CDM_MODELS.get(cdm_model_id)
    if model is None:
        raise ValidationError(
            f"there is no model {cdm_model_id[:100]!r}; known: {', '.join(CDM_MODELS)}",
            field="cdmModelId",
        )
    return model


def _is_built_in(ports: Ports, sink_id: SinkId) -> bool:
    return sink_id in ports.registry.names("sinks")


def _is_ready(ports: Ports, type_: str) -> bool:
    """Whether a built-in sink has somewhere to put models."""
    plugin = ports.registry.resolve("sinks", type_)
    return bool(ports.settings.cdm_database_url) or getattr(plugin, "is_always_ready", False)


def _sink_type(ports: Ports, tenant_id: TenantId, sink_id: SinkId) -> str:
    if _is_built_in(ports, sink_id):
        return sink_id
    type_ = ports.metadata.get_endpoint(tenant_id, EndpointId(sink_id)).type
    if type_ not in ports.registry.names("sinks"):
        raise NotFoundError(f"endpoint {sink_id} is a source, not a sink", sink_id=sink_id)
    return type_


def _supported(ports: Ports, type_: str) -> tuple[str, ...]:
    return tuple(getattr(ports.registry.resolve("sinks", type_), "supported_cdm_models", ()))


def _is_cdm_sink(ports: Ports, type_: str) -> bool:
    return hasattr(ports.registry.resolve("sinks", type_), "provision")


def _no_cdm_sink(sink_id: SinkId, model_id: str) -> CdmSinkRequiredError:
    return CdmSinkRequiredError(
        f"sink {sink_id} does not say where the tables of {model_id} are; register an endpoint of "
        "type cdm.jdbc, provision it for the model and choose it as the sink",
        field="sinkId",
        sink_id=sink_id,
        cdm_model_id=model_id,
    )


def _dataset(
    endpoint_id: EndpointId, model: CdmModel, table: ProvisionedTable
) -> EndpointUnitDescriptor:
    return EndpointUnitDescriptor(
        endpoint_id=endpoint_id,
        unit_id=UnitId(model.model_id),
        namespace=table.namespace,
        name=table.name,
        columns=tuple(
            ColumnDescriptor(
                name=field.name,
                native_type=str(field.type),
                arrow_type=str(field.type),
                nullable=field.nullable,
            )
            for field in model.schema
        ),
        primary_key=("cdm_id",),
        cdm_model_id=model.model_id,
        labels=(f"sink-endpoint:{endpoint_id}", f"cdm_model:{model.model_id}"),
    )
