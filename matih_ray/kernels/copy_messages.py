"""Rows out of PostgreSQL's messages ("Message Formats" of its manual): each is a letter and a
length of four bytes, highest first, that counts itself."""

from __future__ import annotations

from matih_ray.kernels.compiling import compiled
from matih_ray.kernels.words import byte_at, copy_exactly, put_item

HEADER_BYTES = 5
_COPY_DATA = ord("d")


@compiled
def unwrap(base: int, at: int, size: int, put: int, ends: int) -> int:
    """Move the contents of whole CopyData messages to the front, without gaps.

    Args:
        base: Address of messages.
        at: Where the first of them begins.
        size: Where what is there ends.
        put: Where contents go, at or before the first message.
        ends: Address of room for a number: gets where the first message begins that is not there
            to its end, or is another one.

    Returns:
        Where the contents end.
    """
    while at + HEADER_BYTES <= size and byte_at(base, at) == _COPY_DATA:
        length = _length(base, at) + 1 - HEADER_BYTES
        after = at + HEADER_BYTES + length
        if length < 0 or after > size:
            break
        copy_exactly(base, at + HEADER_BYTES, length, base, put)
        at, put = after, put + length
    put_item(ends, 0, at)
    return put


@compiled
def _length(base: int, at: int) -> int:
    """The length of the message that begins here."""
    high = byte_at(base, at + 1) << 24 | byte_at(base, at + 2) << 16
    return int(high | byte_at(base, at + 3) << 8 | byte_at(base, at + 4))
