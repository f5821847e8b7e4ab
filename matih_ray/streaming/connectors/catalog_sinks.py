"""The sinks of catalog tables: rows appended to an Iceberg table, once."""

from __future__ import annotations

import pyarrow as pa

from matih_ray.model.ids import RunId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.value import JsonValue, Value
from matih_ray.sinks.base import PreparedTarget, SinkTarget, SliceWriter
from matih_ray.sinks.iceberg import IcebergSink


class Owner(Value):
    """Whose commits these are: the job, which outlives processes, and the process's epoch."""

    job_id: str
    epoch: int = 1


class PreparedCommit(Value):
    """All that a commit needs, by whichever process: what a checkpoint holds of it."""

    target: PreparedTarget
    receipt: WriteReceipt | None
    marker: CommitMarker
    more: tuple[WriteReceipt, ...] = ()

    @property
    def receipts(self) -> list[WriteReceipt]:
        """All that is committed."""
        return ([] if self.receipt is None else [self.receipt]) + list(self.more)


class CatalogSink:
    """Appends to an Iceberg table: a commit for each checkpoint that has rows.

    Each job is a stream of its own, with its own chain of markers: jobs that write to one table do
    not fence each other, and two owners of one job do.
    """

    is_marked = True

    def __init__(self, sink: IcebergSink, target: SinkTarget, owner: Owner) -> None:
        self._sink = sink
        self._owner = owner
        self._prepared = sink.prepare(target)
        self._writer: SliceWriter | None = None
        self.marker = sink.last_marker(self._prepared)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch to data files."""
        if self._writer is None:
            slice_ = IngestionSlice(key=f"commit-{self._sequence}", sequence=self._sequence)
            self._writer = self._sink.writer(self._prepared, slice_)
        self._writer.write(batch)

    def prepare(self, *, always: bool = False) -> JsonValue:
        """Finish the data files; `marker` is then the one that this commit will leave."""
        receipts = self._finished()
        if not receipts and not always:
            return None
        rows = 0 if self.marker is None else self.marker.rows_total
        self.marker = CommitMarker(
            run_id=RunId(self._owner.job_id),
            epoch=self._owner.epoch,
            sequence=self._sequence,
            through=self._sequence,
            rows_total=rows + sum(receipt.rows for receipt in receipts),
        )
        made = PreparedCommit(
            target=self._prepared,
            receipt=receipts[0] if receipts else None,
            marker=self.marker,
            more=tuple(receipts[1:]),
        )
        return made.to_dict()

    def commit(self, prepared: JsonValue) -> None:
        """Append with the marker, or find that this was done."""
        if not isinstance(prepared, dict):
            return
        made = PreparedCommit.from_json(prepared)
        self._sink.commit(made.target, made.receipts, made.marker)
        self.marker = made.marker

    def abort(self) -> None:
        """Drop data files that nobody was told of."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _finished(self) -> list[WriteReceipt]:
        """What was written since the last time."""
        receipts = [] if self._writer is None else [self._writer.close()]
        self._writer = None
        return receipts

    @property
    def _sequence(self) -> int:
        return 1 if self.marker is None else self.marker.sequence + 1
