"""A source of Databricks SQL for tests, and what it reads."""

from __future__ import annotations

import pyarrow as pa

from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.value import JsonValue
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.databricks import DatabricksSource
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.testing.devstack.databricks import HTTP_PATH, DatabricksServer

TOKEN = "a-token-nobody-may-see"


def source_of(
    server: DatabricksServer,
    policy: HostPolicy | None = None,
    secrets: dict[str, str] | None = None,
    **config: JsonValue,
) -> DatabricksSource:
    standard = {"host": server.host, "port": server.port, "httpPath": HTTP_PATH, "database": "shop"}
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="DATABRICKS_SQL",
        config={**standard, "sslMode": "disable", "connectTimeoutS": 5, **config},
        secrets={"token": TOKEN} if secrets is None else secrets,
        host_policy=policy or HostPolicy(),
    )
    return DatabricksSource(spec)


def read(
    source: DatabricksSource, unit_id: str, policy: IngestionPolicy | None = None, rows: int = 1000
) -> pa.Table:
    policy = policy or IngestionPolicy()
    unit = source.describe_unit(UnitId(unit_id))
    plan = source.plan_incremental_slices(unit, None, policy, rows)
    schema = source.read_schema(unit, policy)
    batches = [batch for slice_ in plan.slices for batch in source.read(unit, slice_, policy)]
    return pa.Table.from_batches(batches, schema)
