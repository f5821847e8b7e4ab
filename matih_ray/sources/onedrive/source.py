"""The OneDrive source endpoint."""

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
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext
from matih_ray.sources.declared import (
    Row,
    check_described,
    described,
    page_of,
    record_batches,
    schema_of,
    selected_schema,
)
from matih_ray.sources.onedrive.config import OneDriveConfig
from matih_ray.sources.onedrive.graph import Graph
from matih_ray.sources.onedrive.planning import CURSOR, find_drives, plan_drives, plan_items
from matih_ray.sources.onedrive.reading import feed_rows, missing_rows, subtree_rows
from matih_ray.sources.onedrive.rows import drive_row
from matih_ray.sources.onedrive.schemas import CDM_MODELS, ID, SCHEMAS
from matih_ray.sources.onedrive.slices import (
    AnySlice,
    DrivesSlice,
    FeedSlice,
    MissingSlice,
    SubtreeSlice,
    parse,
)

ITEMS = "onedrive.items"


class OneDriveSource:
    """Drives of one Microsoft 365 directory."""

    type: ClassVar[str] = "ONEDRIVE"
    vendor: ClassVar[str] = "http.onedrive"
    config_model: ClassVar[builtins.type[Value]] = OneDriveConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("clientSecret",)

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `OneDriveConfig`, or the secret is
                missing.
        """
        self._endpoint_id = spec.endpoint_id
        self._graph = Graph(spec, OneDriveConfig.from_json(dict(spec.config)))

    def test(self) -> ConnectionTest:
        """Get a token and look for the drives, over a new connection."""
        self._graph.close()
        started = time.monotonic()
        find_drives(self._graph)
        elapsed_ms = (time.monotonic() - started) * 1000
        return ConnectionTest(latency_ms=elapsed_ms, server_version="Microsoft Graph v1.0")

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Drives and items; `context.pattern` is a glob on the id.

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
        """Slices of about `target_slice_size` items; see `planning`.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
            PlanError: The unit has no such mode.
        """
        self._check(unit, policy, target_slice_size)
        drives = find_drives(self._graph)
        if unit.unit_id == ITEMS:
            return plan_items(self._graph, unit, drives, checkpoint, target_slice_size)
        return plan_drives(unit, drives, self._graph.seen_ms)

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice."""
        schema = self.read_schema(unit, policy)
        params = parse(slice_)
        try:
            yield from record_batches(schema, self._rows(params))
        except (SourcePermissionError, DatabaseNotFoundError) as error:
            # it could be read when the slice was planned
            if slice_.part is None:
                raise SourceChangedError(error.message, unit_id=unit.unit_id) from None
            raise PartUnreadableError(error.message, part=slice_.part) from None

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._graph.close()

    def _rows(self, params: AnySlice) -> Iterator[Row]:
        if isinstance(params, DrivesSlice):
            drives = find_drives(self._graph)
            return (drive_row(drive, params.seen_ms) for drive in drives.found.values())
        if isinstance(params, FeedSlice):
            return feed_rows(self._graph, params)
        if isinstance(params, SubtreeSlice):
            return subtree_rows(self._graph, params)
        if isinstance(params, MissingSlice):
            return missing_rows(self._graph, params)
        raise PartUnreadableError(params.reason, part=params.drive)

    def _check(
        self, unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int
    ) -> None:
        if target_rows <= 0:
            raise ValidationError(
                f"the target slice size is a number of rows above 0, not {target_rows}",
                field="targetSliceRows",
            )
        if policy.filter is not None:
            raise ValidationError("this source has no filters", field="filter")
        if policy.run_mode is RunMode.CDC:
            raise PlanError(f"{unit.unit_id}: this source has no cdc mode", unit_id=unit.unit_id)
        if policy.cursor_column not in (None, CURSOR):
            raise PlanError(
                f"{unit.unit_id} has an order of its own and no cursor column", unit_id=unit.unit_id
            )
        incremental = policy.run_mode is RunMode.INCREMENTAL
        merges = policy.write_mode is WriteMode.MERGE or policy.mode is DataMode.CDM
        if unit.unit_id != ITEMS and incremental and not merges:
            raise PlanError(
                f"{unit.unit_id} is always read whole; use a full run, or writeMode merge",
                unit_id=unit.unit_id,
            )
        self.read_schema(unit, policy)
