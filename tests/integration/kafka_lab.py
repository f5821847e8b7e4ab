"""Reading whole topics in tests."""

from __future__ import annotations

from typing import Any

from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.kafka import KafkaSource
from matih_ray.testing.devstack.kafka import KafkaServer

INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL)


def source_of(
    server: KafkaServer,
    password: str | None = None,
    host_policy: HostPolicy | None = None,
    **config: Any,
) -> KafkaSource:
    defaults = {"host": "127.0.0.1", "port": server.port, "connectTimeoutS": 5, "readTimeoutS": 20}
    spec = EndpointSpec(
        TenantId("t"),
        EndpointId("e"),
        "test",
        "KAFKA",
        {**defaults, **config},
        {} if password is None else {"password": password},
        host_policy or HostPolicy(),
    )
    return KafkaSource(spec)


def unit_of(source: KafkaSource, topic: str) -> EndpointUnitDescriptor:
    return source.describe_unit(UnitId(topic))


def planned(
    source: KafkaSource,
    topic: str,
    policy: IngestionPolicy = INCREMENTAL,
    checkpoint: Checkpoint | None = None,
) -> IngestionPlan:
    return make_plan(source, unit_of(source, topic), checkpoint, policy)


def rows_of(
    source: KafkaSource, plan: IngestionPlan, policy: IngestionPolicy = INCREMENTAL
) -> list[dict[str, Any]]:
    """All rows of a plan, by partition and offset."""
    unit = unit_of(source, plan.unit_id)
    rows = [
        row
        for slice_ in plan.slices
        for batch in source.read(unit, slice_, policy)
        for row in batch.to_pylist()
    ]
    return sorted(rows, key=lambda row: (row["_partition"], row["_offset"]))


def read(
    source: KafkaSource, topic: str, policy: IngestionPolicy = INCREMENTAL
) -> list[dict[str, Any]]:
    """All rows of a topic."""
    return rows_of(source, planned(source, topic, policy), policy)


def after(plan: IngestionPlan) -> Checkpoint:
    """The checkpoint once a plan is committed."""
    return Checkpoint(cursor=plan.slices[-1].cursor_after, cursor_column=plan.cursor_column)
