"""Answers of the API as values: what clients, the CLI among them, may rely on.

Stored records are not answered as they are: they hold what only the runtime needs. May import
`model` and `state.base` only, so that a client reads answers without loading the runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.run import RunError, RunRecord, RunRequest, RunState
from matih_ray.model.value import JsonValue, Value
from matih_ray.state.base import EndpointRecord, UnitStateRecord

Item = TypeVar("Item")

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldProblem(Value):
    """One wrong field of a request. The value is never repeated: it may be secret."""

    field: str
    message: str


class Problem(Value):
    """The body of every error answer (RFC 9457, `application/problem+json`).

    `code` is the stable word for programs, `retryable` whether the same request may succeed later,
    `context` facts about the error, and `instance` names the request in our logs.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    retryable: bool
    context: dict[str, JsonValue] = {}
    errors: tuple[FieldProblem, ...] = ()


class PageBody(Value, Generic[Item]):
    """A page of a listing. `next` is a reference (RFC 3986) to the next page, if there is one."""

    items: Sequence[Item]
    offset: int
    limit: int
    next: str | None = None


class EndpointBody(Value):
    """An endpoint. Its secrets are never shown, only whether there are any."""

    endpoint_id: EndpointId
    tenant_id: TenantId
    name: str
    type: str
    config: dict[str, JsonValue]
    has_secrets: bool
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: EndpointRecord) -> EndpointBody:
        """The public part of a record."""
        return cls(
            endpoint_id=record.endpoint_id,
            tenant_id=record.tenant_id,
            name=record.name,
            type=record.type,
            config=record.config,
            has_secrets=record.credential_name is not None,
            version=record.version,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class ConnectionTestBody(Value):
    """Outcome of a connectivity test. The test was made, so the answer is 200 in both cases."""

    endpoint_id: EndpointId
    success: bool
    latency_ms: float | None = None
    server_version: str | None = None
    message: str
    error_code: str | None = None
    tested_at: datetime


class SkippedUnitBody(Value):
    """A unit that the source lists and would not describe."""

    unit_id: UnitId
    error: RunError


class CollectedBody(Value):
    """What a collection put into the catalog. `skipped` names some of the units left out."""

    endpoint_id: EndpointId
    units: int
    skipped_total: int
    skipped: tuple[SkippedUnitBody, ...] = ()


class ProvisionRequest(Value):
    """The model that a sink shall have a table for."""

    cdm_model_id: str


class ProvisionedBody(Value):
    """A model's table in a sink, and the labels of its catalog record."""

    endpoint_id: EndpointId
    cdm_model_id: str
    table_schema: Annotated[str, Field(alias="schema")]
    table: str
    labels: tuple[str, ...]


class RunBody(Value):
    """A run. `progress` is the committed share of its plan, 0 to 1, and None before planning.

    `version` grows with every change; present it as `sinceVersion` to wait for the next one.
    In listings plans are not read, and what comes from them (`slicesTotal`, `estimatedRows`,
    `progress`, `strategy`, `notes`) is None or empty.
    """

    run_id: RunId
    endpoint_id: EndpointId
    unit_id: UnitId
    sink_id: SinkId
    state: RunState
    requested: RunRequest | None
    policy: IngestionPolicy
    staging_provider_id: str
    rows: int
    bytes: int
    slices_committed: int
    slices_total: int | None
    estimated_rows: int | None
    progress: float | None
    strategy: str | None
    notes: tuple[str, ...]
    target: str | None
    error: RunError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    statistics: dict[str, JsonValue]
    version: int

    @classmethod
    def of(cls, run: RunRecord) -> RunBody:
        """The public part of a run."""
        plan, total = run.plan, run.slices_total
        target = None if run.target is None else run.target.get("displayName")
        return cls(
            run_id=run.run_id,
            endpoint_id=run.stream.endpoint_id,
            unit_id=run.stream.unit_id,
            sink_id=run.stream.sink_id,
            state=run.state,
            requested=run.requested,
            policy=run.policy,
            staging_provider_id=run.staging_provider_id,
            rows=run.rows,
            bytes=run.bytes,
            slices_committed=run.through,
            slices_total=total,
            estimated_rows=_estimated_rows(run),
            progress=_progress(run, total),
            strategy=None if plan is None else plan.strategy,
            notes=() if plan is None else plan.notes,
            target=target if isinstance(target, str) else None,
            error=run.error,
            created_at=run.created_at,
            started_at=run.started_at,
            finished_at=run.finished_at,
            statistics=run.statistics,
            version=run.version,
        )


class CheckpointBody(Value):
    """Where a stream stands. `checkpoint` is None before its first commit and after a reset."""

    endpoint_id: EndpointId
    unit_id: UnitId
    sink_id: SinkId
    checkpoint: Checkpoint | None
    state: RunState | None
    last_run_id: RunId | None
    last_completed_run_id: RunId | None

    @classmethod
    def of(
        cls, checkpoint: Checkpoint | None, state: UnitStateRecord | None, **stream: str
    ) -> CheckpointBody:
        """The parts of a stream's state in one body."""
        return cls.model_validate(
            {
                **stream,
                "checkpoint": checkpoint,
                "state": state and state.state,
                "last_run_id": state and state.last_run_id,
                "last_completed_run_id": state and state.last_completed_run_id,
            }
        )


class PluginBody(Value):
    """One plugin. `needs` says how to install what is missing when it is not available."""

    kind: str
    name: str
    available: bool
    needs: str | None = None
    vendor: str | None = None
    config_schema: dict[str, JsonValue] | None = None
    secret_fields: tuple[str, ...] = ()


class HealthBody(Value):
    """`ok`, or the answer is a problem."""

    status: str = "ok"


def _estimated_rows(run: RunRecord) -> int | None:
    if run.plan is None:
        return None
    estimates = [slice_.estimated_rows for slice_ in run.plan.slices]
    known = [estimate for estimate in estimates if estimate is not None]
    return sum(known) if len(known) == len(estimates) else None


def _progress(run: RunRecord, slices_total: int | None) -> float | None:
    if run.state is RunState.COMPLETED:
        return 1.0
    if slices_total is None:
        return None
    return run.through / slices_total if slices_total else 0.0
