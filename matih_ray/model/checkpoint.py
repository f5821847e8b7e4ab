"""Checkpoints: the persisted resume point of one stream, where a *stream* is
(tenant, endpoint, unit, sink). The cursor's shape belongs to the source that planned it."""

from __future__ import annotations

import hashlib

from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.value import JsonValue, Value

CHECKPOINT_VERSION = 1


class StreamKey(Value):
    """The identity under which checkpoints, transient state and sink markers are kept."""

    tenant_id: TenantId
    vendor: str
    endpoint_id: EndpointId
    unit_id: UnitId
    sink_id: SinkId

    def kv_key(self) -> str:
        """The key pattern of the specification, without the tenant (the store adds it)."""
        return (
            f"ingest::{self.vendor}::endpoint::{self.endpoint_id}"
            f"::unit::{self.unit_id}::sink::{self.sink_id}"
        )

    def reader(self) -> str:
        """The name by which a source knows who reads its log: letters and digits, always the
        same for the stream and for no other."""
        text = f"{self.tenant_id}::{self.kv_key()}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]


class Checkpoint(Value):
    """Where the next run of a stream starts, and how far the current one got.

    `cursor` is the last committed position in the source's order. `run_id` and `through` say how
    many slices of that run's plan are committed as a contiguous prefix.
    """

    version: int = CHECKPOINT_VERSION
    cursor: JsonValue = None
    cursor_column: str | None = None
    run_id: RunId | None = None
    through: int = 0
    details: dict[str, JsonValue] = {}
