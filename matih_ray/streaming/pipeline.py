"""A logical plan at work in this process: readers push chunks through operators to one place.

Pushed and not pulled, so that between two turns nothing is under way: then positions, watermarks
and the operators' states belong together, which is all that a checkpoint needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import pyarrow as pa

from matih_ray.errors import SqlNotSupportedError, StreamRowError
from matih_ray.model.value import JsonValue
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.connectors.opening import reader_of
from matih_ray.streaming.connectors.options import duration_ms
from matih_ray.streaming.connectors.reader import BadRow, Polled
from matih_ray.streaming.operators import (
    END_COLUMN,
    START,
    Chunk,
    Kinds,
    State,
    WindowOperator,
)
from matih_ray.streaming.sql.plan import Calc, Node, Scan, Union, WindowAggregation
from matih_ray.streaming.watermarks import BEGINNING, END, Watermarks
from matih_ray.streaming.windows import Times

# Rows that operators are given at once: large enough that the cost of a call vanishes.
CHUNK_ROWS = 128 * 1024
# A partition that has had nothing for so long does not hold windows back. Much longer than a
# producer pauses, short beside the windows that people wait for. 0 is never, as in Flink.
IDLE_TIMEOUT_MS = 60_000
_IDLE = "scan.watermark.idle-timeout"

Push = Callable[[Chunk], None]


@dataclass
class Counts:
    """What happened to rows: read, unreadable and left out, late."""

    read: int = 0
    bad: int = 0
    late: int = 0


@dataclass(frozen=True)
class Aside:
    """Who is told of rows that are left out: late ones (keys, arguments and `event_time`), and
    unreadable ones with their table and partition."""

    late: Callable[[pa.RecordBatch], None] = lambda _: None
    bad: Callable[[str, str, Sequence[BadRow]], None] = lambda _table, _partition, _rows: None


class Stateful(Protocol):
    """A part of a pipeline that must be as it was when a job goes on."""

    def snapshot(self) -> State:
        """What it needs to go on."""

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""


@dataclass
class Pipeline:
    """One plan being run; `output` gets its rows, and at last the end of time as watermark.

    `parts` are what a checkpoint holds, by names that stay the same while the plan does.
    """

    node: Node
    output: Push
    policy: HostPolicy = field(default_factory=HostPolicy)
    aside: Aside = field(default_factory=Aside)
    counts: Counts = field(default_factory=Counts)
    sources: list[ScanStep] = field(default_factory=list)
    parts: dict[str, Stateful] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._build(self.node, self.output)

    @property
    def ended(self) -> bool:
        """Whether all rows there will ever be have been pushed."""
        return all(source.ended for source in self.sources)

    def open(self) -> None:
        """Begin, at the tables' start or where `restore` said."""
        for source in self.sources:
            source.open()

    def turn(self, timeout_s: float) -> int:
        """Take what has come from each source in turn; returns how many rows that were."""
        waiting = [source for source in self.sources if not source.ended]
        return sum(source.turn(timeout_s / len(waiting)) for source in waiting)

    def close(self) -> None:
        """Release connections."""
        for source in self.sources:
            source.reader.close()

    def _build(self, node: Node, push: Push) -> None:
        if isinstance(node, Scan):
            step = ScanStep(node, self, push)
            self.sources.append(step)
            self.parts[f"source-{len(self.sources)}"] = step
        elif isinstance(node, Calc):
            self._build(node.input, lambda chunk: push(_calculated(node, chunk)))
        elif isinstance(node, Union):
            union = _UnionStep(push, [BEGINNING] * len(node.inputs))
            self.parts[f"union-{len(self.parts)}"] = union
            for number, one in enumerate(node.inputs):
                self._build(one, partial(union.take, number))
        else:
            window = _WindowStep(node, self, push)
            self.parts[f"window-{len(self.parts)}"] = window
            self._build(node.input, window.take)


class ScanStep:
    """A table being read: its reader, its partitions' watermarks, and who is idle."""

    def __init__(self, scan: Scan, pipeline: Pipeline, push: Push) -> None:
        self.scan = scan
        self.reader = reader_of(scan, pipeline.policy)
        self.watermarks = Watermarks({})
        self.ended = False
        self._pipeline = pipeline
        self._push = push
        self._idle_s = duration_ms(scan.table, _IDLE, IDLE_TIMEOUT_MS) / 1000
        self._moved_s: dict[str, float] = {}
        self._positions: dict[str, JsonValue] | None = None
        self._empty = pa.schema([(name, kind.arrow) for name, kind in scan.schema.items()])
        self._sent = BEGINNING

    def open(self) -> None:
        """Begin to read."""
        self.reader.open(self._positions)
        self.watermarks.add(self.reader.partitions())

    def turn(self, timeout_s: float) -> int:
        """Poll once, and push what came."""
        polled = self.reader.poll(CHUNK_ROWS, timeout_s)
        self.watermarks.add(self.reader.partitions())
        now = time.monotonic()
        parts = [part for one in polled if (part := self._part(one, now)) is not None]
        self._judge_idle(now)
        for name in self.reader.finished():
            self.watermarks.finish(name)
        self.ended = len(self.reader.finished()) == len(self.watermarks.partitions)
        after = END if self.ended else self.watermarks.current
        if parts:
            self._push(_joined(parts, after))
        elif after > self._sent:
            self._push(Chunk(_empty(self._empty), np.empty(0, np.int64), after))
        self._sent = after
        return sum(len(part.met) for part in parts)

    def snapshot(self) -> State:
        """Positions and watermarks."""
        return State(
            value={
                "table": ".".join(self.scan.table.path),
                "positions": self.reader.positions(),
                "watermarks": dict(self.watermarks.partitions),
                "reached": self.watermarks.current,
            }
        )

    def restore(self, state: State) -> None:
        """Go on behind the positions; called before `open`."""
        assert isinstance(state.value, dict)  # noqa: S101 - written by `snapshot`
        positions, marks = state.value["positions"], state.value["watermarks"]
        assert isinstance(positions, dict)  # noqa: S101 - as above
        assert isinstance(marks, dict)  # noqa: S101 - as above
        self._positions = positions
        found = {name: int(str(mark)) for name, mark in marks.items()}
        self.watermarks = Watermarks(found, reached=int(str(state.value["reached"])))

    def _part(self, polled: Polled, now: float) -> Chunk | None:
        counts, name = self._pipeline.counts, polled.partition
        if polled.bad:
            counts.bad += len(polled.bad)
            self._pipeline.aside.bad(".".join(self.scan.table.path), name, polled.bad)
        if polled.batch.num_rows == 0:
            return None
        self._moved_s[name] = now
        batch = _computed(self.scan, polled.batch)
        counts.read += batch.num_rows
        met = self.watermarks.advance(name, _marks(self.scan, batch))
        kinds = None if polled.kinds is None else polled.kinds.to_numpy()
        return Chunk(batch, met, BEGINNING, kinds)

    def _judge_idle(self, now: float) -> None:
        for name in self.reader.caught_up():
            quiet_s = now - self._moved_s.setdefault(name, now)
            if self._idle_s and quiet_s >= self._idle_s:
                self.watermarks.idle.add(name)


@dataclass
class _UnionStep:
    """The watermark is the lowest of the inputs'."""

    push: Push
    reached: list[int]

    def take(self, number: int, chunk: Chunk) -> None:
        others = min((mark for at, mark in enumerate(self.reached) if at != number), default=END)
        self.reached[number] = max(self.reached[number], chunk.after)
        met = np.minimum(chunk.met, others)
        self.push(Chunk(chunk.batch, met, min(self.reached), chunk.kinds))

    def snapshot(self) -> State:
        return State(value=list(self.reached))

    def restore(self, state: State) -> None:
        assert isinstance(state.value, list)  # noqa: S101 - written by `snapshot`
        self.reached[:] = [int(str(mark)) for mark in state.value]


class _WindowStep:
    """Windows that close go on, late rows aside."""

    def __init__(self, node: WindowAggregation, pipeline: Pipeline, push: Push) -> None:
        self._operator = WindowOperator(node.spec, node.keys, node.aggregates)
        self._schema = pa.schema([(name, kind.arrow) for name, kind in node.schema.items()])
        self._keys = pa.schema([(name, node.schema[name].arrow) for name in node.keys])
        self._pipeline = pipeline
        self._push = push

    def take(self, chunk: Chunk) -> None:
        if chunk.kinds is not None and chunk.kinds.any():
            raise SqlNotSupportedError(
                "windows over a table whose rows are updated or deleted are not supported",
                clause="GROUP BY",
            )
        closed = self._operator.process(chunk)
        if closed.late is not None:
            self._pipeline.counts.late += closed.late.num_rows
            self._pipeline.aside.late(closed.late)
        if closed.windows is not None:
            for batch in _timed(closed.windows).cast(self._schema).to_batches(CHUNK_ROWS):
                self._push(Chunk(batch, np.full(batch.num_rows, BEGINNING), BEGINNING))
        if chunk.after == END:
            self._push(Chunk(_empty(self._schema), np.empty(0, np.int64), END))

    def snapshot(self) -> State:
        return self._operator.snapshot(self._keys)

    def restore(self, state: State) -> None:
        self._operator.restore(state)


def _calculated(calc: Calc, chunk: Chunk) -> Chunk:
    batch, met, kinds = chunk.batch, chunk.met, chunk.kinds
    if calc.predicate is not None and batch.num_rows:
        mask = calc.predicate.evaluate(batch).fill_null(False)  # noqa: FBT003 - Arrow's
        chosen = mask.to_numpy(zero_copy_only=False)
        batch, met = batch.filter(mask), met[chosen]
        kinds = None if kinds is None else kinds[chosen]
    if batch.num_rows:
        columns = [one.evaluate(batch) for one in calc.projections.values()]
        batch = pa.record_batch(columns, names=list(calc.projections))
    else:
        fields = [(name, one.type.arrow) for name, one in calc.projections.items()]
        batch = _empty(pa.schema(fields))
    return Chunk(batch, met, chunk.after, kinds)


def _computed(scan: Scan, batch: pa.RecordBatch) -> pa.RecordBatch:
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


def _joined(parts: list[Chunk], after: int) -> Chunk:
    """One chunk of what came from several partitions."""
    if len(parts) == 1:
        return Chunk(parts[0].batch, parts[0].met, after, parts[0].kinds)
    table = pa.Table.from_batches([part.batch for part in parts]).combine_chunks()
    kinds: Kinds | None = None
    if any(part.kinds is not None for part in parts):
        kinds = np.concatenate(
            [
                np.zeros(len(part.met), np.int8) if part.kinds is None else part.kinds
                for part in parts
            ]
        )
    met = np.concatenate([part.met for part in parts])
    return Chunk(table.to_batches()[0], met, after, kinds)


def _timed(windows: pa.Table) -> pa.Table:
    for name in (START, END_COLUMN):
        place = windows.column_names.index(name)
        windows = windows.set_column(place, name, windows.column(name).cast(pa.timestamp("ms")))
    return windows


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([pa.array([], one.type) for one in schema], schema=schema)
