"""Runs a logical plan in this process: chunks are pulled from sources through operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from matih_ray.errors import StreamRowError
from matih_ray.streaming.connectors.sources import open_source
from matih_ray.streaming.operators import END_COLUMN, START, Chunk, WindowOperator
from matih_ray.streaming.sql.plan import Calc, Node, Scan, Union, WindowAggregation
from matih_ray.streaming.watermarks import BEGINNING, END, Watermarks
from matih_ray.streaming.windows import Times

# Rows that operators are given at once: large enough that the cost of a call vanishes.
CHUNK_ROWS = 128 * 1024
_ONLY = "0"  # a bounded source is read as one partition, as Flink's is with parallelism 1


@dataclass
class Counts:
    """What happened to rows: read, unreadable and left out, late."""

    read: int = 0
    bad: int = 0
    late: int = 0


@dataclass
class Pipeline:
    """One plan being run. `on_late` gets the late rows' keys, arguments and `event_time`."""

    on_late: Callable[[pa.RecordBatch], None] = lambda _: None
    counts: Counts = field(default_factory=Counts)

    def run(self, node: Node) -> Iterator[Chunk]:
        """The chunks of a plan, the last one with the end of time as its watermark."""
        if isinstance(node, Scan):
            return self._scan(node)
        if isinstance(node, Calc):
            return self._calc(node)
        if isinstance(node, Union):
            return self._union(node)
        return self._windows(node)

    def _scan(self, scan: Scan) -> Iterator[Chunk]:
        read = open_source(scan.table, scan.physical)
        watermarks = Watermarks.of([_ONLY])
        for whole in read.batches:
            for start in range(0, whole.num_rows, CHUNK_ROWS):
                batch = _computed(scan, whole.slice(start, CHUNK_ROWS))
                self.counts.read += batch.num_rows
                met = watermarks.advance(_ONLY, _marks(scan, batch))
                yield Chunk(batch, met, watermarks.current)
        self.counts.bad += read.counts["bad"]
        empty = pa.schema([(name, kind.arrow) for name, kind in scan.schema.items()])
        yield _last(empty)

    def _calc(self, calc: Calc) -> Iterator[Chunk]:
        names = list(calc.projections)
        for chunk in self.run(calc.input):
            batch, met = chunk.batch, chunk.met
            if calc.predicate is not None and batch.num_rows:
                mask = calc.predicate.evaluate(batch).fill_null(False)  # noqa: FBT003 - Arrow's
                batch, met = batch.filter(mask), met[mask.to_numpy(zero_copy_only=False)]
            if batch.num_rows:
                columns = [one.evaluate(batch) for one in calc.projections.values()]
                batch = pa.record_batch(columns, names=names)
            else:
                fields = [(name, one.type.arrow) for name, one in calc.projections.items()]
                batch = _empty(pa.schema(fields))
            yield Chunk(batch, met, chunk.after)

    def _union(self, union: Union) -> Iterator[Chunk]:
        """In turns, so that one input does not run ahead; the watermark is the lowest of them."""
        inputs = [self.run(one) for one in union.inputs]
        reached = [BEGINNING] * len(inputs)
        while min(reached) < END:
            for number, chunks in enumerate(inputs):
                if reached[number] == END:
                    continue
                chunk = next(chunks)
                others = min((mark for at, mark in enumerate(reached) if at != number), default=END)
                reached[number] = chunk.after
                yield Chunk(chunk.batch, np.minimum(chunk.met, others), min(reached))

    def _windows(self, node: WindowAggregation) -> Iterator[Chunk]:
        operator = WindowOperator(node.spec, node.keys, node.aggregates)
        schema = pa.schema([(name, kind.arrow) for name, kind in node.schema.items()])
        for chunk in self.run(node.input):
            closed = operator.process(chunk)
            if closed.late is not None:
                self.counts.late += closed.late.num_rows
                self.on_late(closed.late)
            if closed.windows is not None:
                for batch in _timed(closed.windows).cast(schema).to_batches(CHUNK_ROWS):
                    yield Chunk(batch, np.full(batch.num_rows, BEGINNING), BEGINNING)
        yield _last(schema)


def _computed(scan: Scan, batch: pa.RecordBatch) -> pa.RecordBatch:
    if not scan.computed:
        return batch
    values = {name: one.evaluate(batch) for name, one in scan.computed.items()}
    columns = [values[name] if name in values else batch.column(name) for name in scan.schema]
    return pa.record_batch(columns, names=list(scan.schema))


def _marks(scan: Scan, batch: pa.RecordBatch) -> Times:
    """What each row's own watermark would be, in milliseconds."""
    if scan.watermark is None or scan.time is None:
        return np.full(batch.num_rows, BEGINNING)
    if batch.column(scan.time).null_count:
        raise StreamRowError(
            f"a row of {'.'.join(scan.table.path)} has NULL in its time attribute {scan.time}"
        )
    marks = scan.watermark.evaluate(batch)
    milliseconds = marks.cast(pa.timestamp("ms", tz=marks.type.tz), safe=False).cast(pa.int64())
    found: Times = milliseconds.fill_null(BEGINNING).to_numpy()
    return found


def _timed(windows: pa.Table) -> pa.Table:
    for name in (START, END_COLUMN):
        place = windows.column_names.index(name)
        windows = windows.set_column(place, name, windows.column(name).cast(pa.timestamp("ms")))
    return windows


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([pa.array([], one.type) for one in schema], schema=schema)


def _last(schema: pa.Schema) -> Chunk:
    return Chunk(_empty(schema), np.empty(0, np.int64), END)
