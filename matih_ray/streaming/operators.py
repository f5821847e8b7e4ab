"""The keyed window operator: batches in, closed windows out, late rows aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matih_ray.model.value import JsonValue
from matih_ray.streaming.aggregates import Aggregate
from matih_ray.streaming.backends.base import Due, Layout, OpenState, Tables
from matih_ray.streaming.backends.memory import MemoryState
from matih_ray.streaming.backends.runs import Run
from matih_ray.streaming.watermarks import BEGINNING
from matih_ray.streaming.windows import WINDOW, Sessions, Times, WindowSpec

START, END_COLUMN, TIME = "window_start", "window_end", "event_time"
SESSIONS, MERGED = "sessions", "merged"  # tables of a state, beside the backend's

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
    """What an operator must have to go on: tables, a JSON value, and runs of tables in files."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    value: JsonValue = None
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Closed:
    """What a chunk led to: windows that closed, in pieces to be taken before the next chunk, and
    rows whose windows had all closed before, by their numbers in the chunk."""

    windows: Iterator[pa.Table]
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
        self,
        spec: WindowSpec,
        keys: tuple[str, ...],
        aggregates: tuple[Aggregate, ...],
        open_state: OpenState = MemoryState,
    ) -> None:
        self._spec = spec
        self._layout = Layout(keys, aggregates)
        self._sessions = Sessions(spec.size_ms) if spec.kind == "SESSION" else None
        self.state = open_state(self._layout, self._sessions)
        self._watermark = BEGINNING

    def process(self, chunk: Chunk) -> Closed:
        """Take a chunk."""
        late = self._add(chunk) if chunk.batch.num_rows else NO_ROWS
        self._watermark = max(self._watermark, chunk.after)
        return Closed(self._fire(), late)

    def absorb(self, tables: Tables) -> None:
        """Take what another operator made of rows, of windows that have not fired."""
        self.state.add(tables)

    @property
    def watermark(self) -> int:
        """Windows that end at or before it have fired, and stay closed."""
        return self._watermark

    def snapshot(self, keys: pa.Schema) -> State:
        """The open windows; `keys` are the types of the key columns."""
        tables, runs = self.state.snapshot()
        value: dict[str, JsonValue] = {"watermark": self._watermark}
        if self._sessions is not None:
            tables[SESSIONS], value["next_session"] = self._sessions.snapshot(keys)
            if runs:
                tables[MERGED] = self._sessions.merged()
            else:
                self._sessions.forget_merged()
        return State(tables, value, runs)

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        assert isinstance(state.value, dict)  # noqa: S101 - written by `snapshot`
        self._watermark = int(str(state.value["watermark"]))
        if self._sessions is not None:
            first = int(str(state.value["next_session"]))
            merged = state.tables.get(MERGED)
            self._sessions.restore(state.tables[SESSIONS], first, merged)
        self.state.restore(state.tables, state.runs)

    def _add(self, chunk: Chunk) -> Times:
        times = chunk.batch.column(TIME).to_numpy()
        met = np.maximum(chunk.met, self._watermark)
        rows, windows, is_late = self._assign(chunk.batch, times, met)
        table = pa.Table.from_batches([chunk.batch])
        if len(rows) != len(times) or self._spec.windows_per_row > 1:
            table = table.take(pa.array(rows))
        table = table.append_column(WINDOW, pa.array(windows))
        if table.num_rows:
            self.state.add(self._layout.of_rows(table))
        return np.flatnonzero(is_late)

    def _assign(
        self, batch: pa.RecordBatch, times: Times, met: Times
    ) -> tuple[Times, Times, np.ndarray]:
        """Row numbers and windows, and which rows are late. A row may be in several windows."""
        if self._sessions is not None:
            names = self._layout.keys
            columns = [batch.column(name).to_pylist() for name in names]
            keys = list(zip(*columns, strict=True)) if names else [()] * len(times)
            numbers = self._sessions.assign(keys, times, met)
            rows = np.flatnonzero(numbers >= 0)
            return rows, numbers[rows], numbers < 0
        return live_windows(self._spec, times, met)

    def _fire(self) -> Iterator[pa.Table]:
        due, sessions = Due(self._watermark), None
        if self._sessions is not None:
            sessions = self._sessions.fire(self._watermark)
            if not sessions:
                return
            numbers = self._sessions.numbers(sessions)
            due = Due(self._watermark, frozenset(sessions), numbers)
        for groups in self.state.fire(due):
            yield self._bounded(groups, sessions)
        if self._sessions is not None and sessions:
            self._sessions.forget(sessions)

    def _bounded(self, groups: pa.Table, sessions: dict[int, tuple[int, int]] | None) -> pa.Table:
        """With the bounds of windows instead of their numbers, in the order of time."""
        columns = {name: groups.column(name) for name in self._layout.keys}
        columns[START], columns[END_COLUMN] = self._bounds(groups, sessions)
        columns |= {one.output: groups.column(one.output) for one in self._layout.aggregates}
        return pa.table(columns).sort_by([(END_COLUMN, "ascending"), (START, "ascending")])

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
