"""The slice task: reads one slice and yields its batches to whoever called it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import ray

from matih_ray.control.building import build_source
from matih_ray.errors import PartUnreadableError
from matih_ray.execution.steps import Step, reached
from matih_ray.execution.worker import process_ports, settle, staging_provider
from matih_ray.mappers import apply_cdm
from matih_ray.mappers.expressions import Origin
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.ids import EndpointId, RunId, TenantId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import DataMode, IngestionPolicy, Verify
from matih_ray.model.run import RunError
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.registry import Registry
from matih_ray.settings import Settings
from matih_ray.staging.base import StagingHandle
from matih_ray.staging.object_store import ObjectStoreStaging
from matih_ray.telemetry import bind

# Yielded but unconsumed batches at which a slice task pauses: enough to hide one round trip to the
# planner and one slow write, at most 20 MB of shared memory a slice.
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class SliceTask:
    """What a slice task is told: names and values, never rows, never secrets."""

    tenant_id: TenantId
    run_id: RunId
    endpoint_id: EndpointId
    unit: EndpointUnitDescriptor
    slice: IngestionSlice
    policy: IngestionPolicy
    staging_provider_id: str
    vendor: str


@dataclass(frozen=True)
class SliceEnd:
    """The last thing a slice task yields: what it read, to be compared with what was written.

    `problem` says why the slice's part of the unit could not be read, or not to its end.
    """

    rows: int
    bytes: int
    read_s: float
    checksum: str | None = None
    problem: RunError | None = None


StagedItem: TypeAlias = pa.RecordBatch | StagingHandle | SliceEnd


def read_slice(settings: Settings, task: SliceTask) -> Iterator[StagedItem]:
    """Yield a slice's batches (or one handle to them), then a `SliceEnd`.

    Raises:
        SourceError: Reading failed.
        StagingError: The staging provider failed.
    """
    bind(tenant=task.tenant_id, run=task.run_id, slice=task.slice.key)
    started = time.monotonic()
    ports = process_ports(settings)
    source = build_source(ports, task.tenant_id, task.endpoint_id)
    settle()
    try:
        read = source.read(task.unit, task.slice, task.policy)
        batches = _Counted(mapped(ports.registry, task, read), settings, task)
        if task.staging_provider_id == ObjectStoreStaging.provider_id:
            yield from batches  # Ray stores what a task yields; the caller owns it
        else:
            session = staging_provider(settings, task.staging_provider_id).allocate(task.slice.key)
            writer = session.writer()
            for batch in batches:
                writer.write_batch(batch)
            yield session.handle
    finally:
        source.close()
    yield batches.end(time.monotonic() - started)


def mapped(
    plugins: Registry, task: SliceTask, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The batches as the run wants them: as they are, or in the canonical data model.

    Raises:
        MappingError: A batch has no form in the model.
    """
    if task.policy.mode is not DataMode.CDM:
        yield from batches
        return
    origin = Origin(
        tenant_id=task.tenant_id,
        endpoint_id=task.endpoint_id,
        family=task.vendor,
        unit_id=task.unit.unit_id,
        run_id=task.run_id,
    )
    for batch in batches:
        yield apply_cdm(plugins, origin, batch, task.unit.cdm_model_id)


class _Counted:
    """Counts, and fingerprints where asked, the batches that pass through."""

    def __init__(
        self, batches: Iterator[pa.RecordBatch], settings: Settings, task: SliceTask
    ) -> None:
        self._batches = batches
        self._settings = settings
        self._run_id = task.run_id
        self._slice_key = task.slice.key
        self._rows = 0
        self._bytes = 0
        self._problem: RunError | None = None
        self._sum = Fingerprint() if task.policy.verify is Verify.CHECKSUM else None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._readable():
            first = self._rows == 0
            self._rows += batch.num_rows
            self._bytes += batch.nbytes
            if self._sum is not None:
                self._sum = self._sum.add(batch)
            yield batch
            if first:
                reached(self._settings, Step.READING, self._run_id, self._slice_key)

    def _readable(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        except PartUnreadableError as error:
            self._problem = RunError.of(error)

    def end(self, read_s: float) -> SliceEnd:
        return SliceEnd(
            rows=self._rows,
            bytes=self._bytes,
            read_s=read_s,
            checksum=None if self._sum is None else str(self._sum),
            problem=self._problem,
        )


# Retries are the failure policy's, not Ray's: Ray would repeat a slice without its budget, and
# could replay half of a generator into a writer that already has the first half.
remote_read_slice = ray.remote(
    max_retries=0,
    num_returns="streaming",
    _generator_backpressure_num_objects=BATCHES_AHEAD,
)(read_slice)
