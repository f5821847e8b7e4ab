"""The seam of sources: partitions that are read on from positions, and never need to end.

A connector implements `StreamReader` and gets a branch in `opening.open_reader`. What a reader must
keep:

1. `open(None)` starts where the table's options say; `open(positions)` starts exactly behind the
   row that the positions were taken at, whatever the options say. A partition that the positions do
   not name is new, and is read from its beginning.
2. Between two calls of `poll`, `positions` stands behind every row that was returned and before
   every other one. Positions are JSON, belong to the reader, and hold all that it needs (where a
   bounded read ends, for instance). A transaction that must stay whole comes in one poll, or the
   reader `HoldsCheckpoints` while it is under way.
3. Rows of a partition come in the partition's own order; event time, lateness and watermarks are
   judged by it.
4. `acknowledge` tells that a checkpoint with these positions is durable and its rows are committed:
   now, and not earlier, the source may forget them.
5. Nothing is started before `open`; `close` may be called at any time, and twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa

from matih_ray.model.value import JsonValue
from matih_ray.streaming.sql.types import FlinkType

# What happened to a row, as Flink numbers it: +I, -U, +U, -D.
INSERT, UPDATE_BEFORE, UPDATE_AFTER, DELETE = range(4)
KIND_NAMES = ("+I", "-U", "+U", "-D")


@dataclass(frozen=True)
class MetadataColumn:
    """A column that is filled by the connector: the key it is asked by, and its declared type."""

    key: str
    type: FlinkType


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read and was left out."""

    position: str  # within its partition, for people: an offset, a line
    reason: str
    raw: bytes


@dataclass(frozen=True)
class Polled:
    """Rows of one partition in order: the physical columns that were asked for, then metadata.

    `kinds` (int8, see `INSERT` and the others) is None where all rows are inserts. `origin` tells
    the position of a row, by its number, and the bytes that it was read from; it is asked for few
    rows, before the next poll, and None where the reader does not know.
    """

    partition: str
    batch: pa.RecordBatch
    kinds: pa.Array | None = None
    bad: tuple[BadRow, ...] = ()
    origin: Callable[[int], tuple[str, bytes]] | None = None


class StreamReader(Protocol):
    """One table being read, by one thread."""

    def open(self, positions: Mapping[str, JsonValue] | None) -> None:
        """Connect and take up the positions.

        Raises:
            SourceError: The source refuses, or the positions are no longer there.
            SqlInvalidError: An option is wrong.
        """

    def partitions(self) -> Collection[str]:
        """All partitions, those without rows too; there may be more of them later."""

    def poll(self, max_rows: int, timeout_s: float) -> Sequence[Polled]:
        """What has come, about `max_rows` at most; nothing if nothing comes in time.

        Raises:
            SourceError: Reading failed.
            StreamRowError: A row cannot be read, and the table's options do not say to go on.
        """

    def positions(self) -> dict[str, JsonValue]:
        """Where each partition is read on."""

    def caught_up(self) -> Collection[str]:
        """Partitions that have nothing more now: only these can become idle."""

    def finished(self) -> Collection[str]:
        """Partitions that will never have anything more; all of them end a bounded read."""

    def acknowledge(self, positions: Mapping[str, JsonValue]) -> None:
        """These positions will not be read again. Must not fail a job: failures are logged."""

    def close(self) -> None:
        """Release connections."""


@runtime_checkable
class FindsPartitions(Protocol):
    """A reader that may have no partition yet, which is no end of the table."""

    def finds_more(self) -> bool:
        """Whether partitions may come."""


@runtime_checkable
class HoldsCheckpoints(Protocol):
    """A reader whose rows sometimes may not be made final without those to come."""

    def holds(self) -> bool:
        """Whether something that must stay whole is under way: no checkpoint may be made now."""


@runtime_checkable
class MeasuresLag(Protocol):
    """A reader for which the source keeps what was not acknowledged."""

    def lag_bytes(self) -> int | None:
        """How much that is, as of the last look; None before the first."""
