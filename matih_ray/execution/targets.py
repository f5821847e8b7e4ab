"""Where a run's rows go: the sink target of a unit. Pure."""

from __future__ import annotations

import pyarrow as pa

from matih_ray.model.policy import Verify
from matih_ray.model.run import RunRecord
from matih_ray.model.unit import EndpointUnitDescriptor
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
    )
