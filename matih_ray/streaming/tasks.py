"""The two tasks that a parallel job is made of, as plain objects: whoever places them calls them.

A source task reads its share of the partitions, judges which rows are late, aggregates what it read
and cuts the result by key groups into parcels, one for each window task. A window task merges the
parcels of its key groups and fires. Both work in turns that `parallel` gives them. All that they
need to know of each other comes with a turn: the watermark that all sources have reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from matih_ray.errors import SqlNotSupportedError
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.backends.base import PARTIAL, Layout, Tables
from matih_ray.streaming.backends.opening import StateBackend
from matih_ray.streaming.connectors.shares import Share
from matih_ray.streaming.key_groups import key_groups, owners
from matih_ray.streaming.operators import (
    NO_ROWS,
    TIME,
    Chunk,
    Kinds,
    Origins,
    State,
    live_windows,
)
from matih_ray.streaming.pipeline import Pipeline
from matih_ray.streaming.sql.plan import Calc, Node, Scan, WindowAggregation
from matih_ray.streaming.steps import Aside, Counts, StateSize, empty, refuse_changes, tell_late
from matih_ray.streaming.watermarks import BEGINNING
from matih_ray.streaming.windows import WINDOW, Times


@dataclass(frozen=True)
class TaskPlan:
    """What the tasks of one job have in common. `keeps_rejects`: rows that are left out are told of
    with what they were."""

    node: Node
    policy: HostPolicy
    parallelism: int
    keeps_rejects: bool = False
    backend: StateBackend = field(default_factory=StateBackend)

    @property
    def window(self) -> WindowAggregation | None:
        """Where the plan is cut: the aggregation, None where there is none.

        Raises:
            SqlNotSupportedError: There is more than one.
        """
        node = self.node
        while isinstance(node, Calc):
            node = node.input
        if isinstance(node, WindowAggregation):
            return node
        if _aggregates(node):
            raise SqlNotSupportedError(
                "UNION ALL of aggregations is worked on by one task only: give the job parallelism "
                "1, or submit an INSERT for each aggregation",
                clause="UNION ALL",
            )
        return None


def _aggregates(node: Node) -> bool:
    if isinstance(node, Scan):
        return False
    if isinstance(node, WindowAggregation):
        return True
    inputs = (node.input,) if isinstance(node, Calc) else node.inputs
    return any(map(_aggregates, inputs))


@dataclass(frozen=True)
class Parcel:
    """What one source task has for one window task in one turn.

    Partial aggregates of rows that are not late; or, for sessions, rows, whose `origins` are those
    of the rows `asked`, which may turn out to be late.
    """

    partials: tuple[Tables, ...] = ()
    rows: tuple[Chunk, ...] = ()


@dataclass(frozen=True)
class Told:
    """What a source task tells of a turn. `sends` are the window tasks it has parcels for; `output`
    is for the sink, where the plan has no windows."""

    counts: Counts
    after: int
    idle: bool
    ended: bool
    holder: str | None
    sends: tuple[bool, ...]
    output: tuple[tuple[pa.RecordBatch, Kinds | None], ...] = ()
    rejects: pa.Table | None = None
    holds: bool = False
    lag_bytes: int | None = None


@dataclass(frozen=True)
class Fired:
    """What a window task tells of a turn."""

    output: tuple[pa.RecordBatch, ...] = ()
    late: int = 0
    rejects: pa.Table | None = None
    size: StateSize = field(default_factory=StateSize)


@dataclass
class _Rejects:
    tables: list[pa.Table] = field(default_factory=list)

    def taken(self) -> pa.Table | None:
        """All since the last time."""
        found = pa.concat_tables(self.tables) if self.tables else None
        self.tables.clear()
        return found

    def aside(self, plan: TaskPlan) -> Aside:
        return Aside(rejects=self.tables.append if plan.keeps_rejects else None)


class SourceTask:
    """Reads share `index`."""

    def __init__(self, plan: TaskPlan, index: int) -> None:
        self._plan, self._window = plan, plan.window
        self._rejects = _Rejects()
        self._counts = Counts()
        self._aside = self._rejects.aside(plan)
        self._pipeline = Pipeline(
            plan.node if self._window is None else self._window.input,
            self._take,
            plan.policy,
            self._aside,
            self._counts,
            share=Share(index, plan.parallelism),
            above=self._window is not None,
        )
        self._after, self._idle = BEGINNING, False
        self._floor, self._others = BEGINNING, BEGINNING
        self._output: list[tuple[pa.RecordBatch, Kinds | None]] = []
        self._boxes: list[Parcel] = []

    def open(self, states: Mapping[str, State]) -> bool:
        """Begin at the table's start, or where the states say. Whether there is nothing to read,
        so that no other task need wait for it."""
        self._pipeline.restore(states)
        self._pipeline.open()
        return self._pipeline.is_empty

    def turn(self, timeout_s: float, floor: int, others: int) -> tuple[object, ...]:
        """Poll once: what there is to tell, then a parcel for each window task or None.

        `floor` is the watermark that windows have fired at, `others` the lowest of other tasks.
        """
        self._floor, self._others = floor, others
        self._boxes = [Parcel() for _ in range(self._plan.parallelism)]
        self._counts.read = self._counts.bad = self._counts.late = 0
        self._pipeline.turn(timeout_s)
        parcels = [box if box.partials or box.rows else None for box in self._boxes]
        told = Told(
            counts=Counts(self._counts.read, self._counts.bad, self._counts.late),
            after=self._after,
            idle=self._idle,
            ended=self._pipeline.ended,
            holder=self._pipeline.behind()[1],
            sends=tuple(one is not None for one in parcels),
            output=tuple(self._output),
            rejects=self._rejects.taken(),
            holds=self._pipeline.holds(),
            lag_bytes=self._pipeline.lag_bytes(),
        )
        self._output.clear()
        return (told, *parcels) if self._window is not None else (told, None)

    def snapshot(self) -> dict[str, State]:
        """The states of what it read."""
        return self._pipeline.snapshot()

    def acknowledge(self) -> None:
        """What was read until now is durable."""
        self._pipeline.acknowledge()

    def close(self) -> None:
        """Release connections."""
        self._pipeline.close()

    def _take(self, chunk: Chunk) -> None:
        self._after, self._idle = chunk.after, chunk.idle
        if not chunk.batch.num_rows:
            return
        if self._window is None:
            self._output.append((chunk.batch, chunk.kinds))
            return
        refuse_changes(chunk)
        met = np.maximum(np.minimum(chunk.met, self._others), self._floor)
        if self._window.spec.kind == "SESSION":
            self._send_rows(chunk, met)
        else:
            self._send_partials(self._window, chunk, met)

    def _send_partials(self, window: WindowAggregation, chunk: Chunk, met: Times) -> None:
        times = chunk.batch.column(TIME).to_numpy()
        rows, windows, is_late = live_windows(window.spec, times, met)
        tell_late(chunk, np.flatnonzero(is_late), self._counts, self._aside)
        if not len(rows):
            return
        table = pa.Table.from_batches([chunk.batch]).take(pa.array(rows))
        table = table.append_column(WINDOW, pa.array(windows))
        made = Layout(window.keys, window.aggregates).of_rows(table)
        cut = {name: self._cut(one) for name, one in made.items()}
        for number, mine in enumerate(cut[PARTIAL]):
            if mine.num_rows:
                tables = {name: parts[number] for name, parts in cut.items()}
                box = self._boxes[number]
                self._boxes[number] = Parcel((*box.partials, tables), box.rows)

    def _send_rows(self, chunk: Chunk, met: Times) -> None:
        assert self._window is not None  # noqa: S101 - the caller looked
        owner = owners(key_groups(chunk.batch, self._window.keys), self._plan.parallelism)
        # only these can be late: a row whose own session would not be over opens one
        doubtful = chunk.batch.column(TIME).to_numpy() + self._window.spec.size_ms - 1 <= met
        for number in np.unique(owner).tolist():
            rows = np.flatnonzero(owner == number)
            origins = _carried(chunk.origins, rows, doubtful[rows])
            part = Chunk(chunk.batch.take(pa.array(rows)), met[rows], BEGINNING, origins=origins)
            box = self._boxes[number]
            self._boxes[number] = Parcel(box.partials, (*box.rows, part))

    def _cut(self, table: pa.Table) -> list[pa.Table]:
        """The table by the window task that has the key."""
        assert self._window is not None  # noqa: S101 - the caller looked
        owner = owners(key_groups(table, self._window.keys), self._plan.parallelism)
        return [
            table.take(pa.array(np.flatnonzero(owner == number)))
            for number in range(self._plan.parallelism)
        ]


@dataclass(frozen=True)
class _Lookup:
    """Origins that travel with the rows: `places` are their rows in the table, -1 without."""

    places: Times
    table: pa.Table

    def __call__(self, rows: Times) -> pa.Table:
        return self.table.take(pa.array(self.places[rows]))


def _carried(origins: Origins | None, rows: Times, doubtful: np.ndarray) -> Origins | None:
    if origins is None or not doubtful.any():
        return None
    places = np.where(doubtful, np.cumsum(doubtful) - 1, -1)
    return Origins(np.arange(len(rows)), _Lookup(places, origins.of(rows[doubtful])))


class WindowTask:
    """Has a range of key groups."""

    def __init__(self, plan: TaskPlan) -> None:
        assert plan.window is not None  # noqa: S101 - there is nothing to do without
        self._rejects = _Rejects()
        self._counts = Counts()
        self._pipeline = Pipeline(
            plan.node,
            self._take,
            plan.policy,
            self._rejects.aside(plan),
            self._counts,
            plan.backend,
            cut=True,
        )
        (self._step,) = self._pipeline.windows
        below = plan.window.input.schema
        self._nothing = empty(pa.schema([(name, kind.arrow) for name, kind in below.items()]))
        self._output: list[pa.RecordBatch] = []

    def open(self, states: Mapping[str, State]) -> None:
        """Begin with the open windows of its key groups."""
        self._pipeline.restore(states)

    def process(self, after: int, *parcels: Parcel | None) -> Fired:
        """Take a turn's parcels, in the order of the source tasks, then the watermark after it."""
        for parcel in parcels:
            if parcel is None:
                continue
            for tables in parcel.partials:
                self._step.operator.absorb(tables)
            for chunk in parcel.rows:
                self._step.take(chunk)
        self._step.take(Chunk(self._nothing, NO_ROWS, after))
        size = self._pipeline.state_size()
        fired = Fired(tuple(self._output), self._counts.late, self._rejects.taken(), size)
        self._output.clear()
        self._counts.late = 0
        return fired

    def snapshot(self, shared: str | None) -> dict[str, State]:
        """The open windows; see `Pipeline.snapshot`."""
        return self._pipeline.snapshot(shared)

    def close(self) -> None:
        """Release files of state."""
        self._pipeline.close()

    def _take(self, chunk: Chunk) -> None:
        if chunk.batch.num_rows:
            self._output.append(chunk.batch)
