"""A sink with a side table: the rows of a job and the rows that it left out, committed together."""

from __future__ import annotations

import pyarrow as pa

from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import JsonValue
from matih_ray.streaming.connectors.sinks import TableSink
from matih_ray.streaming.rejects import SCHEMA

SUFFIX = "_rejected"
# Rows that are left out come a few at a time; a batch of them is one write.
_BATCH_ROWS = 16_384


class SidedSink:
    """Two `TableSink`s that one checkpoint commits.

    The main table always has a commit when the side table has one, so that its marker tells for
    both whether a checkpoint was committed. It is committed first: an owner that was replaced fails
    there, and leaves nothing in either.
    """

    def __init__(self, main: TableSink, side: TableSink) -> None:
        self._main, self._side = main, side
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self.rejected = 0

    @property
    def marker(self) -> CommitMarker | None:
        """The main table's."""
        return self._main.marker

    @property
    def is_marked(self) -> bool:
        """Whether the main table's commits leave markers."""
        return self._main.is_marked

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows of the job."""
        self._main.write(batch)

    def reject(self, rows: pa.Table) -> None:
        """Take rows that it left out, as `rejects.SCHEMA`."""
        self._waiting.append(rows)
        self._rows += rows.num_rows
        self.rejected += rows.num_rows
        if self._rows >= _BATCH_ROWS:
            self._write_side()

    def prepare(self, *, always: bool = False) -> JsonValue:
        """Finish both."""
        self._write_side()
        side = self._side.prepare(always=always)
        main = self._main.prepare(always=always or side is not None)
        return None if main is None and side is None else {"main": main, "side": side}

    def commit(self, prepared: JsonValue) -> None:
        """Show both."""
        if isinstance(prepared, dict):
            self._main.commit(prepared["main"])
            self._side.commit(prepared["side"])

    def abort(self) -> None:
        """Drop both."""
        self._waiting.clear()
        self._main.abort()
        self._side.abort()

    def _write_side(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting).cast(SCHEMA).combine_chunks()
            self._waiting, self._rows = [], 0
            for batch in table.to_batches():
                self._side.write(batch)
