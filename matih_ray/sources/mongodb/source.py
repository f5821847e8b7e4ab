"""The MongoDB source endpoint."""

from __future__ import annotations

import builtins
from collections.abc import Generator, Iterator
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import pyarrow as pa

from matih_ray.errors import PlanError, SourceChangedError, UnknownUnitError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.base import (
    TARGET_BATCH_BYTES,
    ConnectionTest,
    EndpointSpec,
    IngestionContext,
)
from matih_ray.sources.documents.batches import record_batches
from matih_ray.sources.documents.columns import (
    SelectedColumn,
    arrow_schema,
    selected_columns,
)
from matih_ray.sources.mongodb.catalog import described, listed_collection, listed_collections
from matih_ray.sources.mongodb.config import MongoConfig
from matih_ray.sources.mongodb.failures import mapped_errors
from matih_ray.sources.mongodb.full import plan_full
from matih_ray.sources.mongodb.incremental import CursorScan, plan_incremental
from matih_ray.sources.mongodb.session import MongoCollection, MongoDocument, Sessions, decoded
from matih_ray.sources.mongodb.slices import ID, Query, parse, query
from matih_ray.sources.mongodb.types import DIALECT

# Documents in one answer of the server, which ends an answer at 16 MB anyway. More small ones would
# not be faster.
MAX_PAGE_DOCUMENTS = 5000


class MongoSource:
    """One MongoDB database: collections, views and time series."""

    type: ClassVar[str] = "MONGODB"
    vendor: ClassVar[str] = "nosql.mongodb"
    config_model: ClassVar[builtins.type[Value]] = MongoConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password",)

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `MongoConfig`.
        """
        self._endpoint_id = spec.endpoint_id
        self._sessions = Sessions(spec)

    def test(self) -> ConnectionTest:
        """Connect and log in, with a new client, and look for the database."""
        latency_ms, version = self._sessions.ping()
        return ConnectionTest(latency_ms=latency_ms, server_version=f"MongoDB {version}")

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Collections that the user may see, ordered by id; `context.pattern` is a glob on the id.

        Columns come from a bounded sample of each collection on the page.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        database = self._sessions.database()
        with mapped_errors(f"listing collections of {self._sessions.address}"):
            found = listed_collections(database)
            if context.pattern is not None:
                ids = [f"{database.name}.{entry.name}" for entry in found]
                pairs = zip(ids, found, strict=True)
                found = [entry for id_, entry in pairs if fnmatchcase(id_, context.pattern)]
            page = found[context.offset : context.offset + context.limit]
            return [described(database, entry, self._endpoint_id) for entry in page]

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One collection with the columns of its sample, and estimates."""
        database = self._sessions.database()
        with mapped_errors(f"describing {unit_id}"):
            return described(database, listed_collection(database, unit_id), self._endpoint_id)

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
        """Slices of about `target_slice_size` documents; see `full` and `incremental` for how.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
        """
        _check(unit, policy, target_slice_size)
        with mapped_errors(f"planning {unit.unit_id}"):
            collection = self._present(unit)
            if policy.run_mode is RunMode.INCREMENTAL or policy.cursor_column is not None:
                # a full load with a cursor is cut by it, so that incremental runs can go on there
                scan = CursorScan.of(collection, unit, policy)
                plan = plan_incremental(scan, checkpoint, policy, target_slice_size)
                counted = query(scan.range(plan.statistics["lower"], plan.statistics["upper"]))  # type: ignore[arg-type]  # texts that the plan was made with
            else:
                plan, counted = plan_full(collection, unit, target_slice_size), {}
            return _counted(collection, plan, counted) if policy.exact_count else plan

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice."""
        params = parse(slice_)
        columns = selected_columns(DIALECT, unit, policy)
        with mapped_errors(f"reading {unit.unit_id}"):
            collection = self._present(unit)
            pages = _pages(collection, query(params), _projection(columns), _page_documents(unit))
            try:
                yield from record_batches(DIALECT, columns, unit.unit_id, pages)
            finally:
                pages.close()

    def close(self) -> None:
        """Close the client. Safe to call twice."""
        self._sessions.close()

    def _present(self, unit: EndpointUnitDescriptor) -> MongoCollection:
        """The collection of a unit, if it is still there: a query of one that is gone finds
        nothing and is no error to the server."""
        database = self._sessions.database()
        try:
            found = listed_collection(database, unit.unit_id)
        except UnknownUnitError:
            raise SourceChangedError(
                f"{unit.unit_id} is gone since it was described", unit_id=unit.unit_id
            ) from None
        return database[found.name]


def _check(unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int) -> None:
    if target_rows <= 0:
        raise ValidationError(
            f"the target slice size is a number of rows above 0, not {target_rows}",
            field="targetSliceRows",
        )
    if policy.filter is not None:
        raise ValidationError(
            "this source has no filters; make a view and ingest that", field="filter"
        )
    if policy.run_mode is RunMode.CDC:
        raise PlanError(
            f"{unit.unit_id}: this source has no cdc mode; use full or incremental",
            unit_id=unit.unit_id,
        )
    selected_columns(DIALECT, unit, policy)


def _counted(collection: MongoCollection, plan: IngestionPlan, counted: Query) -> IngestionPlan:
    """The plan with the exact number of documents in its slices' ranges."""
    rows = collection.count_documents(counted)
    return plan.model_copy(update={"statistics": {**plan.statistics, "exactRows": rows}})


def _projection(columns: tuple[SelectedColumn, ...]) -> dict[str, Any] | None:
    """Only the columns that are read; None for whole documents, which `_extra` is made of."""
    if any(column.without is not None for column in columns):
        return None
    names = {column.name: True for column in columns}
    return names if ID in names else {**names, ID: False}


def _pages(
    collection: MongoCollection, condition: Query, projection: dict[str, Any] | None, size: int
) -> Generator[Iterator[MongoDocument], None, None]:
    """Documents by answers of the server, decoded one by one as they are taken."""
    cursor = collection.find_raw_batches(condition, projection, batch_size=size)
    with cursor:
        for batch in cursor:
            yield decoded(batch)


def _page_documents(unit: EndpointUnitDescriptor) -> int:
    """Documents of about a batch's bytes."""
    if not unit.estimated_rows or not unit.estimated_bytes:
        return MAX_PAGE_DOCUMENTS
    average = max(1, unit.estimated_bytes // unit.estimated_rows)
    return max(1, min(MAX_PAGE_DOCUMENTS, TARGET_BATCH_BYTES // average))
