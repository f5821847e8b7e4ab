"""Queries and mutations; the names are those of the ingestion specification."""

from __future__ import annotations

from typing import Annotated, cast

import strawberry
from graphql.validation import MaxIntrospectionDepthRule
from pydantic import SecretStr
from strawberry.extensions import (
    AddValidationRules,
    MaxAliasesLimiter,
    MaxTokensLimiter,
    QueryDepthLimiter,
)
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig

from matih_ray.api.graphql.knowledge import KnowledgeQuery
from matih_ray.api.graphql.types import (
    BIG_INT,
    BigInt,
    Context,
    DatasetPreview,
    IngestionRun,
    IngestionSink,
    IngestionStatus,
    IngestionStatusPage,
    IngestionStream,
    IngestionUnit,
    IngestionUnitPage,
    JiraIngestionFilter,
    JiraIngestionFilterOptions,
    ProvisionedCdmSink,
)
from matih_ray.control import catalog, checkpoints, runs
from matih_ray.control import ingestion_sinks as sinks
from matih_ray.control import ingestion_statuses as statuses
from matih_ray.control import unit_configurations as configurations
from matih_ray.control.building import DEFAULT_SINK
from matih_ray.control.cdm_sinks import provision_cdm_sink
from matih_ray.control.filters import filter_options
from matih_ray.control.loads import LoadRequest
from matih_ray.control.pages import MAX_PAGE_ITEMS
from matih_ray.control.previews import DEFAULT_ROWS, MAX_ROWS, preview_connection, preview_unit
from matih_ray.control.unit_configurations import UnitChange
from matih_ray.errors import ValidationError
from matih_ray.model.ids import EndpointId, RunId, SinkId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.value import JsonValue

# What one operation may cost. The deepest useful query has six levels; an alias is a field again,
# and each may be a page; a token is a word of the query.
MAX_DEPTH = 10
MAX_ALIASES = 15
MAX_TOKENS = 2000

Id = strawberry.ID
Limit = Annotated[int, strawberry.argument(description=f"1 to {MAX_PAGE_ITEMS}")]
Sink = Annotated[Id | None, strawberry.argument(description="`iceberg` if not given")]


@strawberry.type
class Query(KnowledgeQuery):
    @strawberry.field(
        description="Units of an endpoint's catalog that may be loaded, ordered by id."
    )
    def ingestion_units(
        self,
        info: Context,
        endpoint_id: Id,
        pattern: str | None = None,
        *,
        include_disabled: bool = False,
        offset: int = 0,
        limit: Limit = 100,
    ) -> IngestionUnitPage:
        of = info.context
        _check_page(offset, limit)
        page = catalog.list_units(
            of.principal,
            of.ports,
            of.tenant_id,
            EndpointId(endpoint_id),
            pattern=pattern,
            include_disabled=include_disabled,
            offset=offset,
            limit=limit,
        )
        known = configurations.configurations_of(
            of.principal,
            of.ports,
            of.tenant_id,
            EndpointId(endpoint_id),
            [unit.unit_id for unit in page.items],
        )
        units = [IngestionUnit.of(unit, known.get(unit.unit_id)) for unit in page.items]
        return IngestionUnitPage(items=units, has_more=page.has_more)

    @strawberry.field(description="States of streams that were ever loaded, newest change last.")
    def ingestion_statuses(
        self, info: Context, endpoint_id: Id | None = None, offset: int = 0, limit: Limit = 100
    ) -> IngestionStatusPage:
        of = info.context
        _check_page(offset, limit)
        page = statuses.list_statuses(
            of.principal,
            of.ports,
            of.tenant_id,
            endpoint_id=None if endpoint_id is None else EndpointId(endpoint_id),
            offset=offset,
            limit=limit,
        )
        found = [IngestionStatus.of(state) for state in page.items]
        return IngestionStatusPage(items=found, has_more=page.has_more)

    @strawberry.field(description="One stream: its status, its last run and its checkpoint.")
    def ingestion_status(
        self, info: Context, endpoint_id: Id, unit_id: Id, sink_id: Sink = None
    ) -> IngestionStream:
        of = info.context
        state = checkpoints.get_checkpoint(
            of.principal,
            of.ports,
            of.tenant_id,
            EndpointId(endpoint_id),
            UnitId(unit_id),
            SinkId(sink_id or DEFAULT_SINK),
        )
        unit_state, checkpoint = state.unit_state, state.checkpoint
        run = None
        if unit_state is not None:
            run = runs.get_run(of.principal, of.ports, of.tenant_id, unit_state.last_run_id)
        return IngestionStream(
            status=None if unit_state is None else IngestionStatus.of(unit_state),
            last_run=None if run is None else IngestionRun.of(run),
            cursor=None if checkpoint is None else cast("JSON", checkpoint.cursor),
        )

    @strawberry.field(description="One run.")
    def ingestion_run(self, info: Context, run_id: Id) -> IngestionRun:
        of = info.context
        return IngestionRun.of(runs.get_run(of.principal, of.ports, of.tenant_id, RunId(run_id)))

    @strawberry.field(
        description="Some rows of a unit, through the readers of a run: of an endpoint's catalog, "
        "or of a source that is not registered, by its `connectionUrl`, which is not stored."
    )
    def preview_metadata_dataset(
        self,
        info: Context,
        endpoint_id: Id | None = None,
        unit_id: Id | None = None,
        policy: JSON | None = None,
        limit: Annotated[int, strawberry.argument(description=f"1 to {MAX_ROWS}")] = DEFAULT_ROWS,
        connection_url: str | None = None,
    ) -> DatasetPreview:
        of = info.context
        if not 1 <= limit <= MAX_ROWS:
            raise ValidationError(f"limit must be 1 to {MAX_ROWS}", field="limit")
        chosen, unit = _policy(policy), None if unit_id is None else UnitId(unit_id)
        if connection_url is not None and endpoint_id is None:
            url = SecretStr(connection_url)
            found = preview_connection(
                of.principal, of.ports, of.tenant_id, url, unit, chosen, limit=limit
            )
            return DatasetPreview.of(found)
        if endpoint_id is None or unit is None or connection_url is not None:
            raise ValidationError(
                "give endpointId and unitId, or connectionUrl", field="connectionUrl"
            )
        request = LoadRequest(endpoint_id=EndpointId(endpoint_id), unit_id=unit, policy=chosen)
        found = preview_unit(of.principal, of.ports, of.tenant_id, request, limit=limit)
        return DatasetPreview.of(found)

    @strawberry.field(
        description="What a filter of a Jira site's units may choose from, as it is there now."
    )
    def jira_ingestion_filter_options(
        self, info: Context, endpoint_id: Id
    ) -> JiraIngestionFilterOptions:
        of = info.context
        found = filter_options(of.principal, of.ports, of.tenant_id, EndpointId(endpoint_id))
        return JiraIngestionFilterOptions.of(found)

    @strawberry.field(description="Built-in sinks, and the tenant's own.")
    def ingestion_sinks(self, info: Context) -> list[IngestionSink]:
        of = info.context
        return [
            IngestionSink(
                id=Id(sink.sink_id),
                type=sink.type,
                name=sink.name,
                supported_cdm_models=list(sink.supported_cdm_models),
            )
            for sink in sinks.list_sinks(of.principal, of.ports, of.tenant_id)
        ]


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Queue a run. With an idempotency key, repeating it gives the same run."
    )
    def start_ingestion(
        self,
        info: Context,
        endpoint_id: Id,
        unit_id: Id,
        sink_id: Sink = None,
        staging_provider_id: Id | None = None,
        policy: JSON | None = None,
        idempotency_key: str | None = None,
    ) -> IngestionRun:
        of = info.context
        request = LoadRequest(
            endpoint_id=EndpointId(endpoint_id),
            unit_id=UnitId(unit_id),
            sink_id=None if sink_id is None else SinkId(sink_id),
            policy=_policy(policy),
            staging_provider_id=staging_provider_id,
        )
        started = runs.start_run(
            of.principal, of.ports, of.tenant_id, request, idempotency_key=idempotency_key
        )
        return IngestionRun.of(started)

    @strawberry.mutation(
        description="Choose whether a unit may be loaded, and sink and policy of runs that name "
        "none. What is not given stays; a policy replaces the one before as a whole."
    )
    def configure_ingestion_unit(
        self,
        info: Context,
        endpoint_id: Id,
        unit_id: Id,
        *,
        enabled: bool | None = None,
        sink_id: Id | None = None,
        policy: JSON | None = None,
        filter: JiraIngestionFilter | None = None,  # noqa: A002 the specification's name
        version: int | None = None,
    ) -> IngestionUnit:
        of = info.context
        endpoint, unit = EndpointId(endpoint_id), UnitId(unit_id)
        chosen_policy = _policy(policy)
        if filter is not None:
            chosen_policy = (chosen_policy or IngestionPolicy()).model_copy(
                update={"filter": filter.to_dict()}
            )
        change = UnitChange(
            enabled=enabled,
            sink_id=None if sink_id is None else SinkId(sink_id),
            policy=chosen_policy,
            version=version,
        )
        chosen = configurations.configure_unit(
            of.principal, of.ports, of.tenant_id, endpoint, unit, change
        )
        found = catalog.get_unit(of.principal, of.ports, of.tenant_id, endpoint, unit)
        return IngestionUnit.of(found, chosen)

    @strawberry.mutation(
        description="Make a CDM sink ready for a model: its table is created or extended, and "
        "noted in the catalog. Repeating it changes nothing."
    )
    def provision_cdm_sink(
        self, info: Context, sink_endpoint_id: Id, cdm_model_id: str
    ) -> ProvisionedCdmSink:
        of = info.context
        made = provision_cdm_sink(
            of.principal, of.ports, of.tenant_id, SinkId(sink_endpoint_id), cdm_model_id
        )
        return ProvisionedCdmSink.of(made)

    @strawberry.mutation(description="Stop the stream's active run behind its last commit.")
    def pause_ingestion(
        self, info: Context, endpoint_id: Id, unit_id: Id, sink_id: Sink = None
    ) -> IngestionRun:
        of = info.context
        run = statuses.last_run(
            of.principal,
            of.ports,
            of.tenant_id,
            EndpointId(endpoint_id),
            UnitId(unit_id),
            SinkId(sink_id or DEFAULT_SINK),
        )
        return IngestionRun.of(runs.pause_run(of.principal, of.ports, of.tenant_id, run))

    @strawberry.mutation(
        description="Forget a stream's checkpoint; false if there was none. Rows in the sink stay."
    )
    def reset_ingestion_checkpoint(
        self, info: Context, endpoint_id: Id, unit_id: Id, sink_id: Sink = None
    ) -> bool:
        of = info.context
        return checkpoints.reset_checkpoint(
            of.principal,
            of.ports,
            of.tenant_id,
            EndpointId(endpoint_id),
            UnitId(unit_id),
            SinkId(sink_id or DEFAULT_SINK),
        )


class _QuietSchema(strawberry.Schema):
    """Errors are logged where they are shown; the library would log values of variables."""

    def process_errors(self, *_: object) -> None:
        pass


SCHEMA = _QuietSchema(
    query=Query,
    mutation=Mutation,
    extensions=[
        lambda: QueryDepthLimiter(max_depth=MAX_DEPTH),
        # which leaves introspection out, where types lead to fields and these to types again
        lambda: AddValidationRules([MaxIntrospectionDepthRule]),
        lambda: MaxAliasesLimiter(max_alias_count=MAX_ALIASES),
        lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS),
    ],
    config=StrawberryConfig(scalar_map={BigInt: BIG_INT}),
)


def _check_page(offset: int, limit: int) -> None:
    if offset < 0:
        raise ValidationError("offset must not be negative", field="offset")
    if not 1 <= limit <= MAX_PAGE_ITEMS:
        raise ValidationError(f"limit must be 1 to {MAX_PAGE_ITEMS}", field="limit")


def _policy(given: object) -> IngestionPolicy | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ValidationError("policy must be an object", field="policy")
    return IngestionPolicy.from_json(cast("dict[str, JsonValue]", given))
