"""The keyed window operator: batches in, closed windows out, late rows aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.model.value import JsonValue
from matih_ray.streaming.aggregates import (
    KEPT,
    Aggregate,
    finish_kept,
    kept_values,
    merged_table,
    partial_table,
)
from matih_ray.streaming.watermarks import BEGINNING
from matih_ray.streaming.windows import Sessions, Times, WindowSpec

WINDOW, START, END_COLUMN, TIME = "window_id", "window_start", "window_end", "event_time"
# Partial aggregates of batches are merged when they are this many times the merged ones: merging
# then costs a constant share of the work, and memory at most this many times what it must be.
MERGE_GROWTH = 4
MERGE_MIN_ROWS = 100_000


Kinds = npt.NDArray[np.int8]
NO_ROWS: Times = np.empty(0, np.int64)


@dataclass(frozen=True)
class Origins:
    """Where the rows of a batch came from. `look_up` makes `origins.COLUMNS` of row numbers of the
    batch that was read, and `numbers` are those of the rows at hand."""

    numbers: Times
    look_up: Callable[[Times], pa.Table]

    def of(self, rows: Times) -> pa.Table:
        """The origins of these rows of the batch at hand."""
        return self.look_up(self.numbers[rows])


@dataclass(frozen=True)
class Chunk:
    """A batch, the watermark that each of its rows met, and the watermark after them.

    `kinds` says what happened to each row, None where all of them are inserts. `idle` is whether
    `after` holds nobody back, because nothing that could move it has rows. `origins` are where the
    rows came from, where somebody wants to know.
    """

    batch: pa.RecordBatch
    met: Times
    after: int
    kinds: Kinds | None = None
    idle: bool = False
    origins: Origins | None = None


@dataclass(frozen=True)
class State:
    """What an operator must have to go on: tables, and a JSON value."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    value: JsonValue = None


@dataclass(frozen=True)
class Closed:
    """What a chunk led to: windows that closed, and rows whose windows had all closed before, by
    their numbers in the chunk."""

    windows: pa.Table | None
    late: Times


def live_windows(spec: WindowSpec, times: Times, met: Times) -> tuple[Times, Times, np.ndarray]:
    """Row numbers and the aligned windows of each that have not fired when it comes, and which rows
    are late: all their windows have."""
    ends = spec.ends(times)
    found = [(end, there & (end - 1 > met)) for end, there in ends]
    placed = np.logical_or.reduce([live for _, live in found])
    in_any = np.logical_or.reduce([there for _, there in ends])
    rows = np.concatenate([np.flatnonzero(live) for _, live in found])
    windows = np.concatenate([end[live] for end, live in found])
    return rows, windows, in_any & ~placed


class WindowOperator:
    """Aggregates by key and window. A window fires once; later rows of it are late.

    Input columns are the keys, the aggregates' arguments and `event_time` (milliseconds); the
    result has the keys, `window_start`, `window_end` (milliseconds) and the aggregates' outputs.
    """

    def __init__(
        self, spec: WindowSpec, keys: tuple[str, ...], aggregates: tuple[Aggregate, ...]
    ) -> None:
        self._spec = spec
        self._keys = [*keys, WINDOW]
        self._aggregates = aggregates
        self._sessions = Sessions(spec.size_ms) if spec.kind == "SESSION" else None
        self._partial: list[pa.Table] = []
        self._kept: dict[str, list[pa.Table]] = {
            one.output: [] for one in aggregates if one.function in KEPT
        }
        self._merged_rows = 0
        self._watermark = BEGINNING

    def process(self, chunk: Chunk) -> Closed:
        """Take a chunk."""
        late = self._add(chunk) if chunk.batch.num_rows else NO_ROWS
        self._watermark = max(self._watermark, chunk.after)
        return Closed(self._fire(), late)

    def absorb(self, partial: pa.Table, kept: Mapping[str, pa.Table]) -> None:
        """Take partial aggregates that were made elsewhere, of windows that have not fired."""
        self._partial.append(partial)
        for name, table in kept.items():
            self._kept[name].append(table)
        self._merge_when_grown()

    @property
    def watermark(self) -> int:
        """Windows that end at or before it have fired, and stay closed."""
        return self._watermark

    def snapshot(self, keys: pa.Schema) -> State:
        """The open windows; `keys` are the types of the key columns."""
        tables: dict[str, pa.Table] = {}
        if self._partial:
            self._merge()
            tables["partial"] = self._partial[0]
        tables |= {f"kept:{name}": part for name, parts in self._kept.items() for part in parts}
        value: dict[str, JsonValue] = {"watermark": self._watermark}
        if self._sessions is not None:
            tables["sessions"], value["next_session"] = self._sessions.snapshot(keys)
        return State(tables, value)

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        assert isinstance(state.value, dict)  # noqa: S101 - written by `snapshot`
        self._watermark = int(str(state.value["watermark"]))
        if self._sessions is not None:
            first = int(str(state.value["next_session"]))
            self._sessions.restore(state.tables["sessions"], first)
        self._partial = [state.tables["partial"]] if "partial" in state.tables else []
        for name in self._kept:
            part = state.tables.get(f"kept:{name}")
            self._kept[name] = [part] if part is not None else []
        self._merged_rows = sum(table.num_rows for table in state.tables.values())

    def _add(self, chunk: Chunk) -> Times:
        times = chunk.batch.column(TIME).to_numpy()
        met = np.maximum(chunk.met, self._watermark)
        rows, windows, is_late = self._assign(chunk.batch, times, met)
        table = pa.Table.from_batches([chunk.batch])
        if len(rows) != len(times) or self._spec.windows_per_row > 1:
            table = table.take(pa.array(rows))
        table = table.append_column(WINDOW, pa.array(windows))
        if table.num_rows:
            self._keep(table)
        return np.flatnonzero(is_late)

    def _assign(
        self, batch: pa.RecordBatch, times: Times, met: Times
    ) -> tuple[Times, Times, np.ndarray]:
        """Row numbers and windows, and which rows are late. A row may be in several windows."""
        if self._sessions is not None:
            names = self._keys[:-1]
            columns = [batch.column(name).to_pylist() for name in names]
            keys = list(zip(*columns, strict=True)) if names else [()] * len(times)
            numbers = self._sessions.assign(keys, times, met)
            rows = np.flatnonzero(numbers >= 0)
            return rows, numbers[rows], numbers < 0
        return live_windows(self._spec, times, met)

    def _keep(self, table: pa.Table) -> None:
        self._partial.append(partial_table(table, self._keys, self._aggregates))
        for one in self._aggregates:
            if one.function in KEPT:
                self._kept[one.output].append(kept_values(table, self._keys, one))
        self._merge_when_grown()

    def _merge_when_grown(self) -> None:
        rows = sum(len(part) for part in self._partial)
        rows += sum(len(part) for parts in self._kept.values() for part in parts)
        if rows > max(MERGE_MIN_ROWS, MERGE_GROWTH * self._merged_rows):
            self._merge()

    def _merge(self) -> None:
        self._partial = [merged_table(self._renamed(self._partial), self._keys)]
        for one in self._aggregates:
            if one.function in KEPT and self._kept[one.output]:
                kept = self._renamed(self._kept[one.output])
                self._kept[one.output] = [kept_values(kept, self._keys, one)]
        self._merged_rows = sum(len(part) for part in self._partial)
        self._merged_rows += sum(len(part) for parts in self._kept.values() for part in parts)

    def _renamed(self, parts: list[pa.Table]) -> pa.Table:
        """All parts as one; sessions that have merged get one number."""
        table = pa.concat_tables(parts)
        if self._sessions is None:
            return table
        numbers = self._sessions.current(table.column(WINDOW).to_numpy())
        place = table.column_names.index(WINDOW)
        return table.set_column(place, WINDOW, pa.array(numbers))

    def _fire(self) -> pa.Table | None:
        sessions = self._sessions.fire(self._watermark) if self._sessions is not None else None
        if not self._partial or not (sessions or self._is_due()):
            return None
        self._merge()
        groups = self._taken(self._partial, sessions)
        columns = {name: groups.column(name) for name in self._keys[:-1]}
        columns[START], columns[END_COLUMN] = self._bounds(groups, sessions)
        for one in self._aggregates:
            if one.function in KEPT:
                kept = self._taken(self._kept[one.output], sessions)
                columns[one.output] = finish_kept(kept, groups, self._keys, one)
            else:
                columns[one.output] = one.finish(groups)
        order = [(END_COLUMN, "ascending"), (START, "ascending")]
        return pa.table(columns).sort_by(order)

    def _is_due(self) -> bool:
        if self._sessions is not None:
            return False
        first = min(pc.min(part.column(WINDOW)).as_py() for part in self._partial)
        return bool(first - 1 <= self._watermark)

    def _taken(
        self, parts: list[pa.Table], sessions: dict[int, tuple[int, int]] | None
    ) -> pa.Table:
        """What is due, which `parts` lose."""
        if not parts:
            return pa.table({})
        (table,) = parts
        windows = table.column(WINDOW)
        if sessions is None:
            due = pc.less_equal(pc.subtract(windows, 1), self._watermark)
        else:
            due = pc.is_in(windows, pa.array(list(sessions), pa.int64()))
        left = table.filter(pc.invert(due))
        parts[:] = [left] if left.num_rows else []
        return table.filter(due)

    def _bounds(
        self, groups: pa.Table, sessions: dict[int, tuple[int, int]] | None
    ) -> tuple[pa.Array, pa.Array]:
        windows = groups.column(WINDOW).to_numpy()
        if sessions is None:
            return pa.array(self._spec.starts(windows)), pa.array(windows)
        found = [sessions[number] for number in windows.tolist()]
        return (
            pa.array([start for start, _ in found], pa.int64()),
            pa.array([end for _, end in found], pa.int64()),
        )
