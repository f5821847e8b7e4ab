"""The Confluence source endpoint."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import (
    DatabaseNotFoundError,
    PartUnreadableError,
    PlanError,
    SourceChangedError,
    SourcePermissionError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import DataMode, IngestionPolicy, RunMode, WriteMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.atlassian.connection import SECRET_FIELDS
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext
from matih_ray.sources.confluence.config import ConfluenceConfig
from matih_ray.sources.confluence.planning import (
    CURSOR,
    find_spaces,
    plan_comments,
    plan_labels,
    plan_pages,
    plan_spaces,
)
from matih_ray.sources.confluence.reading import (
    comment_rows,
    label_rows,
    link_rows,
    page_rows,
    revision_rows,
    space_rows,
)
from matih_ray.sources.confluence.schemas import CDM_MODELS, ID, SCHEMAS
from matih_ray.sources.confluence.site import ConfluenceSite
from matih_ray.sources.confluence.slices import (
    AnySlice,
    CommentsSlice,
    LabelsSlice,
    SpacesSlice,
    UnreadableSlice,
    parse,
)
from matih_ray.sources.declared import (
    Row,
    check_described,
    described,
    page_of,
    record_batches,
    schema_of,
    selected_schema,
)

PAGES, REVISIONS, LINKS = "confluence.pages", "confluence.revisions", "confluence.links"
COMMENTS, SPACES = "confluence.comments", "confluence.spaces"
# The seed's bounds of a slice of pages.
MIN_SLICE_PAGES = 100
_OF_PAGES = {PAGES: page_rows, REVISIONS: revision_rows, LINKS: link_rows}
_WHOLE = frozenset({SPACES, "confluence.labels"})


class ConfluenceSource:
    """One site of Confluence Cloud."""

    type: ClassVar[str] = "CONFLUENCE"
    vendor: ClassVar[str] = "http.confluence"
    config_model: ClassVar[builtins.type[Value]] = ConfluenceConfig
    secret_fields: ClassVar[tuple[str, ...]] = SECRET_FIELDS

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `ConfluenceConfig`, or a secret is
                missing.
        """
        self._endpoint_id = spec.endpoint_id
        self._site = ConfluenceSite(spec, ConfluenceConfig.from_json(dict(spec.config)))

    def test(self) -> ConnectionTest:
        """Log in and look for the spaces, over a new connection."""
        self._site.close()
        started = time.monotonic()
        self._site.check()
        elapsed_ms = (time.monotonic() - started) * 1000
        find_spaces(self._site)
        return ConnectionTest(latency_ms=elapsed_ms, server_version="Confluence Cloud, API v2")

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """The units of `schemas`; `context.pattern` is a glob on the id.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        return [self.describe_unit(UnitId(name)) for name in page_of(SCHEMAS, context)]

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One unit with its columns."""
        schema = schema_of(SCHEMAS, unit_id)
        return described(self._endpoint_id, unit_id, schema, (ID,), CDM_MODELS.get(unit_id))

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The schema of every batch.

        Raises:
            ValidationError: The policy's columns do not fit the unit.
        """
        schema = schema_of(SCHEMAS, unit.unit_id)
        check_described(schema, unit)
        return selected_schema(schema, unit, policy)

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Slices of at most `pagesPerSlice` pages, or `target_slice_size` if that is less but not
        fewer than 100; see `planning`.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
            PlanError: The unit has no such mode.
        """
        self._check(unit, policy, target_slice_size)
        if unit.unit_id == COMMENTS:
            return plan_comments(self._site, unit, checkpoint)
        spaces = find_spaces(self._site)
        if unit.unit_id == SPACES:
            return plan_spaces(self._site, unit, spaces)
        if unit.unit_id in _OF_PAGES:
            most = self._site.config.pages_per_slice
            size = max(min(target_slice_size, most), MIN_SLICE_PAGES)
            return plan_pages(self._site, unit, spaces, checkpoint, size)
        return plan_labels(self._site, unit, spaces)

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice."""
        schema = self.read_schema(unit, policy)
        params = parse(slice_)
        try:
            yield from record_batches(schema, self._rows(unit, params))
        except (SourcePermissionError, DatabaseNotFoundError) as error:
            # it could be read when the slice was planned
            if slice_.part is None:
                raise SourceChangedError(error.message, unit_id=unit.unit_id) from None
            raise PartUnreadableError(error.message, part=slice_.part) from None

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._site.close()

    def _rows(self, unit: EndpointUnitDescriptor, params: AnySlice) -> Iterator[Row]:
        if isinstance(params, UnreadableSlice):
            raise PartUnreadableError(params.reason, part=params.space)
        if isinstance(params, CommentsSlice):
            return comment_rows(self._site, params)
        if isinstance(params, SpacesSlice):
            return space_rows(self._site, params)
        if isinstance(params, LabelsSlice):
            return label_rows(self._site, params)
        return _OF_PAGES[unit.unit_id](self._site, params)

    def _check(
        self, unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int
    ) -> None:
        if target_rows <= 0:
            raise ValidationError(
                f"the target slice size is a number of rows above 0, not {target_rows}",
                field="targetSliceRows",
            )
        if policy.filter is not None:
            raise ValidationError("this source has no filters; use spaceKeys", field="filter")
        if policy.run_mode is RunMode.CDC:
            raise PlanError(f"{unit.unit_id}: this source has no cdc mode", unit_id=unit.unit_id)
        if policy.cursor_column not in (None, CURSOR):
            raise PlanError(
                f"{unit.unit_id} has windows of its own and no cursor column", unit_id=unit.unit_id
            )
        incremental = policy.run_mode is RunMode.INCREMENTAL
        merges = policy.write_mode is WriteMode.MERGE or policy.mode is DataMode.CDM
        if unit.unit_id in _WHOLE and incremental and not merges:
            raise PlanError(
                f"{unit.unit_id} is always read whole; use a full run, or writeMode merge",
                unit_id=unit.unit_id,
            )
        self.read_schema(unit, policy)
