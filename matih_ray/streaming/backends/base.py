"""What a window operator keeps, and the seam to whoever keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.streaming.aggregates import (
    KEPT,
    Aggregate,
    kept_values,
    merged_table,
    partial_table,
)
from matih_ray.streaming.backends.runs import Run
from matih_ray.streaming.windows import WINDOW, Times

PARTIAL = "partial"

Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Layout:
    """The tables of an operator, by section: partial aggregates, one row for each group, and for
    each aggregate that needs them the values of its groups."""

    keys: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    kept: Mapping[str, Aggregate] = field(init=False)

    def __post_init__(self) -> None:
        kept = {kept_name(one): one for one in self.aggregates if one.function in KEPT}
        object.__setattr__(self, "kept", kept)

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the tables."""
        return (PARTIAL, *self.kept)

    @property
    def group(self) -> list[str]:
        """The columns that make a group."""
        return [*self.keys, WINDOW]

    def distinct(self, section: str) -> str | None:
        """The column of which a section keeps the distinct values, None for other sections."""
        one = self.kept.get(section)
        return one.argument if one is not None and one.function == "COUNT_DISTINCT" else None

    def is_list(self, section: str) -> bool:
        """Whether a section keeps all values, however often they are there."""
        return section != PARTIAL and self.distinct(section) is None

    def of_rows(self, table: pa.Table) -> dict[str, pa.Table]:
        """The tables of rows with their windows."""
        found = {PARTIAL: partial_table(table, self.group, self.aggregates)}
        return found | {
            name: kept_values(table, self.group, one) for name, one in self.kept.items()
        }

    def merged(self, section: str, table: pa.Table, more: tuple[str, ...] = ()) -> pa.Table:
        """A section's table with each group, or distinct value, once. `more` columns depend on the
        group."""
        group = [*self.group, *more]
        if section == PARTIAL:
            return merged_table(table, group)
        return kept_values(table, group, self.kept[section])

    def finished(self, groups: pa.Table, kept: Mapping[str, pa.Array]) -> pa.Table:
        """Groups, windows and results, of merged partial aggregates and the results of `kept`."""
        columns = {name: groups.column(name) for name in self.group}
        for one in self.aggregates:
            name = kept_name(one)
            columns[one.output] = kept[name] if name in self.kept else one.finish(groups)
        return pa.table(columns)


def kept_name(aggregate: Aggregate) -> str:
    """The section of an aggregate that keeps values."""
    return f"kept:{aggregate.output}"


@dataclass(frozen=True)
class Due:
    """What fires: aligned windows by the watermark, or sessions by all numbers they ever had and
    the one they have."""

    watermark: int
    sessions: frozenset[int] | None = None
    numbers: frozenset[int] = frozenset()

    def windows(self, windows: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which of these windows are due, by their present numbers."""
        if self.sessions is None:
            return pc.less_equal(pc.subtract(windows, 1), self.watermark)
        return pc.is_in(windows, pa.array(list(self.sessions), pa.int64()))


class Naming(Protocol):
    """Who knows what numbers of windows mean: sessions merge, and end."""

    def current(self, numbers: Times) -> Times:
        """The sessions that these have become."""

    def alive(self) -> frozenset[int]:
        """All numbers of sessions that are open, those from before they merged too."""


class WindowState(Protocol):
    """What an operator has merged of open windows."""

    def add(self, tables: Tables) -> None:
        """Take more of some sections."""

    def fire(self, due: Due) -> Iterator[pa.Table]:
        """Groups that are due with their results, in pieces; they are gone then."""

    def snapshot(self) -> tuple[dict[str, pa.Table], tuple[Run, ...]]:
        """All there is, with present numbers of windows in the tables."""

    def restore(self, tables: Tables, runs: tuple[Run, ...]) -> None:
        """Begin with a snapshot of any backend."""

    def persist(self, shared: str) -> None:
        """Put what a snapshot only refers to where it outlives this process."""

    @property
    def memory_bytes(self) -> int:
        """What is in memory."""

    @property
    def disk_bytes(self) -> int:
        """What is in files."""

    def close(self) -> None:
        """Forget all."""


def renamed(table: pa.Table, naming: Naming | None) -> pa.Table:
    """The table with sessions by their present numbers."""
    if naming is None:
        return table
    numbers = naming.current(table.column(WINDOW).to_numpy())
    place = table.column_names.index(WINDOW)
    return table.set_column(place, WINDOW, pa.array(np.asarray(numbers), pa.int64()))


OpenState = Callable[[Layout, Naming | None], WindowState]
