"""Bounded tables (`filesystem`, `datagen`) behind the seam of streams: one partition that ends.

Its position is the number of rows that were returned. Going on from one reads what is before it
again and leaves it out, which is right as long as the files stay as they are, as Flink asks too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import pyarrow as pa

from matih_ray.errors import SourceChangedError
from matih_ray.model.value import JsonValue
from matih_ray.streaming.connectors.reader import BadRow, Polled
from matih_ray.streaming.connectors.sources import SourceRead

ONLY = "0"  # read as one partition, as Flink does with parallelism 1


class BoundedReader:
    """A `StreamReader` of an iterator of batches."""

    def __init__(self, start: Callable[[], SourceRead]) -> None:
        self._start = start
        self._read: SourceRead | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None
        self._rows = 0
        self._bad = 0
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
        self._bad = self._read.counts["bad"]

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
        """Forget the files."""
        self._batches = iter(())

    def _next(self, max_rows: int) -> pa.RecordBatch | None:
        while self._rest is None or self._rest.num_rows == 0:
            self._rest = next(self._batches, None)
            if self._rest is None:
                return None
        batch, self._rest = self._rest.slice(0, max_rows), self._rest.slice(max_rows)
        return batch

    def _new_bad(self) -> tuple[BadRow, ...]:
        """Rows left out since; files do not say which."""
        assert self._read is not None  # noqa: S101 - opened
        new = self._read.counts["bad"] - self._bad
        self._bad += new
        return (BadRow("", "unreadable", b""),) * new
