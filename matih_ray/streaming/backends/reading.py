"""What is read of runs while windows fire or runs are merged: ranges of parts, in whose order all
runs are, each small enough for the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matih_ray.streaming.backends.base import Due, Layout, Naming, renamed
from matih_ray.streaming.backends.runs import (
    PART,
    PARTS,
    SESSIONS_IN_SLOT,
    Run,
    RunReader,
    opened_run,
)
from matih_ray.streaming.windows import WINDOW

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sorted:
    """Rows in the order of their parts."""

    table: pa.Table
    parts: np.ndarray

    def between(self, low: int, high: int) -> pa.Table:
        """Those in a range of parts."""
        first, end = np.searchsorted(self.parts, [low, high])
        return self.table.slice(first, end - first)


class Opened(ExitStack):
    """Runs, open for as long as the context is."""

    def __init__(self, runs: list[tuple[Run, str]]) -> None:
        super().__init__()
        self._wanted = runs

    def __enter__(self) -> list[RunReader]:  # type: ignore[override] # what is opened, not this
        super().__enter__()
        try:
            return [self.enter_context(opened_run(run, where)) for run, where in self._wanted]
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True)
class Reading:
    """A section while windows fire: its runs, and what is due of the rest."""

    layout: Layout
    section: str
    due: Due
    naming: Naming | None
    slots: Callable[[int], bool]
    readers: list[RunReader]
    recent: Sorted | None
    weights: Weights

    def merged(self, low: int, high: int) -> pa.Table | None:
        """What is due in these parts, None if there is nothing."""
        tables = list(self._tables(low, high))
        return self.layout.merged(self.section, self._due(joined(tables))) if tables else None

    def pieces(self, low: int, high: int) -> Iterator[pa.Table]:
        """The same one after the other, as they are in files."""
        return map(self._due, self._tables(low, high))

    def bytes_between(self, low: int, high: int) -> float:
        """About what there is in these parts."""
        recent = self.recent.between(low, high).nbytes if self.recent is not None else 0
        return float(self.weights[low:high].sum()) + recent

    def _tables(self, low: int, high: int) -> Iterator[pa.Table]:
        if self.recent is not None:
            yield self.recent.between(low, high)
        for run in self.readers:
            yield from run.tables(self.slots, low, high)

    def _due(self, table: pa.Table) -> pa.Table:
        table = renamed(table.drop_columns([PART]), self.naming)
        if self.due.sessions is not None:  # a slot has sessions that are not due
            table = table.filter(self.due.windows(table.column(WINDOW)))
        return table


def due_slots(due: Due) -> Callable[[int], bool]:
    """Which slots have something that is due."""
    if due.sessions is None:
        return lambda slot: slot - 1 <= due.watermark
    slots = {number // SESSIONS_IN_SLOT for number in due.numbers}
    return lambda slot: slot in slots


def together(tables: Iterator[pa.Table], most_bytes: int | None) -> Iterator[list[pa.Table]]:
    """Tables in lists of about so many bytes, all in one if that is None."""
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if most_bytes is not None and size >= most_bytes:
            yield held
            held, size = [], 0
    if held:
        yield held


def joined(tables: list[pa.Table]) -> pa.Table:
    """All as one, with the columns in the order of the first."""
    names = tables[0].column_names
    return pa.concat_tables([table.select(names) for table in tables])


def in_order(table: pa.Table) -> Sorted:
    """A table that has parts, by them."""
    parts = table.column(PART).to_numpy()
    order = np.argsort(parts, kind="stable")
    return Sorted(table.take(pa.array(order)), parts[order])


def weights_of(runs: list[Run], slots: Callable[[int], bool]) -> Weights:
    """About how many bytes of some slots each part has."""
    found = np.zeros(PARTS)
    for run in runs:
        for one in run.batches:
            if slots(run.slot_of(one)):
                found[one.first : one.last + 1] += run.bytes_of(one) / (one.last - one.first + 1)
    return found


def ranges(
    weights: Weights, limit: int, step: int, low: int, high: int
) -> Iterator[tuple[int, int]]:
    """Ranges of parts between two, all of them, each within the limit or one step long."""
    steps = np.add.reduceat(weights[low:high], np.arange(0, high - low, step))
    begun, held = low, 0.0
    for number, weight in enumerate(steps.tolist()):
        place = low + number * step
        if held and held + weight > limit:
            yield begun, place
            begun, held = place, 0.0
        held += weight
    yield begun, high
