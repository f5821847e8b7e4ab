"""The endpoint that all stores share."""

from __future__ import annotations

import builtins
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import (
    PlanError,
    SourceChangedError,
    SourcePermissionError,
    SourceRejectedError,
    UnknownUnitError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN, IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor, Fidelity
from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, IngestionContext
from matih_ray.sources.files.catalog import unit_of
from matih_ray.sources.files.config import FilesConfig
from matih_ray.sources.files.failures import mapped_errors
from matih_ray.sources.files.formats import coalesced, part_batches
from matih_ray.sources.files.incremental import plan_new_files
from matih_ray.sources.files.listing import FileSet, file_set, file_sets, folder_of, list_files
from matih_ray.sources.files.slices import FilesSlice, divided, grouped, make_slice, parse
from matih_ray.sources.files.store import ObjectStore, check_unchanged
from matih_ray.sources.files.types import LINEAGE, parsed

LISTED = "files-listed"
# Looked through for one that is not empty, as markers of folders are.
TESTED_FILES = 10


class FileSource(ABC):
    """Datasets of one bucket. A store's class opens the `ObjectStore` and says what it needs."""

    type: ClassVar[str]
    config_model: ClassVar[builtins.type[Value]]
    secret_fields: ClassVar[tuple[str, ...]]

    def __init__(self, endpoint_id: EndpointId, bucket: str, config: FilesConfig) -> None:
        """Check declared types; nothing is connected yet."""
        self._endpoint_id = endpoint_id
        self._bucket = bucket
        self._config = config
        self._store: ObjectStore | None = None
        names = [dataset.name for dataset in config.datasets]
        if len(set(names)) < len(names):
            raise ValidationError("two datasets have one name", field="datasets.name")
        for dataset in config.datasets:
            for column, text in dataset.columns.items():
                parsed(text, column)

    @abstractmethod
    def open_store(self) -> ObjectStore:
        """A new client with the connector's own credentials."""

    def test(self) -> ConnectionTest:
        """List the folder and read a byte of its first file, which needs both permissions."""
        store = self.open_store()
        started = time.monotonic()
        try:
            page = store.list_files(folder_of(self._config.prefix), limit=TESTED_FILES)
            file = next((file for file in islice(page, TESTED_FILES) if file.size), None)
            if file is not None:
                store.read(file, 0, 1)
        finally:
            store.close()
        latency_ms = (time.monotonic() - started) * 1000
        return ConnectionTest(latency_ms=latency_ms, server_version=self._version())

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Datasets in order; `context.pattern` is a glob on the name. One whose files disagree is
        listed without columns; describing it says why.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        sets = self._sets()
        names = sorted(sets)
        if context.pattern is not None:
            names = [name for name in names if fnmatchcase(name, context.pattern)]
        page = names[context.offset : context.offset + context.limit]
        return [self._listed(sets[name]) for name in page]

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One dataset with its columns and estimates, from a sample of its files."""
        return self._described(file_set(self._sets(), unit_id), look=True)

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The schema of every batch, from the unit's types alone.

        Raises:
            ValidationError: The policy's columns do not fit the unit.
        """
        if policy.encodings:
            raise ValidationError(
                "this source has no encodings; declare types in the dataset", field="encodings"
            )
        refused = {column.name for column in unit.columns if column.fidelity is Fidelity.REFUSED}
        loaded = {column.name for column in unit.columns} - refused
        wanted = loaded if policy.columns is None else set(policy.columns)
        if wanted - loaded:
            name = min(wanted - loaded)
            why = "cannot be loaded" if name in refused else "does not exist"
            raise ValidationError(
                f"column {name!r} of {unit.unit_id} {why}", field="columns", column=name
            )
        if wanted <= set(LINEAGE) < loaded:
            raise ValidationError(
                f"choose a column of {unit.unit_id} besides {', '.join(LINEAGE)}", field="columns"
            )
        chosen = [column for column in unit.columns if column.name in wanted]
        return pa.schema([pa.field(c.name, parsed(c.arrow_type, c.name)) for c in chosen])

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Groups of files of about `target_slice_size` rows.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
        """
        self._check(unit, policy, target_slice_size)
        found = self._present(unit)
        if policy.run_mode is RunMode.INCREMENTAL or policy.cursor_column is not None:
            return plan_new_files(unit, found, checkpoint, policy, target_slice_size)
        with mapped_errors(f"planning {unit.unit_id}"):
            target = max(target_slice_size, (unit.estimated_rows or 0) * 2 // MAX_SLICES_PER_PLAN)
            parts = divided(self._opened(), unit, found.files, target)
            slices = tuple(
                make_slice(sequence, group, rows)
                for sequence, (group, rows) in enumerate(grouped(parts, target))
            )
        return IngestionPlan(
            endpoint_id=unit.endpoint_id,
            unit_id=unit.unit_id,
            slices=slices,
            strategy=LISTED,
            statistics={
                "totalFiles": len(found.files),
                "totalBytes": sum(file.size for file in found.files),
            },
            notes=found.notes,
        )

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice; each file is read only as it was planned."""
        schema = self.read_schema(unit, policy)
        with mapped_errors(f"reading {unit.unit_id}"):
            yield from coalesced(self._batches(unit, parse(slice_), schema), schema)

    def close(self) -> None:
        """Close the client. Safe to call twice."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _batches(
        self, unit: EndpointUnitDescriptor, params: FilesSlice, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        store = self._opened()
        dataset = file_sets((), self._config).get(unit.unit_id)
        for part in params.parts:
            found = dataset or file_sets([part.file], self._config)[unit.unit_id]
            check_unchanged(store, part.file)
            yield from part_batches(store, part, unit, found.dataset, schema)

    def _opened(self) -> ObjectStore:
        if self._store is None:
            self._store = self.open_store()
        return self._store

    def _sets(self) -> dict[str, FileSet]:
        return file_sets(list_files(self._opened(), self._config.prefix), self._config)

    def _listed(self, found: FileSet) -> EndpointUnitDescriptor:
        try:
            return self._described(found, look=True)
        except SourceRejectedError as error:
            # a damaged or forbidden dataset is not the others' fault; a wrong key is
            if builtins.type(error) not in (SourceRejectedError, SourcePermissionError):
                raise
            return self._described(found, look=False)

    def _described(self, found: FileSet, *, look: bool) -> EndpointUnitDescriptor:
        with mapped_errors(f"describing {found.dataset.name}"):
            return unit_of(self._opened(), self._bucket, found, self._endpoint_id, look=look)

    def _present(self, unit: EndpointUnitDescriptor) -> FileSet:
        try:
            found = file_set(self._sets(), unit.unit_id)
        except UnknownUnitError:
            raise SourceChangedError(
                f"{unit.unit_id} is gone since it was described", unit_id=unit.unit_id
            ) from None
        found.check_one_format()
        return found

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
            raise PlanError(
                f"{unit.unit_id}: this source has no cdc mode; use full or incremental",
                unit_id=unit.unit_id,
            )
        self.read_schema(unit, policy)

    @abstractmethod
    def _version(self) -> str:
        """The store's name and version, for people."""
