"""The Jira source endpoint."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import PlanError, UnknownUnitError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor, Fidelity
from matih_ray.model.value import Value
from matih_ray.sources.atlassian.connection import SECRET_FIELDS, connect
from matih_ray.sources.base import ConnectionTest, EndpointSpec, FilterOption, IngestionContext
from matih_ray.sources.jira import jql, options
from matih_ray.sources.jira.api import JiraApi
from matih_ray.sources.jira.config import JiraConfig, JiraFilter
from matih_ray.sources.jira.planning import Planned, plan_whole, plan_windows, plan_worklogs
from matih_ray.sources.jira.reading import read_rows, whole_ids
from matih_ray.sources.jira.rows import batches
from matih_ray.sources.jira.schemas import (
    CDM_MODELS,
    DELETED,
    ID,
    RAW,
    SCHEMAS,
    VERSION,
    is_json,
)
from matih_ray.sources.jira.slices import parse

_WINDOWED = frozenset({"issues", "comments", "changelogs", "issue_links"})
_NEEDED = (ID, VERSION, DELETED)


class JiraSource:
    """One Jira Cloud site."""

    type: ClassVar[str] = "JIRA"
    vendor: ClassVar[str] = "http.jira"
    config_model: ClassVar[builtins.type[Value]] = JiraConfig
    filter_model: ClassVar[builtins.type[Value]] = JiraFilter
    secret_fields: ClassVar[tuple[str, ...]] = SECRET_FIELDS

    def __init__(self, spec: EndpointSpec) -> None:
        """Check configuration and credentials; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `JiraConfig`, or a secret is missing.
        """
        self._config = JiraConfig.from_json(dict(spec.config))
        self._endpoint_id = spec.endpoint_id
        self._client = connect(spec, self._config)

    def test(self) -> ConnectionTest:
        """Ask who we are, over a new connection, and look whether a search is understood."""
        self._client.close()
        api = self._api()
        started = time.monotonic()
        site = api.myself(max_retries=0)
        elapsed_ms = (time.monotonic() - started) * 1000
        api.count(f"updated >= {jql.at_or_before(site.now, site.zone)}")
        return ConnectionTest(latency_ms=elapsed_ms, server_version=api.version())

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """All units, ordered by id; `context.pattern` is a glob on it.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        names = sorted(SCHEMAS)
        if context.pattern is not None:
            names = [name for name in names if fnmatchcase(name, context.pattern)]
        page = names[context.offset : context.offset + context.limit]
        return [self.describe_unit(UnitId(name)) for name in page]

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One unit with its columns."""
        schema = SCHEMAS.get(unit_id)
        if schema is None:
            raise UnknownUnitError(
                f"Jira has no unit {unit_id}; it has {', '.join(sorted(SCHEMAS))}",
                unit_id=str(unit_id),
            )
        namespace, _, name = unit_id.partition(".")
        return EndpointUnitDescriptor(
            endpoint_id=self._endpoint_id,
            unit_id=unit_id,
            namespace=namespace,
            name=name,
            kind="objects",
            columns=tuple(_described(field) for field in schema),
            primary_key=(ID,),
            cursor_candidates=(VERSION,),
            cdm_model_id=CDM_MODELS.get(unit_id),
        )

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The unit's schema, or the policy's columns of it.

        Raises:
            ValidationError: The policy's columns or encodings do not fit the unit.
        """
        schema = SCHEMAS[self.describe_unit(unit.unit_id).unit_id]
        if policy.encodings:
            raise ValidationError("Jira's columns have no other encodings", field="encodings")
        if policy.columns is None:
            return schema
        wrong = [name for name in policy.columns if name not in schema.names]
        missing = [name for name in _NEEDED if name not in policy.columns]
        if wrong or missing:
            problem = f"has no column {wrong[0]!r}" if wrong else f"needs column {missing[0]!r}"
            raise ValidationError(f"{unit.unit_id} {problem}", field="columns")
        return pa.schema([field for field in schema if field.name in policy.columns])

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Slices of about `target_slice_size` issues at most; see `planning`.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
            PlanError: There is no such mode or cursor.
        """
        filter_ = self._check(unit, policy, target_slice_size)
        planned = Planned(
            api=self._api(),
            config=self._config,
            filter=filter_,
            unit=unit,
            target_rows=target_slice_size,
            overlap_s=max(policy.lookback, self._config.overlap_s),
            merges=policy.effective_write_mode is WriteMode.MERGE,
        )
        if unit.name in _WINDOWED:
            return plan_windows(planned, checkpoint)
        if unit.name == "worklogs":
            return plan_worklogs(planned, checkpoint)
        return plan_whole(planned, checkpoint, whole_ids(planned.api, unit.name))

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice."""
        schema = self.read_schema(unit, policy)
        rows = read_rows(
            self._api(), unit.name, parse(slice_), _filter_of(policy), with_raw=RAW in schema.names
        )
        yield from batches(rows, schema)

    def filter_options(self) -> dict[str, tuple[FilterOption, ...]]:
        """What each field of a filter may choose from, as the site has it now."""
        return options.filter_options(self._api())

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._client.close()

    def _api(self) -> JiraApi:
        return JiraApi(self._client, self._config.base_url, self._config.limits)

    def _check(
        self, unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int
    ) -> JiraFilter:
        if target_rows <= 0:
            raise ValidationError(
                f"the target slice size is a number of rows above 0, not {target_rows}",
                field="targetSliceRows",
            )
        if policy.run_mode is RunMode.CDC or policy.exact_count:
            what = "cdc mode" if policy.run_mode is RunMode.CDC else "exact count"
            raise PlanError(f"{unit.unit_id}: Jira has no {what}", unit_id=unit.unit_id)
        if policy.cursor_column not in (None, VERSION):
            raise PlanError(
                f"{unit.unit_id} has no cursor {policy.cursor_column}; it has {VERSION}",
                unit_id=unit.unit_id,
                column=policy.cursor_column,
            )
        self.read_schema(unit, policy)
        return _filter_of(policy)


def _filter_of(policy: IngestionPolicy) -> JiraFilter:
    filter_ = JiraFilter.from_json(dict(policy.filter or {}))
    if filter_.updated_from is not None:
        jql.position(filter_.updated_from, "filter.updatedFrom")
    return filter_


def _described(field: pa.Field) -> ColumnDescriptor:
    is_text = is_json(field.name)
    return ColumnDescriptor(
        name=field.name,
        native_type="JSON" if is_text else str(field.type),
        arrow_type=str(field.type),
        fidelity=Fidelity.ENCODED if is_text else Fidelity.EXACT,
        encoding="JSON text" if is_text else None,
    )
