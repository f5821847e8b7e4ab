"""The sink actor: writes slices of many runs to their sinks and returns receipts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

import pyarrow as pa
import ray

from matih_ray.control.building import build_sink
from matih_ray.errors import CountMismatchError, StagingLostError
from matih_ray.execution.steps import Step, reached
from matih_ray.execution.tasks import SliceEnd, StagedItem
from matih_ray.execution.worker import process_ports, staging_provider
from matih_ray.model.ids import RunId, SinkId, TenantId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.receipt import WriteReceipt
from matih_ray.model.run import RunError
from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget, SinkEndpoint, SliceWriter
from matih_ray.staging.base import StagingHandle
from matih_ray.telemetry import bind


@dataclass(frozen=True)
class Attempt:
    """One try of one slice, as the sink actor sees it."""

    attempt_id: str
    tenant_id: TenantId
    run_id: RunId
    sink_id: SinkId
    prepared: PreparedTarget
    slice: IngestionSlice


@dataclass(frozen=True)
class SliceResult:
    """A slice that is written and not yet committed. `problem`: it could not be read to its end."""

    receipt: WriteReceipt
    read_s: float
    write_s: float
    problem: RunError | None = None


@dataclass
class _Open:
    """An attempt that has begun; `writer` is there from its first item on."""

    attempt: Attempt
    writer: SliceWriter | None = None
    rows: int = 0
    write_s: float = 0.0
    staged: list[StagingHandle] = field(default_factory=list)


class SinkWorker:
    """Keeps one writer per attempt; calls arrive in the order the planner sent them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sinks: dict[tuple[TenantId, SinkId], SinkEndpoint] = {}
        self._open: dict[str, _Open] = {}

    def pid(self) -> int:
        """The process id; also tells that the actor is up."""
        return os.getpid()

    def begin(self, attempt: Attempt) -> None:
        """Remember an attempt. Its writes only name it: target and slice are too much for each."""
        self._open[attempt.attempt_id] = _Open(attempt)

    def write(self, attempt_id: str, item: StagedItem) -> SliceResult | None:
        """Write one staged item; the `SliceEnd` closes the slice and returns its result.

        Raises:
            SinkError: Writing failed.
            CountMismatchError: Rows read and rows written differ.
            StagingLostError: An earlier write of this attempt failed.
        """
        opened = self._open.get(attempt_id)
        if opened is None:
            raise StagingLostError("this attempt has failed", attempt_id=attempt_id)
        attempt = opened.attempt
        bind(tenant=attempt.tenant_id, run=attempt.run_id, slice=attempt.slice.key)
        try:
            return self._write(opened, item)
        except BaseException:
            self.drop(attempt_id)
            raise

    def drop(self, attempt_id: str) -> None:
        """Forget an attempt and what it wrote. The planner's last call for an attempt."""
        opened = self._open.pop(attempt_id, None)
        if opened is not None and opened.writer is not None:
            opened.writer.abort()

    def _write(self, opened: _Open, item: StagedItem) -> SliceResult | None:
        attempt = opened.attempt
        if opened.writer is None:
            opened.writer = self._sink(attempt).writer(attempt.prepared, attempt.slice)
        started = time.monotonic()
        if isinstance(item, SliceEnd):
            return self._close(opened, opened.writer, item)
        if isinstance(item, StagingHandle):
            provider = staging_provider(self._settings, item.provider_id)
            for batch in provider.open(item).reader().iter_batches():
                self._write_batch(opened, opened.writer, batch)
            opened.staged.append(item)
        else:
            for batch in item.batches:
                self._write_batch(opened, opened.writer, batch)
        opened.write_s += time.monotonic() - started
        return None

    def _write_batch(self, opened: _Open, writer: SliceWriter, batch: pa.RecordBatch) -> None:
        writer.write(batch)
        first = opened.rows == 0
        opened.rows += batch.num_rows
        if first:
            attempt = opened.attempt
            reached(self._settings, Step.WRITING, attempt.run_id, attempt.slice.key)

    def _close(self, opened: _Open, writer: SliceWriter, end: SliceEnd) -> SliceResult:
        started = time.monotonic()
        attempt = opened.attempt
        receipt = writer.close()
        del self._open[attempt.attempt_id]
        written = receipt.rows + receipt.duplicates_dropped + receipt.rows_discarded
        if not end.rows == opened.rows == written:
            raise CountMismatchError(
                f"slice {attempt.slice.key}: {end.rows} rows were read, {opened.rows} staged and "
                f"{written} written",
                slice=attempt.slice.key,
                read=end.rows,
                staged=opened.rows,
                written=written,
            )
        comparable = receipt.checksum is not None and receipt.duplicates_dropped == 0
        if comparable and end.checksum != receipt.checksum:
            raise CountMismatchError(
                f"slice {attempt.slice.key}: the checksum of rows read differs from rows written",
                slice=attempt.slice.key,
            )
        for handle in opened.staged:
            staging_provider(self._settings, handle.provider_id).open(handle).close()
        reached(self._settings, Step.WRITTEN, attempt.run_id, attempt.slice.key)
        write_s = opened.write_s + time.monotonic() - started
        return SliceResult(receipt, end.read_s, write_s, end.problem)

    def _sink(self, attempt: Attempt) -> SinkEndpoint:
        key = (attempt.tenant_id, attempt.sink_id)
        sink = self._sinks.get(key)
        if sink is None:
            ports = process_ports(self._settings)
            sink = self._sinks[key] = build_sink(ports, attempt.tenant_id, attempt.sink_id)
        return sink


# No CPU is reserved: two cores must be enough for readers and writers at once, and a writer only
# works while a reader feeds it.
SinkActor = ray.remote(num_cpus=0, max_restarts=0)(SinkWorker)
