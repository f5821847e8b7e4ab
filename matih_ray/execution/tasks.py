"""The slice task: reads one slice and yields its batches to whoever called it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias, TypeVar

import pyarrow as pa
import ray

from matih_ray.control.building import build_source
from matih_ray.errors import PartUnreadableError
from matih_ray.execution.steps import Step, reached
from matih_ray.execution.worker import process_ports, settle, staging_provider
from matih_ray.mappers import apply_cdm, find_mapper
from matih_ray.mappers.expressions import Origin
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.ids import EndpointId, RunId, TenantId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import DataMode, IngestionPolicy, Verify
from matih_ray.model.run import RunError
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.registry import Registry
from matih_ray.settings import Settings
from matih_ray.sources.batching import gathered
from matih_ray.staging.base import StagingHandle
from matih_ray.staging.object_store import ObjectStoreStaging
from matih_ray.telemetry import bind

# Batches go on together until they are this large: an object takes some 10 ms of CPU (planner, sink
# and Ray), which is what 20,000 rows of lineitem take to be written.
STAGED_BYTES = 12 * 1024 * 1024
# They do not wait for the rest of them longer than until the first batch that comes after this.
STAGED_S = 0.25
# Yielded but unconsumed objects at which a slice task pauses: enough to hide one round trip to the
# planner and one slow write. With those that the sink is writing (`WRITES_AHEAD`) a slice has three
# objects at a time, each of about `STAGED_BYTES` and a batch more: some 50 MB.
STAGED_AHEAD = 1


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
class StagedBatches:
    """Batches that go on together."""

    batches: tuple[pa.RecordBatch, ...]


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


Item = TypeVar("Item")
StagedItem: TypeAlias = StagedBatches | StagingHandle | SliceEnd


def read_slice(settings: Settings, task: SliceTask) -> Iterator[StagedItem]:
    """Yield a slice's batches, some together (or one handle to them), then a `SliceEnd`.

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
        read = source.read(task.unit, task.slice, reading_policy(ports.registry, task))
        batches = _Counted(mapped(ports.registry, task, read), task.policy)
        if task.staging_provider_id == ObjectStoreStaging.provider_id:
            yield from announced(together(batches), settings, task)
        else:
            session = staging_provider(settings, task.staging_provider_id).allocate(task.slice.key)
            writer = session.writer()
            for batch in announced(iter(batches), settings, task):
                writer.write_batch(batch)
            yield session.handle
    finally:
        source.close()
    yield batches.end(time.monotonic() - started)


def reading_policy(plugins: Registry, task: SliceTask) -> IngestionPolicy:
    """The run's policy, with the columns that its mapper needs if it has one, and those by which
    its source knows rows and goes through them."""
    policy = task.policy
    if policy.mode is not DataMode.CDM:
        return policy
    mapper = find_mapper(plugins, task.vendor, task.unit.unit_id)
    if mapper is None:
        return policy
    unit = task.unit
    needed = {*mapper.reads, *unit.primary_key, *unit.cursor_candidates, *task.slice.dedupe_on}
    columns = tuple(one.name for one in unit.columns if one.name in needed)
    return policy.model_copy(update={"columns": columns})


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


def together(batches: Iterable[pa.RecordBatch]) -> Iterator[StagedBatches]:
    """The batches in their order, in objects of about `STAGED_BYTES` or of what came meanwhile."""
    groups = gathered(batches, attrgetter("nbytes"), STAGED_BYTES, STAGED_S)
    return map(StagedBatches, map(tuple, groups))


def announced(items: Iterator[Item], settings: Settings, task: SliceTask) -> Iterator[Item]:
    """The items; that reading has begun is said once the first of them is used."""
    is_first = True
    for item in items:
        # Ray stores what a task yields, and the caller owns it: no variable may keep it here. And
        # Ray sends to its generator, which an iterator behind `yield from` could not take
        held = [item]
        del item
        yield held.pop()
        if is_first:
            reached(settings, Step.READING, task.run_id, task.slice.key)
            is_first = False


class _Counted:
    """Counts, and fingerprints where asked, the batches that pass through."""

    def __init__(self, batches: Iterator[pa.RecordBatch], policy: IngestionPolicy) -> None:
        self._batches = batches
        self._rows = 0
        self._bytes = 0
        self._problem: RunError | None = None
        self._sum = Fingerprint() if policy.verify is Verify.CHECKSUM else None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._readable():
            self._rows += batch.num_rows
            self._bytes += batch.nbytes
            if self._sum is not None:
                self._sum = self._sum.add(batch)
            yield batch

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
    _generator_backpressure_num_objects=STAGED_AHEAD,
)(read_slice)
