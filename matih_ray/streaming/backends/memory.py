"""All state in the process: fastest, and lost with it until a checkpoint is written."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.streaming.aggregates import finish_kept
from matih_ray.streaming.backends.base import PARTIAL, Due, Layout, Naming, Tables, renamed
from matih_ray.streaming.backends.runs import PART, Run, opened_run
from matih_ray.streaming.windows import WINDOW

# Partial aggregates of batches are merged when they are this many times the merged ones: merging
# then costs a constant share of the work, and memory at most this many times what it must be.
MERGE_GROWTH = 4
MERGE_MIN_ROWS = 100_000


class MemoryState:
    """See `WindowState`."""

    def __init__(self, layout: Layout, naming: Naming | None) -> None:
        self._layout, self._naming = layout, naming
        self._parts: dict[str, list[pa.Table]] = {name: [] for name in layout.sections}
        self._merged_rows = 0

    def add(self, tables: Tables) -> None:
        """Take more of some sections."""
        for name, table in tables.items():
            if table.num_rows:
                self._parts[name].append(table)
        rows = sum(len(part) for parts in self._parts.values() for part in parts)
        if rows > max(MERGE_MIN_ROWS, MERGE_GROWTH * self._merged_rows):
            self.merge()

    def fire(self, due: Due) -> Iterator[pa.Table]:
        """Groups that are due with their results, in one piece."""
        if not self.is_due(due):
            return
        found = self.taken(due)
        groups = found[PARTIAL]
        kept = {
            name: finish_kept(found[name], groups, self._layout.group, one)
            for name, one in self._layout.kept.items()
        }
        yield self._layout.finished(groups, kept)

    def is_due(self, due: Due) -> bool:
        """Whether anything may be due."""
        parts = self._parts[PARTIAL]
        if due.sessions is not None or not parts:
            return bool(due.sessions) and bool(parts)
        return bool(min(pc.min(part.column(WINDOW)).as_py() for part in parts) - 1 <= due.watermark)

    def taken(self, due: Due) -> dict[str, pa.Table]:
        """What is due of each section, merged; it is gone then."""
        self.merge()
        found = {}
        for name, parts in self._parts.items():
            if not parts:
                found[name] = pa.table({})
                continue
            is_due = due.windows(parts[0].column(WINDOW))
            found[name] = parts[0].filter(is_due)
            left = parts[0].filter(pc.invert(is_due))
            parts[:] = [left] if left.num_rows else []
        return found

    def merge(self) -> None:
        """Make one table of each section, with the present numbers of windows."""
        for name, parts in self._parts.items():
            if parts:
                table = renamed(pa.concat_tables(parts), self._naming)
                parts[:] = [self._layout.merged(name, table)]
        self._merged_rows = sum(len(part) for parts in self._parts.values() for part in parts)

    def tables(self) -> dict[str, pa.Table]:
        """The sections that are not empty, merged."""
        self.merge()
        return {name: parts[0] for name, parts in self._parts.items() if parts}

    def snapshot(self) -> tuple[dict[str, pa.Table], tuple[Run, ...]]:
        """The tables."""
        return self.tables(), ()

    def restore(self, tables: Tables, runs: tuple[Run, ...]) -> None:
        """Begin with a snapshot; runs are read whole."""
        self._parts = {
            name: [tables[name]] if name in tables else [] for name in self._layout.sections
        }
        for run in runs:
            with opened_run(run, run.file) as reader:
                self._parts[run.section] += [
                    table.drop_columns([PART]) for table in reader.tables()
                ]
        self._merged_rows = sum(len(part) for parts in self._parts.values() for part in parts)

    def persist(self, shared: str) -> None:
        """Everything is in the snapshot."""

    @property
    def memory_bytes(self) -> int:
        """What is in memory."""
        return sum(part.nbytes for parts in self._parts.values() for part in parts)

    @property
    def disk_bytes(self) -> int:
        """Nothing is in files."""
        return 0

    def close(self) -> None:
        """Forget all."""
        for parts in self._parts.values():
            parts.clear()
