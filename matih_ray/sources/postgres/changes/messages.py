"""The messages of `pgoutput`, protocol version 1, but for rows, which `tuples` reads many at once.

PostgreSQL's documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

# First bytes of messages.
BEGIN, COMMIT, RELATION = ord("B"), ord("C"), ord("R")
INSERT, UPDATE, DELETE, TRUNCATE = ord("I"), ord("U"), ord("D"), ord("T")
# The first byte and the table's number say whose row a message is.
HEAD_BYTES = 5

_U16 = struct.Struct("!H").unpack_from
_U32 = struct.Struct("!I").unpack_from
_BEGIN = struct.Struct("!QqI").unpack_from
_COMMIT = struct.Struct("!BQQq").unpack_from
_COLUMN = struct.Struct("!Ii").unpack_from
_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)


class Begin(NamedTuple):
    """A transaction that has committed at `final_lsn`, so many microseconds after the year 2000
    began; `xid` is 32 bits wide."""

    final_lsn: int
    committed_us: int
    xid: int

    @property
    def committed_at(self) -> datetime:
        """When it committed."""
        return _EPOCH + timedelta(microseconds=self.committed_us)


@dataclass(frozen=True)
class RelationColumn:
    """A column as it is sent."""

    name: str
    type_oid: int
    modifier: int


@dataclass(frozen=True)
class RelationMessage:
    """A table as it is from here on in the stream. `identity` is d, n, f or i."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


def begin_of(data: bytes) -> Begin:
    """A `B` message."""
    return Begin._make(_BEGIN(data, 1))


def end_of_commit(data: bytes) -> int:
    """Where the transaction of a `C` message ends: the position behind it."""
    return int(_COMMIT(data, 1)[2])


def relation_of_message(data: bytes) -> RelationMessage:
    """An `R` message."""
    (oid,) = _U32(data, 1)
    schema, at = _string(data, 5)
    name, at = _string(data, at)
    identity = chr(data[at])
    (count,) = _U16(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        column, at = _string(data, at + 1)  # behind the flag for the key
        type_oid, modifier = _COLUMN(data, at)
        columns.append(RelationColumn(column, type_oid, modifier))
        at += 8
    return RelationMessage(oid, schema or "pg_catalog", name, identity, tuple(columns))


def heads_of(oid: int) -> frozenset[bytes]:
    """How messages about rows of a table begin."""
    return frozenset(struct.pack("!BI", kind, oid) for kind in (INSERT, UPDATE, DELETE))


def truncated(data: bytes) -> tuple[int, ...]:
    """The tables of a `T` message."""
    (count,) = _U32(data, 1)
    return struct.unpack_from(f"!{count}I", data, 6)


def lsn_text(lsn: int) -> str:
    """A position in the write-ahead log as PostgreSQL writes it: `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_of(text: str) -> int:
    """The position that a text is."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
