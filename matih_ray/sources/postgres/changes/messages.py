"""The messages of `pgoutput`, protocol version 1.

PostgreSQL's documentation, "Logical Replication Message Formats". Values are text, as the type's
output function writes them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from matih_ray.errors import SourceError

# First bytes of messages.
BEGIN, COMMIT, RELATION = ord("B"), ord("C"), ord("R")
INSERT, UPDATE, DELETE, TRUNCATE = ord("I"), ord("U"), ord("D"), ord("T")
# Before a tuple: the new row, the whole old row, the old row's key.
_NEW, _OLD, _KEY = ord("N"), ord("O"), ord("K")
_NULL, _UNCHANGED, _TEXT = ord("n"), ord("u"), ord("t")

_U16 = struct.Struct("!H").unpack_from
_U32 = struct.Struct("!I").unpack_from
_BEGIN = struct.Struct("!QqI").unpack_from
_COMMIT = struct.Struct("!BQQq").unpack_from
_COLUMN = struct.Struct("!Ii").unpack_from
_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)


class Unchanged:
    """Stands for a large value that an update did not touch and the server did not send."""


UNCHANGED = Unchanged()
# NULL is None.
Field = bytes | None | Unchanged
Tuple = list[Field]


@dataclass(frozen=True)
class Begin:
    """A transaction that has committed at `final_lsn`; `xid` is 32 bits wide."""

    final_lsn: int
    committed_at: datetime
    xid: int


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


class Change(NamedTuple):
    """One row. `old` is there if the server sent it; `whole` says that it is more than the key."""

    kind: int
    old: Tuple | None
    whole: bool
    new: Tuple | None


def begin_of(data: bytes) -> Begin:
    """A `B` message."""
    final_lsn, micros, xid = _BEGIN(data, 1)
    return Begin(final_lsn, _EPOCH + timedelta(microseconds=micros), xid)


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


def relation_oid(data: bytes) -> int:
    """Which table an `I`, `U` or `D` message is about."""
    return int(_U32(data, 1)[0])


def change_of(data: bytes) -> Change:
    """An `I`, `U` or `D` message.

    Raises:
        SourceError: The message has another form, as a later protocol might.
    """
    kind, mark = data[0], data[5]
    old, whole, at = None, mark == _OLD, 6
    if mark != _NEW:
        if mark not in (_OLD, _KEY):
            raise SourceError(f"pgoutput sent a change with a tuple of kind {mark}")
        old, at = _tuple(data, at)
        at += 1  # the mark of the new row
    new = None if kind == DELETE else _tuple(data, at)[0]
    return Change(kind, old, whole, new)


def inserted(data: bytes) -> Tuple:
    """The row of an `I` message, the most frequent of all."""
    return _tuple(data, 6)[0]


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


def _tuple(data: bytes, at: int) -> tuple[Tuple, int]:
    (count,) = _U16(data, at)
    at += 2
    fields: Tuple = []
    for _ in range(count):
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + _U32(data, at + 1)[0]
            fields.append(data[start:at])
        elif kind == _NULL:
            fields.append(None)
            at += 1
        elif kind == _UNCHANGED:
            fields.append(UNCHANGED)
            at += 1
        else:
            raise SourceError(f"pgoutput sent a value of kind {kind}")
    return fields, at


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
