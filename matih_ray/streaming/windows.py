"""Windows over event time: which windows a row belongs to, and where they begin and end.

Times are milliseconds since the epoch. A window is named by one integer: its end, or for sessions a
number. Semantics are those of Apache Flink 2.3: aligned to the epoch, start inclusive, end
exclusive, fired when the watermark reaches `end - 1`; rows exactly one gap apart share a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

WindowKind = Literal["TUMBLE", "HOP", "CUMULATE", "SESSION"]
# The column that names a row's window.
WINDOW = "window_id"
# One row would be copied into each of them.
MAX_WINDOWS_PER_ROW = 10_000


@dataclass(frozen=True)
class WindowSpec:
    """`step_ms` is the slide of HOP and the step of CUMULATE; `size_ms` the gap of SESSION."""

    kind: WindowKind
    size_ms: int
    step_ms: int = 0
    offset_ms: int = 0

    def __str__(self) -> str:
        step = f", step {self.step_ms} ms" if self.step_ms else ""
        return f"{self.kind}(size {self.size_ms} ms{step})"

    @property
    def windows_per_row(self) -> int:
        """At most how many windows a row is in."""
        return -(-self.size_ms // self.step_ms) if self.step_ms else 1

    def ends(self, times: Times) -> list[tuple[Times, Mask]]:
        """Ends of the windows of each row, and whether there is such a window."""
        if self.kind == "CUMULATE":
            return self._cumulative(times)
        step = self.step_ms or self.size_ms
        last = times - np.mod(times - self.offset_ms, step)
        found = []
        for number in range(self.windows_per_row):
            starts = last - number * step
            found.append((starts + self.size_ms, starts + self.size_ms > times))
        return found

    def _cumulative(self, times: Times) -> list[tuple[Times, Mask]]:
        first = times - np.mod(times - self.offset_ms, self.size_ms)
        step = first + (np.floor_divide(times - first, self.step_ms) + 1) * self.step_ms
        return [
            (ends := step + number * self.step_ms, ends <= first + self.size_ms)
            for number in range(self.windows_per_row)
        ]

    def starts(self, ends: Times) -> Times:
        """Starts of aligned windows with these ends."""
        if self.kind == "CUMULATE":
            inside = ends - 1
            return np.asarray(inside - np.mod(inside - self.offset_ms, self.size_ms))
        return ends - self.size_ms


@dataclass
class _Session:
    number: int
    start: int
    end: int


@dataclass
class Sessions:
    """The open sessions of all keys. A closed session never opens again."""

    gap_ms: int
    _open: dict[tuple[object, ...], list[_Session]] = field(default_factory=dict)
    _merged: dict[int, int] = field(default_factory=dict)  # into which session one went
    _absorbed: dict[int, list[int]] = field(default_factory=dict)  # and those that went into one
    _due: list[_Session] = field(default_factory=list)  # closed, not yet fired
    _next: int = 0

    def snapshot(self, keys: pa.Schema) -> tuple[pa.Table, int]:
        """The open sessions with their keys, and the next number. Nothing may be due."""
        rows = [(key, one) for key, found in self._open.items() for one in found]
        columns = [
            pa.array([key[place] for key, _ in rows], field.type)
            for place, field in enumerate(keys)
        ]
        numbers = [
            pa.array([getattr(one, name) for _, one in rows], pa.int64())
            for name in ("number", "start", "end")
        ]
        schema = pa.schema(
            [(f"k{place}", field.type) for place, field in enumerate(keys)]
            + [(name, pa.int64()) for name in ("number", "start", "end")]
        )
        return pa.table([*columns, *numbers], schema=schema), self._next

    def merged(self) -> pa.Table:
        """Numbers that sessions had before they merged, for rows that have those still."""
        pairs = [(old, self._root(old)) for old in self._merged]
        columns = [pa.array([pair[place] for pair in pairs], pa.int64()) for place in range(2)]
        return pa.table(columns, names=["number", "into"])

    def forget_merged(self) -> None:
        """No row has a number from before sessions merged."""
        self._merged.clear()
        self._absorbed.clear()

    def restore(self, table: pa.Table, first: int, merged: pa.Table | None = None) -> None:
        """Take up the sessions of a snapshot."""
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        for *key, number, start, end in rows:
            self._open.setdefault(tuple(key), []).append(_Session(number, start, end))
        self._next = first
        if merged is not None:
            there = {one.number for found in self._open.values() for one in found}
            for old, into in zip(*(column.to_pylist() for column in merged.columns), strict=True):
                if into in there:  # else it is another task's
                    self._merged[old] = into
                    self._absorbed.setdefault(into, []).append(old)

    def assign(self, keys: Sequence[tuple[object, ...]], times: Times, watermarks: Times) -> Times:
        """The session of each row, -1 for rows that are late: their session would be over."""
        found = np.empty(len(times), np.int64)
        rows = zip(keys, times.tolist(), watermarks.tolist(), strict=True)
        for row, (key, time, watermark) in enumerate(rows):
            found[row] = self._place(key, time, watermark)
        return found

    def _place(self, key: tuple[object, ...], time: int, watermark: int) -> int:
        open_, apart, touched = self._open.get(key, []), [], []
        for one in open_:
            if one.end - 1 <= watermark:
                self._due.append(one)
            elif one.start <= time + self.gap_ms and time <= one.end:
                touched.append(one)
            else:
                apart.append(one)
        if touched:
            session = touched[0]
            session.start = min(time, *(one.start for one in touched))
            session.end = max(time + self.gap_ms, *(one.end for one in touched))
            for one in touched[1:]:
                self._merged[one.number] = session.number
                mine = self._absorbed.setdefault(session.number, [])
                mine += [one.number, *self._absorbed.pop(one.number, [])]
        elif time + self.gap_ms - 1 <= watermark:
            self._open[key] = apart
            return -1
        else:
            session = _Session(self._next, time, time + self.gap_ms)
            self._next += 1
        self._open[key] = [*apart, session]
        return session.number

    def current(self, numbers: Times) -> Times:
        """The sessions that these have become by merging."""
        unique, places = np.unique(numbers, return_inverse=True)
        return np.array([self._root(int(one)) for one in unique], np.int64)[places]

    def _root(self, number: int) -> int:
        while number in self._merged:
            number = self._merged[number]
        return number

    def alive(self) -> frozenset[int]:
        """All numbers of sessions that have not fired, those from before they merged too."""
        there = [one.number for found in self._open.values() for one in found]
        return frozenset([*there, *(one.number for one in self._due), *self._merged])

    def numbers(self, sessions: Iterable[int]) -> frozenset[int]:
        """These, and what they were before they merged."""
        return frozenset(
            one for number in sessions for one in (number, *self._absorbed.get(number, ()))
        )

    def forget(self, sessions: Iterable[int]) -> None:
        """These have fired, and nobody will ask for them."""
        for number in sessions:
            for old in self._absorbed.pop(number, ()):
                del self._merged[old]

    def fire(self, watermark: int) -> dict[int, tuple[int, int]]:
        """Bounds of the sessions that are over, which are forgotten here."""
        due = {one.number: (one.start, one.end) for one in self._due}
        self._due = []
        for key in list(self._open):
            for one in self._open[key]:
                if one.end - 1 <= watermark:
                    due[one.number] = (one.start, one.end)
            left = [one for one in self._open[key] if one.end - 1 > watermark]
            if left:
                self._open[key] = left
            else:
                del self._open[key]
        return due
