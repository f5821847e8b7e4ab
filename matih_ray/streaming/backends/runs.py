"""Runs: Arrow files of state that are written once.

A row has a slot, its window or for sessions a range of numbers, and a part: a hash of its key,
whose high bits are the key group, and where only distinct values are kept a hash of the value below
it. Rows are in this order in batches of one slot each, and the run says which batch has what. So a
window's share of keys, however many it has, is read without the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.model.value import Value
from matih_ray.streaming.key_groups import KEY_GROUPS, key_groups
from matih_ray.streaming.storage import filesystem_of, mapped
from matih_ray.streaming.windows import WINDOW, Times

PART = "part"
# Parts of a key group: enough that one of them fits into memory if one key has most values.
SUBPARTS = 128
PARTS = KEY_GROUPS * SUBPARTS
# Sessions whose numbers are near began at about the same time, and end so.
SESSIONS_IN_SLOT = 4096
# A batch ends at the part in which it has so many rows: large enough that reading it is worth the
# call, small beside what is merged at once.
BATCH_ROWS = 16 * 1024


class Batch(NamedTuple):
    """A batch of a run: its number in the file, its slot, its first and last part, its rows."""

    number: int
    slot: int
    first: int
    last: int
    rows: int


class Run(Value):
    """A file of state, and what of it is meant: rows of `batches` in parts from `low` below `high`.

    `file` is where it is durable, empty while it is only in its process's directory. Numbers of
    sessions in it have become greater by `shift`. `level` tells how often its rows were merged.
    """

    name: str
    section: str
    file: str = ""
    bytes: int
    memory_bytes: int
    rows: int
    level: int = 0
    shift: int = 0
    low: int = 0
    high: int = PARTS
    batches: tuple[Batch, ...] = ()

    def slot_of(self, batch: Batch) -> int:
        """A batch's slot, by the present numbers of sessions."""
        return batch.slot + self.shift // SESSIONS_IN_SLOT

    def bytes_of(self, batch: Batch) -> int:
        """About what a batch takes in memory."""
        return self.memory_bytes * batch.rows // max(self.rows, 1)

    def shared(self, low: int, high: int, shift: int = 0) -> Run:
        """The same with fewer parts; numbers of sessions greater by so much more."""
        low, high = max(low, self.low), min(high, self.high)
        there = tuple(one for one in self.batches if one.first < high and one.last >= low)
        update = {"low": low, "high": high, "shift": self.shift + shift, "batches": there}
        return self.model_copy(update=update)


def parts_of(table: pa.Table, keys: tuple[str, ...], value: str | None) -> np.ndarray:
    """The part of each row; `value` is the column whose distinct values are kept, if any."""
    found = key_groups(table, keys) * SUBPARTS
    if value is not None:
        found += key_groups(table, [value]) % SUBPARTS
    return found.astype(np.uint16)


@dataclass
class RunWriter:
    """Writes a run; tables come with their parts, in any order."""

    writer: pa.ipc.RecordBatchFileWriter
    sessions: bool

    def __post_init__(self) -> None:
        self.batches: list[Batch] = []
        self.memory_bytes = 0

    def add(self, table: pa.Table) -> None:
        """Write the rows of a table, which has parts."""
        slots = table.column(WINDOW).to_numpy()
        slots = slots // SESSIONS_IN_SLOT if self.sessions else slots
        parts = table.column(PART).to_numpy()
        order = np.lexsort((parts, slots))
        slots, parts = slots[order], parts[order]
        self.memory_bytes += table.nbytes
        for first, end in _cuts(slots, parts):
            rows = table.take(pa.array(order[first:end])).combine_chunks()
            (batch,) = rows.to_batches()
            self.writer.write_batch(batch)
            self.batches.append(
                Batch(
                    len(self.batches),
                    int(slots[first]),
                    int(parts[first]),
                    int(parts[end - 1]),
                    end - first,
                )
            )


def _cuts(slots: Times, parts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where batches begin and end: within a slot, between parts."""
    changes = np.flatnonzero((np.diff(slots) != 0) | (np.diff(parts.astype(np.int64)) != 0)) + 1
    begun = 0
    for place in changes.tolist():
        if slots[place] != slots[place - 1] or place - begun >= BATCH_ROWS:
            yield begun, place
            begun = place
    if begun < len(slots):
        yield begun, len(slots)


@dataclass(frozen=True)
class RunReader:
    """An open run."""

    run: Run
    reader: pa.ipc.RecordBatchFileReader

    def tables(
        self, chosen: Callable[[int], bool] = lambda _: True, low: int = 0, high: int = PARTS
    ) -> Iterator[pa.Table]:
        """Rows of some slots in these parts, with their parts and the present slots and windows."""
        run = self.run
        low, high = max(low, run.low), min(high, run.high)
        for one in run.batches:
            if one.last < low or one.first >= high or not chosen(run.slot_of(one)):
                continue
            with mapped(f"read state {run.name}"):
                batch = self.reader.get_batch(one.number)
            table = pa.Table.from_batches([batch])
            if one.first < low or one.last >= high:
                part = table.column(PART)
                table = table.filter(pc.and_(pc.greater_equal(part, low), pc.less(part, high)))
            yield _shifted(table, run.shift)


def _shifted(table: pa.Table, by: int) -> pa.Table:
    if not by:
        return table
    place = table.column_names.index(WINDOW)
    return table.set_column(place, WINDOW, pc.add(table.column(WINDOW), by))


@contextmanager
def opened_run(run: Run, where: str) -> Iterator[RunReader]:
    """A run, read from a URI or path.

    Raises:
        StateError: It cannot be read.
    """
    files, path = filesystem_of(where)
    with mapped(f"open state {where}"):
        stream = files.open_input_file(path)
    try:
        with mapped(f"open state {where}"):
            reader = pa.ipc.open_file(stream)
        yield RunReader(run, reader)
    finally:
        stream.close()
