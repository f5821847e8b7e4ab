"""The DynamoDB source endpoint."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import PlanError, SourceChangedError, UnknownUnitError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.aws_failures import mapped_errors
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext
from matih_ray.sources.documents.batches import record_batches
from matih_ray.sources.documents.columns import arrow_schema, selected_columns
from matih_ray.sources.dynamodb.catalog import described, table_names, table_of
from matih_ray.sources.dynamodb.config import DynamoConfig
from matih_ray.sources.dynamodb.incremental import plan_incremental
from matih_ray.sources.dynamodb.session import Sessions
from matih_ray.sources.dynamodb.slices import make_slices, parse, scan_request
from matih_ray.sources.dynamodb.types import DIALECT

SEGMENTS = "dynamodb-segments"
# The version of the protocol, which is all that the service says about itself.
SERVER_VERSION = "DynamoDB 2012-08-10"


class Unheld:
    """What a run of a filtered scan holds while it reads: nothing, DynamoDB has no snapshots. That
    there is one makes the run commit once, at its end."""

    def bind(self, slice_: IngestionSlice) -> IngestionSlice:
        """The slice as it is."""
        return slice_

    def close(self) -> None:
        """Nothing to release."""


class DynamoSource:
    """The tables of one AWS account in one region."""

    type: ClassVar[str] = "DYNAMODB"
    vendor: ClassVar[str] = "nosql.dynamodb"
    config_model: ClassVar[builtins.type[Value]] = DynamoConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("accessKeyId", "secretAccessKey", "sessionToken")

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `DynamoConfig`.
        """
        self._endpoint_id = spec.endpoint_id
        self._sessions = Sessions(spec)

    def test(self) -> ConnectionTest:
        """List one table, which connects, authenticates and needs a permission."""
        return ConnectionTest(latency_ms=self._sessions.ping(), server_version=SERVER_VERSION)

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Tables in order; `context.pattern` is a glob on the name. Columns come from the key and
        one page of each table on the page.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        with mapped_errors(f"listing tables of {self._sessions.address}"):
            names = table_names(self._sessions)
            if context.pattern is not None:
                names = [name for name in names if fnmatchcase(name, context.pattern)]
            page = names[context.offset : context.offset + context.limit]
            return [described(self._sessions, UnitId(name), self._endpoint_id) for name in page]

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One table with its columns and estimates."""
        with mapped_errors(f"describing {unit_id}"):
            return described(self._sessions, unit_id, self._endpoint_id)

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The schema of every batch, from the unit's native types alone.

        Raises:
            ValidationError: The policy's columns or encodings do not fit the unit.
        """
        return arrow_schema(selected_columns(DIALECT, unit, policy))

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Segments of about `target_slice_size` items by the service's own count.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
        """
        _check(unit, policy, target_slice_size)
        with mapped_errors(f"planning {unit.unit_id}"):
            rows = self._present_rows(unit)
            if policy.run_mode is RunMode.INCREMENTAL or policy.cursor_column is not None:
                return plan_incremental(self._sessions, unit, checkpoint, policy, target_slice_size)
        return IngestionPlan(
            endpoint_id=unit.endpoint_id,
            unit_id=unit.unit_id,
            slices=tuple(make_slices(rows, target_slice_size)),
            strategy=SEGMENTS,
            statistics={"totalRows": rows, "totalBytes": unit.estimated_bytes},
        )

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one segment."""
        columns = selected_columns(DIALECT, unit, policy)
        whole = any(column.without is not None for column in columns)
        names = None if whole else tuple(column.name for column in columns)
        request = scan_request(unit.unit_id, parse(slice_), names)
        with mapped_errors(f"reading {unit.unit_id}"):
            pages = self._sessions.scan(**request)
            yield from record_batches(DIALECT, columns, unit.unit_id, pages)

    def hold_snapshot(self, plan: IngestionPlan) -> Unheld:  # noqa: ARG002 the protocol's
        """See `Unheld`."""
        return Unheld()

    def close(self) -> None:
        """Close the client's connections. Safe to call twice."""
        self._sessions.close()

    def _present_rows(self, unit: EndpointUnitDescriptor) -> int:
        """The estimated items of a table that was there when the unit was described."""
        try:
            return int(table_of(self._sessions, unit.unit_id).get("ItemCount", 0))
        except UnknownUnitError:
            raise SourceChangedError(
                f"{unit.unit_id} is gone since it was described", unit_id=unit.unit_id
            ) from None


def _check(unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int) -> None:
    if target_rows <= 0:
        raise ValidationError(
            f"the target slice size is a number of rows above 0, not {target_rows}",
            field="targetSliceRows",
        )
    if policy.filter is not None:
        raise ValidationError("this source has no filters", field="filter")
    if policy.run_mode is RunMode.CDC:
        raise PlanError(
            f"{unit.unit_id}: this source has no cdc mode; use full or incremental",
            unit_id=unit.unit_id,
        )
    selected_columns(DIALECT, unit, policy)
