"""Texts one after the other: from places in a block, and of columns as lines."""

from __future__ import annotations

import numpy as np

from matih_ray.kernels.compiling import compiled
from matih_ray.kernels.json_stretches import hex_unit
from matih_ray.kernels.words import (
    HIGH_BITS,
    NONE,
    byte_at,
    copy_bytes,
    copy_exactly,
    item,
    item32,
    put_byte,
    put_item32,
    word_at,
)

_BACKSLASH, _LETTER_U, _NEWLINE = ord("\\"), ord("u"), ord("\n")
_MEANINGS = np.arange(256)
for _letter, _meaning in zip("bfnrtv", "\b\f\n\r\t\v", strict=True):
    _MEANINGS[ord(_letter)] = ord(_meaning)


@compiled
def gather(base: int, places: int, lengths: int, count: int, offsets: int, target: int) -> int:
    """Put texts one after the other.

    Args:
        base: Address of the block, which has `kernels.PADDING` after it.
        places: Address of where each text is; one's complement of it if it has escapes, JSON's or
            those of COPY text, which are the same but for `\\v`.
        lengths: Address of the bytes of each, negative for those that are not there.
        count: How many they are.
        offsets: Address of room for one more 32-bit number than that: gets where each begins, and
            where the last ends.
        target: Address of room for all lengths, and padding.

    Returns:
        Bytes that were put.
    """
    at = 0
    for row in range(count):
        put_item32(offsets, row, at)
        length, place = item(lengths, row), item(places, row)
        if length > 0:
            if place >= 0:
                copy_bytes(base, place, length, target, at)
                at += length
            else:
                at = _unescape(base, ~place, ~place + length, target, at)
    put_item32(offsets, count, at)
    return at


@compiled
def join_lines(base: int, offsets: int, count: int, target: int) -> int:
    """Put the texts of a column one after the other, each with a newline after it.

    Args:
        base: Address of the texts.
        offsets: Address of 32-bit numbers: where each begins, and where the last ends.
        count: How many they are.
        target: Address of room for all of them and their newlines.

    Returns:
        Bytes that were put.
    """
    at = 0
    for row in range(count):
        start = item32(offsets, row)
        length = item32(offsets, row + 1) - start
        copy_exactly(base, start, length, target, at)
        put_byte(target, at + length, _NEWLINE)
        at += length + 1
    return at


@compiled
def _unescape(base: int, at: int, end: int, target: int, put: int) -> int:
    while at < end:
        byte = byte_at(base, at)
        if byte != _BACKSLASH:
            put_byte(target, put, byte)
            at, put = at + 1, put + 1
            continue
        letter = byte_at(base, at + 1)
        if letter != _LETTER_U:
            put_byte(target, put, _MEANINGS[letter])
            at, put = at + 2, put + 1
            continue
        point = hex_unit(base, at + 2)
        at += 6
        if 0xD800 <= point < 0xDC00:
            point = 0x10000 + ((point - 0xD800) << 10) + hex_unit(base, at + 2) - 0xDC00
            at += 6
        put = _put_utf8(target, put, point)
    return put


@compiled
def _put_utf8(target: int, put: int, point: int) -> int:
    """Write a code point (RFC 3629), and return where the next goes."""
    if point < 0x80:
        put_byte(target, put, point)
        return put + 1
    count = 2 if point < 0x800 else 3 if point < 0x10000 else 4
    lead = 0xC0 if count == 2 else 0xE0 if count == 3 else 0xF0
    put_byte(target, put, lead | point >> 6 * (count - 1))
    for left in range(count - 2, -1, -1):
        put_byte(target, put + count - 1 - left, 0x80 | point >> 6 * left & 0x3F)
    return put + count


@compiled
def is_utf8(base: int, at: int, end: int) -> bool:
    """Whether bytes, which have padding after them, are UTF-8 (RFC 3629)."""
    while at < end:
        if word_at(base, at) & HIGH_BITS == NONE:
            at += 8
            continue
        lead = byte_at(base, at)
        if lead < 0x80:
            at += 1
            continue
        count = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        point = lead & (0x7F >> count)
        if lead < 0xC2 or lead > 0xF4 or at + count > end:
            return False
        for place in range(at + 1, at + count):
            byte = byte_at(base, place)
            if byte & 0xC0 != 0x80:
                return False
            point = point << 6 | byte & 0x3F
        if count == 3 and (point < 0x800 or 0xD800 <= point < 0xE000):
            return False
        if count == 4 and not 0x10000 <= point < 0x110000:
            return False
        at += count
    return True
