"""Bounded tables (`filesystem`, `datagen`) behind the seam of streams: one partition that ends, or
one for each file where several readers share them.

A position is the number of rows that were returned. Going on from one reads what is before it
again and leaves it out, which is right as long as the files stay as they are, as Flink asks too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa

from matih_ray.errors import SourceChangedError
from matih_ray.model.value import JsonValue
from matih_ray.streaming.connectors.options import local_path, option, table_name
from matih_ray.streaming.connectors.reader import BadRow, Polled
from matih_ray.streaming.connectors.shares import Share
from matih_ray.streaming.connectors.sources import SourceRead, files_of, open_source
from matih_ray.streaming.sql.script import CreateTable
from matih_ray.streaming.sql.types import FlinkType

ONLY = "0"  # read as one partition, as Flink does with parallelism 1


class BoundedReader:
    """A `StreamReader` of an iterator of batches."""

    def __init__(self, start: Callable[[], SourceRead]) -> None:
        self._start = start
        self._read: SourceRead | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None
        self._rows = 0
        self._ended = False

    def open(self, positions: Mapping[str, JsonValue] | None) -> None:
        """Begin, or read up to the position."""
        self._read = self._start()
        self._batches = iter(self._read.batches)
        at = (positions or {}).get(ONLY, 0)
        assert isinstance(at, int)  # noqa: S101 - written by `positions`
        while self._rows < at:
            batch = self._next(at - self._rows)
            if batch is None:
                raise SourceChangedError(
                    f"the files have {self._rows} rows, and the checkpoint is behind row {at}; "
                    "files of a job must not change"
                )
            self._rows += batch.num_rows
        self._read.bad.clear()  # told of before the position was taken

    def partitions(self) -> Collection[str]:
        """One."""
        return (ONLY,)

    def poll(self, max_rows: int, timeout_s: float) -> Sequence[Polled]:
        """The next rows."""
        del timeout_s  # files do not let wait
        batch = self._next(max_rows)
        bad = self._new_bad()
        if batch is None:
            self._ended = True
            return [Polled(ONLY, pa.record_batch([], names=[]), bad=bad)] if bad else []
        self._rows += batch.num_rows
        return [Polled(ONLY, batch, bad=bad)]

    def positions(self) -> dict[str, JsonValue]:
        """Rows returned."""
        return {ONLY: self._rows}

    def caught_up(self) -> Collection[str]:
        """Never: files are there or ended."""
        return ()

    def finished(self) -> Collection[str]:
        """The one, at its end."""
        return (ONLY,) if self._ended else ()

    def acknowledge(self, positions: Mapping[str, JsonValue]) -> None:
        """Files stay."""

    def close(self) -> None:
        """End the threads that read ahead, and forget the files."""
        if self._read is not None:
            self._read.batches.close()
        self._batches = iter(())

    def _next(self, max_rows: int) -> pa.RecordBatch | None:
        while self._rest is None or self._rest.num_rows == 0:
            self._rest = next(self._batches, None)
            if self._rest is None:
                return None
        batch, self._rest = self._rest.slice(0, max_rows), self._rest.slice(max_rows)
        return batch

    def _new_bad(self) -> tuple[BadRow, ...]:
        """Rows left out since."""
        assert self._read is not None  # noqa: S101 - opened
        new = tuple(self._read.bad)
        self._read.bad.clear()
        return new


class SharedFilesReader:
    """A `StreamReader` of a share of a table's files, one after the other: each is a partition, so
    that another number of readers can go on. Sample data is all of the first share."""

    def __init__(
        self, table: CreateTable, fields: Mapping[str, FlinkType], share: Share, *, keep_bad: bool
    ) -> None:
        self._table, self._fields, self._keep_bad = table, fields, keep_bad
        self._share = share
        self._readers: dict[str, BoundedReader] = {}
        self._at: dict[str, JsonValue] = {}

    def open(self, positions: Mapping[str, JsonValue] | None) -> None:
        """Find the files, and begin each or go on."""
        files = self._files()
        if positions is not None and ONLY in positions and files and ONLY not in files:
            raise SourceChangedError(
                f"table {table_name(self._table)}: the checkpoint counts the rows of all files "
                "together, as one task reads them; it cannot be shared by several: keep "
                "parallelism 1, or start anew"
            )
        self._at = dict(positions or {})
        for number, (name, start) in enumerate(sorted(files.items())):
            if self._share.has("", number):
                self._readers[name] = BoundedReader(start)
                self._at.setdefault(name, 0)
        self._at = {name: self._at[name] for name in self._readers}
        self._open: str | None = None

    def partitions(self) -> Collection[str]:
        """The files of this share."""
        return tuple(self._readers)

    def poll(self, max_rows: int, timeout_s: float) -> Sequence[Polled]:
        """The next rows of the first file that has not ended."""
        name = next((one for one, reader in self._readers.items() if not reader.finished()), None)
        if name is None:
            return []
        reader = self._readers[name]
        if self._open != name:
            reader.open({ONLY: self._at[name]})
            self._open = name
        found = reader.poll(max_rows, timeout_s)
        self._at[name] = reader.positions()[ONLY]
        return [replace(one, partition=name) for one in found]

    def positions(self) -> dict[str, JsonValue]:
        """Rows returned of each file."""
        return dict(self._at)

    def caught_up(self) -> Collection[str]:
        """Never: files are there or ended."""
        return ()

    def finished(self) -> Collection[str]:
        """The files that were read to their ends."""
        return tuple(name for name, reader in self._readers.items() if reader.finished())

    def acknowledge(self, positions: Mapping[str, JsonValue]) -> None:
        """Files stay."""

    def close(self) -> None:
        """Forget the files."""
        for reader in self._readers.values():
            reader.close()

    def _files(self) -> dict[str, Callable[[], SourceRead]]:
        if option(self._table, "connector") != "filesystem":
            return {ONLY: lambda: open_source(self._table, self._fields)}
        root = local_path(self._table)
        return {
            str(path.relative_to(root)) if path != root else path.name: partial(
                open_source, self._table, self._fields, files=[path], keep_bad=self._keep_bad
            )
            for path in files_of(self._table)
        }
