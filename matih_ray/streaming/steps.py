"""What a pipeline is made of behind its sources: steps that chunks are pushed through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from matih_ray.errors import SqlNotSupportedError
from matih_ray.streaming.backends.base import OpenState
from matih_ray.streaming.backends.memory import MemoryState
from matih_ray.streaming.connectors.reader import BadRow
from matih_ray.streaming.operators import (
    END_COLUMN,
    NO_ROWS,
    START,
    TIME,
    Chunk,
    Origins,
    State,
    WindowOperator,
)
from matih_ray.streaming.rejects import late_rows
from matih_ray.streaming.sql.plan import Calc, WindowAggregation
from matih_ray.streaming.watermarks import BEGINNING, END, lowest

# Windows that close together go on in batches of no more rows.
BATCH_ROWS = 128 * 1024

Push = Callable[[Chunk], None]


@dataclass
class Counts:
    """What happened to rows: read, unreadable and left out, late, and those that change or remove a
    row where rows can only be appended."""

    read: int = 0
    bad: int = 0
    late: int = 0
    changed: int = 0


@dataclass(frozen=True)
class StateSize:
    """Bytes of open windows, where they are."""

    memory_bytes: int = 0
    disk_bytes: int = 0

    def __add__(self, other: StateSize) -> StateSize:
        return StateSize(self.memory_bytes + other.memory_bytes, self.disk_bytes + other.disk_bytes)


@dataclass(frozen=True)
class Aside:
    """Who is told of rows that are left out: late ones (keys, arguments and `event_time`), and
    unreadable ones with their table and partition. `rejects` gets both as `rejects.SCHEMA`; without
    it nobody keeps what rows came from."""

    late: Callable[[pa.RecordBatch], None] = lambda _: None
    bad: Callable[[str, str, Sequence[BadRow]], None] = lambda _table, _partition, _rows: None
    rejects: Callable[[pa.Table], None] | None = None


class Stateful(Protocol):
    """A part of a pipeline that must be as it was when a job goes on."""

    def snapshot(self) -> State:
        """What it needs to go on."""

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""


@dataclass
class UnionStep:
    """The watermark is the lowest of the inputs' that are not idle."""

    push: Push
    reached: list[int]
    idle: set[int] = field(default_factory=set)

    def take(self, number: int, chunk: Chunk) -> None:
        """Take a chunk of one input."""
        others = [
            mark for at, mark in enumerate(self.reached) if at != number and at not in self.idle
        ]
        met = np.minimum(chunk.met, min(others, default=END))
        self.reached[number] = max(self.reached[number], chunk.after)
        (self.idle.add if chunk.idle else self.idle.discard)(number)
        after, idle = lowest((mark, at in self.idle) for at, mark in enumerate(self.reached))
        self.push(Chunk(chunk.batch, met, after, chunk.kinds, idle, chunk.origins))

    def snapshot(self) -> State:
        """The inputs' watermarks."""
        return State(value=list(self.reached))

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        assert isinstance(state.value, list)  # noqa: S101 - written by `snapshot`
        self.reached[:] = [int(str(mark)) for mark in state.value]


class WindowStep:
    """Windows that close go on, late rows aside."""

    def __init__(
        self,
        node: WindowAggregation,
        counts: Counts,
        aside: Aside,
        push: Push,
        open_state: OpenState = MemoryState,
    ) -> None:
        self.operator = WindowOperator(node.spec, node.keys, node.aggregates, open_state)
        self._schema = pa.schema([(name, kind.arrow) for name, kind in node.schema.items()])
        self._keys = pa.schema([(name, node.schema[name].arrow) for name in node.keys])
        self._counts = counts
        self._aside = aside
        self._push = push

    def take(self, chunk: Chunk) -> None:
        """Take a chunk of inserts."""
        refuse_changes(chunk)
        closed = self.operator.process(chunk)
        tell_late(chunk, closed.late, self._counts, self._aside)
        for windows in closed.windows:
            for batch in _timed(windows).cast(self._schema).to_batches(BATCH_ROWS):
                self._push(Chunk(batch, np.full(batch.num_rows, BEGINNING), BEGINNING))
        if chunk.after == END:
            self._push(Chunk(empty(self._schema), NO_ROWS, END))

    def snapshot(self) -> State:
        """The open windows."""
        return self.operator.snapshot(self._keys)

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        self.operator.restore(state)


def refuse_changes(chunk: Chunk) -> None:
    """Windows take inserts only.

    Raises:
        SqlNotSupportedError: A row is updated or deleted.
    """
    if chunk.kinds is not None and chunk.kinds.any():
        raise SqlNotSupportedError(
            "windows over a table whose rows are updated or deleted are not supported",
            clause="GROUP BY",
        )


def tell_late(chunk: Chunk, rows: np.ndarray, counts: Counts, aside: Aside) -> None:
    """Count late rows of a chunk, and tell whoever wants to know."""
    if not len(rows):
        return
    counts.late += len(rows)
    aside.late(chunk.batch.take(pa.array(rows)))
    if aside.rejects is not None and chunk.origins is not None:
        times = chunk.batch.column(TIME).to_numpy()
        aside.rejects(late_rows(chunk.origins, rows, times))


def calculated(calc: Calc, chunk: Chunk) -> Chunk:
    """Filter, then projection."""
    batch, met, kinds, origins = chunk.batch, chunk.met, chunk.kinds, chunk.origins
    if calc.predicate is not None and batch.num_rows:
        mask = calc.predicate.evaluate(batch).fill_null(False)  # noqa: FBT003 - Arrow's
        chosen = mask.to_numpy(zero_copy_only=False)
        batch, met = batch.filter(mask), met[chosen]
        kinds = None if kinds is None else kinds[chosen]
        origins = None if origins is None else Origins(origins.numbers[chosen], origins.look_up)
    if batch.num_rows:
        columns = [one.evaluate(batch) for one in calc.projections.values()]
        batch = pa.record_batch(columns, names=list(calc.projections))
    else:
        fields = [(name, one.type.arrow) for name, one in calc.projections.items()]
        batch = empty(pa.schema(fields))
    return Chunk(batch, met, chunk.after, kinds, chunk.idle, origins)


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """No rows."""
    return pa.record_batch([pa.array([], one.type) for one in schema], schema=schema)


def _timed(windows: pa.Table) -> pa.Table:
    for name in (START, END_COLUMN):
        place = windows.column_names.index(name)
        windows = windows.set_column(place, name, windows.column(name).cast(pa.timestamp("ms")))
    return windows
