"""A logical plan at work in this process: readers push chunks through operators to one place.

Pushed and not pulled, so that between two turns nothing is under way: then positions, watermarks
and the operators' states belong together, which is all that a checkpoint needs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import StreamRowError
from matih_ray.model.value import JsonValue
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.backends.opening import StateBackend
from matih_ray.streaming.connectors.opening import keeps_rejects, reader_of
from matih_ray.streaming.connectors.options import duration_ms
from matih_ray.streaming.connectors.reader import (
    FindsPartitions,
    HoldsCheckpoints,
    MeasuresLag,
    Polled,
)
from matih_ray.streaming.connectors.shares import WHOLE, Share
from matih_ray.streaming.operators import NO_ROWS, Chunk, Kinds, Origins, State
from matih_ray.streaming.rejects import bad_rows, joined_origins, origins_of, untimed_rows
from matih_ray.streaming.sql.plan import Calc, Node, Scan, Union
from matih_ray.streaming.steps import (
    Aside,
    Counts,
    Push,
    Stateful,
    StateSize,
    UnionStep,
    WindowStep,
    calculated,
    empty,
)
from matih_ray.streaming.watermarks import BEGINNING, END, Watermarks
from matih_ray.streaming.windows import Times

# Rows that operators are given at once: large enough that the cost of a call vanishes.
CHUNK_ROWS = 128 * 1024
# A partition that has had nothing for so long does not hold windows back. Much longer than a
# producer pauses, short beside the windows that people wait for. 0 is never, as in Flink.
IDLE_TIMEOUT_MS = 60_000
_IDLE = "scan.watermark.idle-timeout"

__all__ = ["Aside", "Counts", "Pipeline", "ScanStep"]


@dataclass
class Pipeline:
    """One plan being run; `output` gets its rows, and at last the end of time as watermark.

    `parts` are what a checkpoint holds, by names that stay the same while the plan does. A plan
    that several tasks work on is cut below its windows: the `share` of the sources is a pipeline of
    what is below, `above` tells how many windows were cut off, and `cut` makes a pipeline of the
    rest, whose `windows` are fed by others.
    """

    node: Node
    output: Push
    policy: HostPolicy = field(default_factory=HostPolicy)
    aside: Aside = field(default_factory=Aside)
    counts: Counts = field(default_factory=Counts)
    backend: StateBackend = field(default_factory=StateBackend)
    share: Share = WHOLE
    above: int = 0
    cut: bool = False
    sources: list[ScanStep] = field(default_factory=list)
    windows: list[WindowStep] = field(default_factory=list)
    parts: dict[str, Stateful] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._build(self.node, self.output)

    @property
    def ended(self) -> bool:
        """Whether all rows there will ever be have been pushed."""
        return all(source.ended for source in self.sources)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read, as is known when reading begins."""
        return all(source.is_empty for source in self.sources)

    def open(self) -> None:
        """Begin, at the tables' start or where `restore` said."""
        for source in self.sources:
            source.open()

    def turn(self, timeout_s: float) -> int:
        """Take what has come from each source in turn; returns how many rows that were."""
        waiting = [source for source in self.sources if not source.ended]
        return sum(source.turn(timeout_s / len(waiting)) for source in waiting)

    def holds(self) -> bool:
        """Whether a source is within something that must stay whole."""
        readers = [source.reader for source in self.sources]
        return any(isinstance(one, HoldsCheckpoints) and one.holds() for one in readers)

    def lag_bytes(self) -> int | None:
        """What sources keep because it was not acknowledged; None if nobody knows."""
        readers = [source.reader for source in self.sources]
        found = [one.lag_bytes() for one in readers if isinstance(one, MeasuresLag)]
        known = [lag for lag in found if lag is not None]
        return sum(known) if known else None

    def snapshot(self, shared: str | None = None) -> dict[str, State]:
        """The states of all parts; between two turns. What they have in files outlives this process
        below `shared`, if that is told."""
        for window in self.windows:
            if shared is not None:
                window.operator.state.persist(shared)
        return {name: part.snapshot() for name, part in self.parts.items()}

    def restore(self, states: Mapping[str, State]) -> None:
        """Go on from a snapshot; before `open`."""
        for name, part in self.parts.items():
            if name in states:
                part.restore(states[name])

    def state_size(self) -> StateSize:
        """What open windows take now."""
        states = [window.operator.state for window in self.windows]
        return StateSize(
            sum(one.memory_bytes for one in states), sum(one.disk_bytes for one in states)
        )

    def acknowledge(self) -> None:
        """What was read until now is durable."""
        for source in self.sources:
            source.reader.acknowledge(source.reader.positions())

    def behind(self) -> tuple[int, str | None]:
        """The lowest watermark of the sources, and the partition that holds it."""
        waiting = [one for one in self.sources if one.holds] or self.sources
        one = min(waiting, key=lambda source: source.watermarks.current)
        return one.watermarks.current, one.watermarks.holder

    def close(self) -> None:
        """Release connections and files of state."""
        for source in self.sources:
            source.reader.close()
        for window in self.windows:
            window.operator.state.close()

    def _build(self, node: Node, push: Push) -> None:
        if isinstance(node, Scan):
            step = ScanStep(node, self, push)
            self.sources.append(step)
            self.parts[f"source-{len(self.sources)}"] = step
        elif isinstance(node, Calc):
            self._build(node.input, lambda chunk: push(calculated(node, chunk)))
        elif isinstance(node, Union):
            union = UnionStep(push, [BEGINNING] * len(node.inputs))
            self.parts[f"union-{len(self.parts) + self.above}"] = union
            for number, one in enumerate(node.inputs):
                self._build(one, partial(union.take, number))
        else:
            window = WindowStep(node, self.counts, self.aside, push, self.backend.open)
            self.parts[f"window-{len(self.parts)}"] = window
            self.windows.append(window)
            if not self.cut:
                self._build(node.input, window.take)


class ScanStep:
    """A table being read: its reader, its partitions' watermarks, and who is idle."""

    def __init__(self, scan: Scan, pipeline: Pipeline, push: Push) -> None:
        self.scan = scan
        self._keeps = pipeline.aside.rejects is not None and keeps_rejects(scan.table)
        self.reader = reader_of(scan, pipeline.policy, share=pipeline.share, keep_bad=self._keeps)
        self.watermarks = Watermarks({})
        self.ended = False
        self._pipeline = pipeline
        self._push = push
        self._idle_s = duration_ms(scan.table, _IDLE, IDLE_TIMEOUT_MS) / 1000
        self._moved_s: dict[str, float] = {}
        self._positions: dict[str, JsonValue] | None = None
        self._empty = pa.schema([(name, kind.arrow) for name, kind in scan.schema.items()])
        self._sent = (BEGINNING, False)

    def open(self) -> None:
        """Begin to read."""
        self.reader.open(self._positions)
        self.watermarks.keep(self.reader.partitions())

    @property
    def is_empty(self) -> bool:
        """Whether all that there is has been read."""
        return self._has_ended()

    @property
    def holds(self) -> bool:
        """Whether windows wait for it: it has not ended, and is not idle."""
        return not (self.ended or self.watermarks.all_idle)

    def turn(self, timeout_s: float) -> int:
        """Poll once, and push what came."""
        polled = self.reader.poll(CHUNK_ROWS, timeout_s)
        self.watermarks.add(self.reader.partitions())
        now = time.monotonic()
        parts = [part for one in polled if (part := self._part(one, now)) is not None]
        self._judge_idle(now)
        for name in self.reader.finished():
            self.watermarks.finish(name)
        self.ended = self._has_ended()
        after = END if self.ended else self.watermarks.current
        idle = not self.ended and self.watermarks.all_idle
        if parts:
            self._push(_joined(parts, after, idle=idle))
        elif (after, idle) != self._sent:
            self._push(Chunk(empty(self._empty), NO_ROWS, after, idle=idle))
        self._sent = after, idle
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
        if state.value["table"] != ".".join(self.scan.table.path):
            return  # of another query, which was allowed
        self._positions = positions
        found = {name: int(str(mark)) for name, mark in marks.items()}
        self.watermarks = Watermarks(found, reached=int(str(state.value["reached"])))

    def _has_ended(self) -> bool:
        if not self.watermarks.partitions and isinstance(self.reader, FindsPartitions):
            return not self.reader.finds_more()
        return len(self.reader.finished()) == len(self.watermarks.partitions)

    def _part(self, polled: Polled, now: float) -> Chunk | None:
        counts, name = self._pipeline.counts, polled.partition
        aside, table = self._pipeline.aside, ".".join(self.scan.table.path)
        if polled.bad:
            counts.bad += len(polled.bad)
            aside.bad(table, name, polled.bad)
            self._reject(bad_rows(table, name, polled.bad) if self._keeps else None)
        if polled.batch.num_rows == 0:
            return None
        self._moved_s[name] = now
        batch = _computed(self.scan, polled.batch)
        kinds = None if polled.kinds is None else polled.kinds.to_numpy()
        origins = origins_of(table, polled) if self._keeps else None
        chunk = Chunk(batch, NO_ROWS, BEGINNING, kinds, origins=origins)
        if origins is not None and self.scan.time and batch.column(self.scan.time).null_count:
            chunk = self._timed(chunk, origins)
        counts.read += chunk.batch.num_rows
        met = self.watermarks.advance(name, _marks(self.scan, chunk.batch))
        return replace(chunk, met=met) if chunk.batch.num_rows else None

    def _timed(self, chunk: Chunk, origins: Origins) -> Chunk:
        """The rows that have a time; those without cannot be in any window."""
        assert self.scan.time is not None  # noqa: S101 - the caller looked
        has = pc.is_valid(chunk.batch.column(self.scan.time))
        there = has.to_numpy(zero_copy_only=False)
        missing = np.flatnonzero(~there)
        self._pipeline.counts.bad += len(missing)
        self._reject(untimed_rows(origins, missing, self.scan.time))
        kinds = None if chunk.kinds is None else chunk.kinds[there]
        left = Origins(origins.numbers[there], origins.look_up)
        return replace(chunk, batch=chunk.batch.filter(has), kinds=kinds, origins=left)

    def _reject(self, rows: pa.Table | None) -> None:
        if rows is not None and self._pipeline.aside.rejects is not None:
            self._pipeline.aside.rejects(rows)

    def _judge_idle(self, now: float) -> None:
        for name in self.reader.caught_up():
            quiet_s = now - self._moved_s.setdefault(name, now)
            if self._idle_s and quiet_s >= self._idle_s:
                self.watermarks.idle.add(name)


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


def _joined(parts: list[Chunk], after: int, *, idle: bool) -> Chunk:
    """One chunk of what came from several partitions."""
    if len(parts) == 1:
        return replace(parts[0], after=after, idle=idle)
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
    known = [part.origins for part in parts if part.origins is not None]
    origins = joined_origins(known) if len(known) == len(parts) else None
    return Chunk(table.to_batches()[0], met, after, kinds, idle, origins)
