"""Sample values and small tools of the state contracts."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from matih_ray.errors import ConflictError, StateConflictError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.run import RunRecord, RunState
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.state.base import EndpointRecord, MetadataStore

THREADS = 8
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
BAD_NAMES = ["", "a\x00b", "\ud800", "x" * 5_000]


def new_tenant(name: str = "t") -> TenantId:
    """A tenant that nobody else uses."""
    return TenantId(f"{name}-{uuid.uuid4().hex[:12]}")


def together(count: int, work: Callable[[int], object]) -> list[object]:
    """Run `work(0..count-1)` in threads that start at once; an error is a result."""
    start = threading.Barrier(count)

    def one(number: int) -> object:
        start.wait()
        try:
            return work(number)
        except (StateConflictError, ConflictError) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def endpoint(tenant: TenantId, name: str = "warehouse", **changes: object) -> EndpointRecord:
    """An endpoint as a caller would store it first."""
    values: dict[str, object] = {
        "tenant_id": tenant,
        "endpoint_id": uuid.uuid4().hex,
        "name": name,
        "type": "POSTGRESQL",
        "config": {"host": "db", "port": 5432, "nested": {"ümlaut": [1, 2.5, None]}},
        "credential_name": "warehouse-secret",
        "created_at": NOON,
        "updated_at": NOON,
    }
    return EndpointRecord.model_validate({**values, **changes})


def unit(endpoint_id: EndpointId, unit_id: str, **changes: object) -> EndpointUnitDescriptor:
    """A unit with one column."""
    values: dict[str, object] = {
        "endpoint_id": endpoint_id,
        "unit_id": unit_id,
        "namespace": "public",
        "name": unit_id,
        "columns": (ColumnDescriptor(name="id", native_type="bigint", arrow_type="int64"),),
        "primary_key": ("id",),
    }
    return EndpointUnitDescriptor.model_validate({**values, **changes})


def stream(tenant: TenantId, unit_id: str = "public.orders", sink: str = "iceberg") -> StreamKey:
    """A stream of the endpoint `e-1`."""
    return StreamKey(
        tenant_id=tenant,
        vendor="postgresql",
        endpoint_id=EndpointId("e-1"),
        unit_id=UnitId(unit_id),
        sink_id=SinkId(sink),
    )


def run(of: StreamKey, run_id: str | None = None, **changes: object) -> RunRecord:
    """A run as it is queued."""
    values: dict[str, object] = {
        "run_id": run_id or uuid.uuid4().hex,
        "stream": of,
        "state": RunState.QUEUED,
        "policy": IngestionPolicy(target_slice_rows=123),
        "created_at": NOON,
    }
    return RunRecord.model_validate({**values, **changes})


def plan(of: StreamKey, slices: int = 3) -> IngestionPlan:
    """A plan of so many slices."""
    return IngestionPlan(
        endpoint_id=of.endpoint_id,
        unit_id=of.unit_id,
        strategy="range",
        slices=tuple(
            IngestionSlice(key=f"s-{n}", sequence=n, params={"lower": n, "upper": n + 1})
            for n in range(slices)
        ),
    )


def changed(record: RunRecord, **changes: object) -> RunRecord:
    """The record with other values."""
    return record.model_copy(update=changes)


def finish(store: MetadataStore, record: RunRecord, state: RunState) -> RunRecord:
    """Bring a queued run to an end."""
    running = store.update_run(changed(record, state=RunState.RUNNING, epoch=record.epoch + 1))
    return store.update_run(changed(running, state=state))
