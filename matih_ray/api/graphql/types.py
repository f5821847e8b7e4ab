"""The types of the GraphQL schema, each made from the value that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NewType, cast

import strawberry
from strawberry.scalars import JSON
from strawberry.types import Info

from matih_ray.api.graphql.context import OperationContext
from matih_ray.api.wire import RunBody
from matih_ray.control.building import DEFAULT_SINK
from matih_ray.control.cdm_sinks import ProvisionedModel
from matih_ray.model.ids import SinkId
from matih_ray.model.preview import Preview
from matih_ray.model.run import RunRecord, RunState
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor, Fidelity
from matih_ray.model.unit_configuration import UnitConfiguration
from matih_ray.model.value import JsonValue
from matih_ray.sources.base import FilterOption
from matih_ray.state.base import UnitStateRecord

Context = Info[OperationContext, None]

# GraphQL's Int ends at 2^31; row and byte counts do not.
BigInt = NewType("BigInt", int)
BIG_INT = strawberry.scalar(
    name="BigInt",
    description="A whole number of any size.",
    serialize=int,
    parse_value=int,
)

IngestionState = strawberry.enum(RunState, name="IngestionState")
ColumnFidelity = strawberry.enum(Fidelity, name="ColumnFidelity")


@strawberry.type(description="One column of a unit, and how its values arrive.")
class IngestionColumn:
    name: str
    native_type: str
    arrow_type: str
    nullable: bool
    fidelity: Fidelity
    encoding: str | None

    @classmethod
    def of(cls, column: ColumnDescriptor) -> IngestionColumn:
        return cls(
            name=column.name,
            native_type=column.native_type,
            arrow_type=column.arrow_type,
            nullable=column.nullable,
            fidelity=column.fidelity,
            encoding=column.encoding,
        )


@strawberry.type(description="Where the loads of one unit into one sink stand.")
class IngestionStatus:
    endpoint_id: strawberry.ID
    unit_id: strawberry.ID
    sink_id: strawberry.ID
    state: RunState
    last_run_id: strawberry.ID
    last_completed_run_id: strawberry.ID | None
    updated_at: datetime

    @classmethod
    def of(cls, record: UnitStateRecord) -> IngestionStatus:
        last = record.last_completed_run_id
        return cls(
            endpoint_id=strawberry.ID(record.stream.endpoint_id),
            unit_id=strawberry.ID(record.stream.unit_id),
            sink_id=strawberry.ID(record.stream.sink_id),
            state=record.state,
            last_run_id=strawberry.ID(record.last_run_id),
            last_completed_run_id=None if last is None else strawberry.ID(last),
            updated_at=record.updated_at,
        )


@strawberry.type(description="What people chose for a unit; version 0 if nobody has.")
class IngestionUnitConfiguration:
    enabled: bool
    sink_id: strawberry.ID | None
    policy: JSON | None
    version: int

    @classmethod
    def of(cls, configuration: UnitConfiguration | None) -> IngestionUnitConfiguration:
        if configuration is None:
            return cls(enabled=True, sink_id=None, policy=None, version=0)
        sink_id, policy = configuration.sink_id, configuration.policy
        return cls(
            enabled=configuration.enabled,
            sink_id=None if sink_id is None else strawberry.ID(sink_id),
            policy=None if policy is None else cast("JSON", policy.to_dict()),
            version=configuration.version,
        )


@strawberry.type(description="One logical dataset of an endpoint, from its catalog.")
class IngestionUnit:
    endpoint_id: strawberry.ID
    unit_id: strawberry.ID
    namespace: str
    name: str
    kind: str
    primary_key: list[str]
    cursor_candidates: list[str]
    estimated_rows: BigInt | None
    estimated_bytes: BigInt | None
    cdm_model_id: str | None
    columns: list[IngestionColumn]
    configuration: IngestionUnitConfiguration
    unit: strawberry.Private[EndpointUnitDescriptor]

    @strawberry.field(description="Null if the unit was never loaded into that sink.")
    def status(self, info: Context, sink_id: strawberry.ID | None = None) -> IngestionStatus | None:
        sink = SinkId(sink_id or DEFAULT_SINK)
        found = info.context.unit_state(self.unit.endpoint_id, self.unit.unit_id, sink)
        return None if found is None else IngestionStatus.of(found)

    @classmethod
    def of(
        cls, unit: EndpointUnitDescriptor, configuration: UnitConfiguration | None
    ) -> IngestionUnit:
        return cls(
            endpoint_id=strawberry.ID(unit.endpoint_id),
            unit_id=strawberry.ID(unit.unit_id),
            namespace=unit.namespace,
            name=unit.name,
            kind=unit.kind,
            primary_key=list(unit.primary_key),
            cursor_candidates=list(unit.cursor_candidates),
            estimated_rows=_big(unit.estimated_rows),
            estimated_bytes=_big(unit.estimated_bytes),
            cdm_model_id=unit.cdm_model_id,
            columns=[IngestionColumn.of(column) for column in unit.columns],
            configuration=IngestionUnitConfiguration.of(configuration),
            unit=unit,
        )


@strawberry.type(description="A page of units; `hasMore` says whether another one follows.")
class IngestionUnitPage:
    items: list[IngestionUnit]
    has_more: bool


@strawberry.type(description="A page of statuses; `hasMore` says whether another one follows.")
class IngestionStatusPage:
    items: list[IngestionStatus]
    has_more: bool


@strawberry.type(description="Somewhere rows can be written to.")
class IngestionSink:
    id: strawberry.ID
    type: str
    name: str
    supported_cdm_models: list[str]


@strawberry.input(description="What to load of a Jira site; all that is given must hold.")
class JiraIngestionFilter:
    project_keys: list[str] | None = None
    statuses: list[str] | None = None
    assignee_ids: list[str] | None = None
    updated_from: datetime | None = None

    def to_dict(self) -> dict[str, JsonValue]:
        """The filter of a policy; what is not given is left out."""
        since = None if self.updated_from is None else self.updated_from.isoformat()
        given: dict[str, list[str] | str | None] = {
            "projectKeys": self.project_keys,
            "statuses": self.statuses,
            "assigneeIds": self.assignee_ids,
            "updatedFrom": since,
        }
        return cast("dict[str, JsonValue]", {k: v for k, v in given.items() if v is not None})


@strawberry.type(description="One choice: what goes into a filter, and its name for people.")
class IngestionFilterOption:
    value: str
    label: str


@strawberry.type(description="The choices for the fields of `JiraIngestionFilter`.")
class JiraIngestionFilterOptions:
    projects: list[IngestionFilterOption]
    statuses: list[IngestionFilterOption]
    users: list[IngestionFilterOption]

    @classmethod
    def of(cls, found: Mapping[str, tuple[FilterOption, ...]]) -> JiraIngestionFilterOptions:
        def options(field: str) -> list[IngestionFilterOption]:
            return [IngestionFilterOption(value=o.value, label=o.label) for o in found[field]]

        return cls(
            projects=options("projectKeys"),
            statuses=options("statuses"),
            users=options("assigneeIds"),
        )


@strawberry.type(description="A model's table in a sink.")
class ProvisionedCdmSink:
    sink_endpoint_id: strawberry.ID
    cdm_model_id: str
    schema: str
    table: str
    labels: list[str]

    @classmethod
    def of(cls, made: ProvisionedModel) -> ProvisionedCdmSink:
        return cls(
            sink_endpoint_id=strawberry.ID(made.sink_id),
            cdm_model_id=made.cdm_model_id,
            schema=made.table.namespace,
            table=made.table.name,
            labels=[] if made.dataset is None else list(made.dataset.labels),
        )


@strawberry.type(description="A column of a preview.")
class PreviewColumn:
    name: str
    arrow_type: str


@strawberry.type(description="Rows as lists of values, in the order of `columns`.")
class DatasetPreview:
    columns: list[PreviewColumn]
    rows: list[JSON]

    @classmethod
    def of(cls, preview: Preview) -> DatasetPreview:
        columns = [
            PreviewColumn(name=one.name, arrow_type=one.arrow_type) for one in preview.columns
        ]
        return cls(columns=columns, rows=[cast("JSON", list(row)) for row in preview.rows])


@strawberry.type(description="Why a run failed.")
class IngestionError:
    code: str
    message: str


@strawberry.type(description="One execution of a unit.")
class IngestionRun:
    run_id: strawberry.ID
    endpoint_id: strawberry.ID
    unit_id: strawberry.ID
    sink_id: strawberry.ID
    state: RunState
    rows: BigInt
    bytes: BigInt
    slices_committed: int
    slices_total: int | None
    progress: float | None
    strategy: str | None
    policy: JSON
    error: IngestionError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, run: RunRecord) -> IngestionRun:
        body = RunBody.of(run)
        error = body.error
        return cls(
            run_id=strawberry.ID(body.run_id),
            endpoint_id=strawberry.ID(body.endpoint_id),
            unit_id=strawberry.ID(body.unit_id),
            sink_id=strawberry.ID(body.sink_id),
            state=body.state,
            rows=BigInt(body.rows),
            bytes=BigInt(body.bytes),
            slices_committed=body.slices_committed,
            slices_total=body.slices_total,
            progress=body.progress,
            strategy=body.strategy,
            policy=cast("JSON", body.policy.to_dict()),
            error=None if error is None else IngestionError(code=error.code, message=error.message),
            created_at=body.created_at,
            started_at=body.started_at,
            finished_at=body.finished_at,
        )


@strawberry.type(description="A stream: its status, its last run and its checkpoint.")
class IngestionStream:
    status: IngestionStatus | None
    last_run: IngestionRun | None
    cursor: JSON | None


def _big(number: int | None) -> BigInt | None:
    return None if number is None else BigInt(number)
