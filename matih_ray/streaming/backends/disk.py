"""State in files: what is in memory stays below a number of bytes, whatever there is of it.

What comes is kept in memory as by the other backend, until it is too much even when merged: then
it becomes a run of each section. Runs of one level that have become many are merged to one of the
next, so that there are few, a row is written a logarithm of times, and what is there twice does not
stay.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.streaming.aggregates import finish_counts, finish_kept
from matih_ray.streaming.backends.base import PARTIAL, Due, Layout, Naming, Tables, renamed
from matih_ray.streaming.backends.directory import StateDirectory
from matih_ray.streaming.backends.memory import MemoryState
from matih_ray.streaming.backends.percentiles import large_percentiles
from matih_ray.streaming.backends.reading import (
    Opened,
    Reading,
    due_slots,
    in_order,
    joined,
    ranges,
    together,
    weights_of,
)
from matih_ray.streaming.backends.runs import (
    PART,
    PARTS,
    SESSIONS_IN_SLOT,
    SUBPARTS,
    Run,
    RunWriter,
    parts_of,
)
from matih_ray.streaming.storage import mapped, transfer
from matih_ray.streaming.windows import WINDOW

# Runs of one level that become one of the next. Of a hundred runs of 64 MB, reading opens at most
# twice as many files; a row is written three times until there are 500.
FAN_IN = 8
# At once: after a change of the number of workers there may be many, and open files are limited.
MOST_MERGED = 64
# Of the memory, what is kept of what came last: merging and sorting it need three times as much.
RECENT_SHARE = 4
# And what is merged at once when a window fires or runs become one, for the same reason, beside it.
MERGED_SHARE = 16
# So many times more values of PERCENTILE may one key group have and still be taken at once.
LARGE = 2
# Of a value in memory, with the group that it belongs to.
VALUE_BYTES = 16
_COUNT = "count_all"


class DiskState:
    """See `WindowState`. It needs about `memory_bytes`, whatever it keeps."""

    def __init__(
        self, layout: Layout, naming: Naming | None, base: Path, memory_bytes: int
    ) -> None:
        self._layout, self._naming = layout, naming
        self._base, self._memory_bytes = base, memory_bytes
        self._place: StateDirectory | None = None  # until the first file
        self._recent = MemoryState(layout, naming)
        self._bytes = 0
        self._runs: list[Run] = []

    def add(self, tables: Tables) -> None:
        """Take more of some sections.

        Raises:
            StateDiskFullError: There is no space left; nothing is lost.
        """
        self._recent.add(tables)
        self._bytes += sum(table.nbytes for table in tables.values())
        limit = self._memory_bytes // RECENT_SHARE
        if self._bytes > limit:
            self._recent.merge()
            self._bytes = self._recent.memory_bytes
            # half full of what is merged: else the next batch would have everything merged again
            if self._bytes > limit // 2:
                self._spill()

    def fire(self, due: Due) -> Iterator[pa.Table]:
        """Groups that are due with their results, in pieces of a part of the memory."""
        slots = due_slots(due)
        if any(slots(run.slot_of(one)) for run in self._runs for one in run.batches):
            yield from self._fired(due, slots)
        else:
            yield from self._recent.fire(due)
        self._drop(due)
        self._bytes = min(self._bytes, self._recent.memory_bytes)

    def snapshot(self) -> tuple[dict[str, pa.Table], tuple[Run, ...]]:
        """What is in memory, and where the rest is."""
        return self._recent.tables(), tuple(self._runs)

    def restore(self, tables: Tables, runs: tuple[Run, ...]) -> None:
        """Begin with a snapshot; its runs are linked or copied to this process's directory."""
        for run in runs:
            transfer(run.file, str(self._path(run.name)))
        self._runs = list(runs)
        self._recent.restore(tables, ())
        self._bytes = self._recent.memory_bytes
        for section in self._layout.sections:  # those of several operators may be many
            self._compact(section)

    def persist(self, shared: str) -> None:
        """Put runs that are new below the directory `shared`; those beside it are not new."""
        beside = shared.rpartition("/")[0] + "/"
        for place, run in enumerate(self._runs):
            if not run.file.startswith(beside):
                where = f"{shared}/{run.name}"
                transfer(str(self._path(run.name)), where)
                self._runs[place] = run.model_copy(update={"file": where})

    @property
    def memory_bytes(self) -> int:
        """What came last."""
        return self._bytes

    @property
    def disk_bytes(self) -> int:
        """Size of the runs' files."""
        return sum({run.name: run.bytes for run in self._runs}.values())

    def close(self) -> None:
        """Remove all files."""
        self._runs = []
        self._recent.close()
        if self._place is not None:
            self._place.close()
            self._place = None

    # --- runs --------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        if self._place is None:
            self._place = StateDirectory(self._base)
        return self._place.path / name

    def _spill(self) -> None:
        tables = self._recent.tables()
        made: list[Run] = []
        try:
            for name, table in tables.items():
                made.append(self._written(name, 0, [self._parted(name, table)]))
        except BaseException:
            self._delete(made)
            raise
        self._runs += made
        self._recent.close()
        self._bytes = 0
        for name in tables:
            self._compact(name)

    def _parted(self, section: str, table: pa.Table) -> pa.Table:
        value = self._layout.distinct(section)
        return table.append_column(PART, pa.array(parts_of(table, self._layout.keys, value)))

    def _written(self, section: str, level: int, tables: Iterable[pa.Table]) -> Run:
        """A new run; the tables have parts."""
        name = f"{uuid.uuid4().hex}.arrow"
        path, sink, rows = self._path(name), None, 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with ExitStack() as stack:
            stack.callback(path.unlink, missing_ok=True)
            with mapped(f"write state to {path.parent}"), ExitStack() as files:
                for table in tables:
                    if sink is None:
                        file = files.enter_context(pa.OSFile(str(path), "wb"))
                        writer = pa.ipc.new_file(file, table.schema, options=options)
                        sink = RunWriter(writer, self._naming is not None)
                    sink.add(table)
                    rows += table.num_rows
                if sink is not None:
                    sink.writer.close()
            if sink is None:
                return Run(name=name, section=section, bytes=0, memory_bytes=0, rows=0)
            stack.pop_all()
        return Run(
            name=name,
            section=section,
            bytes=path.stat().st_size,
            memory_bytes=sink.memory_bytes,
            rows=rows,
            level=level,
            batches=tuple(sink.batches),
        )

    def _compact(self, section: str) -> None:
        """Make one run of those of a level that have become many, and so on."""
        level = 0
        while level <= max((one.level for one in self._runs if one.section == section), default=-1):
            runs = [one for one in self._runs if (one.section, one.level) == (section, level)]
            runs = runs[:MOST_MERGED]
            if len(runs) < FAN_IN:
                level += 1
                continue
            made = self._written(section, level + 1, self._remerged(section, runs))
            self._runs = [one for one in self._runs if one not in runs]
            self._runs += [made] if made.rows else []
            self._delete([*runs, made])

    def _remerged(self, section: str, runs: list[Run]) -> Iterator[pa.Table]:
        """The rows of runs with their parts, each group or value once, by ranges of parts."""
        alive = None if self._naming is None else pa.array(list(self._naming.alive()), pa.int64())
        step = 1 if self._layout.distinct(section) else SUBPARTS
        # values of PERCENTILE never become fewer, so that they need not come together
        most = self._limit if self._layout.is_list(section) else None
        with self._opened(runs, lambda _: True) as readers:
            for low, high in ranges(weights_of(runs, lambda _: True), self._limit, step, 0, PARTS):
                found = (one for reader in readers for one in reader.tables(low=low, high=high))
                for tables in together(found, most):
                    table = renamed(joined(tables), self._naming)
                    if alive is not None:
                        table = table.filter(pc.is_in(table.column(WINDOW), alive))
                    yield self._layout.merged(section, table, (PART,))

    def _delete(self, runs: list[Run]) -> None:
        """Remove files that no run needs any more."""
        needed = {run.name for run in self._runs}
        for run in runs:
            if run.name not in needed:
                self._path(run.name).unlink(missing_ok=True)

    def _drop(self, due: Due) -> None:
        """Forget batches and runs in which no window is open any more."""
        if not self._runs:
            return
        if self._naming is None:
            over = due_slots(due)
        else:
            alive = {number // SESSIONS_IN_SLOT for number in self._naming.alive() - due.numbers}
            over = lambda slot: slot not in alive  # noqa: E731 - one of two
        left: list[Run] = []
        gone: list[Run] = []
        for run in self._runs:
            batches = tuple(one for one in run.batches if not over(run.slot_of(one)))
            if len(batches) < len(run.batches):
                run_left = run.model_copy(update={"batches": batches})
            else:
                run_left = run
            (left if batches else gone).append(run_left)
        self._runs = left
        self._delete(gone)

    # --- firing ------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        return max(1, self._memory_bytes // MERGED_SHARE)

    def _fired(self, due: Due, slots: Callable[[int], bool]) -> Iterator[pa.Table]:
        recent = {
            name: in_order(self._parted(name, table)) if table.num_rows else None
            for name, table in self._recent.taken(due).items()
        }
        by_section = {
            name: [run for run in self._runs if run.section == name]
            for name in self._layout.sections
        }
        with ExitStack() as stack:
            reading = {
                name: Reading(
                    self._layout,
                    name,
                    due,
                    self._naming,
                    slots,
                    stack.enter_context(self._opened(runs, slots)),
                    recent[name],
                    weights_of(runs, slots),
                )
                for name, runs in by_section.items()
            }
            whole = np.zeros(PARTS)
            for name, one in reading.items():
                if not self._layout.distinct(name):
                    whole += one.weights
            for low, high in ranges(whole, self._limit, SUBPARTS, 0, PARTS):
                groups = reading[PARTIAL].merged(low, high)
                if groups is None or not groups.num_rows:
                    continue
                kept = {
                    name: self._kept(reading[name], groups, low, high) for name in self._layout.kept
                }
                yield self._layout.finished(groups, kept)

    def _kept(self, reading: Reading, groups: pa.Table, low: int, high: int) -> pa.Array:
        """The results of an aggregate that keeps values, for groups of these parts."""
        keys, one = self._layout.group, self._layout.kept[reading.section]
        if self._layout.distinct(reading.section) is None:
            if reading.bytes_between(low, high) > LARGE * self._limit:
                most_rows = max(1, self._limit // VALUE_BYTES)
                pieces = partial(reading.pieces, low, high)
                return large_percentiles(pieces, groups, keys, one, most_rows)
            kept = reading.merged(low, high)
            return finish_kept(kept if kept is not None else pa.table({}), groups, keys, one)
        counts = []
        for first, end in ranges(reading.weights, self._limit, 1, low, high):
            values = reading.merged(first, end)
            if values is not None and values.num_rows:
                grouped = values.group_by(keys, use_threads=False)
                counts.append(grouped.aggregate([([], _COUNT)]))
        return finish_counts(counts, groups, keys, _COUNT)

    def _opened(self, runs: list[Run], slots: Callable[[int], bool]) -> Opened:
        chosen = [run for run in runs if any(slots(run.slot_of(one)) for one in run.batches)]
        return Opened([(run, str(self._path(run.name))) for run in chosen])
