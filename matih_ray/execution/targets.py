"""Where a run's rows go: the sink target of a unit. Pure."""

from __future__ import annotations

import pyarrow as pa

from matih_ray.errors import PlanError
from matih_ray.model.policy import DataMode, MergeRule, Verify, WriteMode
from matih_ray.model.run import RunRecord
from matih_ray.model.unit import EndpointUnitDescriptor, Fidelity
from matih_ray.sinks.base import SinkTarget


def sink_target(
    record: RunRecord, endpoint_name: str, unit: EndpointUnitDescriptor, schema: pa.Schema
) -> SinkTarget:
    """The target of a run.

    The path always starts with the tenant, so that no policy can point at another tenant's tables.
    It goes on with the endpoint's name, the source's namespace and the table, or with the dotted
    `policy.target`.
    """
    policy = record.policy
    if policy.mode is DataMode.CDM:
        return _cdm_target(record, unit, schema)
    inner = (
        tuple(policy.target.split("."))
        if policy.target
        else (endpoint_name, unit.namespace, unit.name)
    )
    return SinkTarget(
        stream=record.stream,
        path=(record.stream.tenant_id, *inner),
        schema=schema,
        write_mode=policy.effective_write_mode,
        primary_key=unit.primary_key,
        partition_by=policy.partition_by,
        target_file_bytes=policy.target_file_bytes,
        checksum=policy.verify is Verify.CHECKSUM,
        merge=merge_rule(record, unit, schema),
        schema_change=policy.schema_change,
        finalize=policy.finalize,
    )


def _cdm_target(record: RunRecord, unit: EndpointUnitDescriptor, schema: pa.Schema) -> SinkTarget:
    """The model's table, which all endpoints of a tenant share."""
    assert unit.cdm_model_id is not None  # noqa: S101 - checked before the run was queued
    return SinkTarget(
        stream=record.stream,
        path=(record.stream.tenant_id, unit.cdm_model_id),
        schema=schema,
        write_mode=record.policy.effective_write_mode,
        primary_key=("cdm_id",),
        checksum=record.policy.verify is Verify.CHECKSUM,
    )


def merge_rule(
    record: RunRecord, unit: EndpointUnitDescriptor, schema: pa.Schema
) -> MergeRule | None:
    """What a merging run goes by: the policy's columns, else the unit's key and the cursor.

    Raises:
        PlanError: There is no key, a column of the rule is not read, or versions have no order.
    """
    policy, plan = record.policy, record.plan
    if policy.effective_write_mode is not WriteMode.MERGE:
        return None
    key = policy.key_columns or unit.primary_key
    if not key:
        raise PlanError(
            f"{unit.unit_id} has no primary key to merge by; name columns that are unique and "
            "never NULL in keyColumns",
            unit_id=unit.unit_id,
        )
    cursor = policy.cursor_column or (plan.cursor_column if plan is not None else None)
    order = policy.order_column or (cursor if cursor in schema.names else None)
    if order in key:
        order = None  # the same in all versions of a row
    delete = policy.delete_column or (plan.delete_column if plan is not None else None)
    rule = MergeRule(key=key, order=order, delete=delete)
    needed = [*rule.key, *(name for name in (rule.order, rule.delete) if name is not None)]
    if missing := [name for name in needed if name not in schema.names]:
        raise PlanError(
            f"a merge of {unit.unit_id} needs column {missing[0]!r}, which is not read",
            unit_id=unit.unit_id,
            column=missing[0],
        )
    if rule.order is not None:
        _check_order(unit, schema.field(rule.order))
    return rule


def _check_order(unit: EndpointUnitDescriptor, field: pa.Field) -> None:
    """Numbers and times that arrive as text compare as text: "9" would be newer than "10"."""
    column = next((one for one in unit.columns if one.name == field.name), None)
    is_text = pa.types.is_string(field.type) or pa.types.is_binary(field.type)
    if column is not None and column.fidelity is Fidelity.ENCODED and is_text:
        raise PlanError(
            f"a merge of {unit.unit_id} cannot tell newer versions by {field.name!r}: its "
            f"{column.native_type} values arrive as text ({column.encoding}), which has another "
            "order; choose a number or a time for it in encodings, such as decimal(38,0) or "
            "timestamp, or another orderColumn",
            unit_id=unit.unit_id,
            column=field.name,
        )
