"""Memory by addresses: bytes, words of eight of them, and tables of integers.

Who reads a word at a place may read seven bytes more than there are, so blocks have
`kernels.PADDING` after them.

Numba keeps the machine code of a kernel until the kernel's own module changes: after a change of
this one, remove the `__pycache__` of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from matih_ray.kernels.compiling import compiled

_ONES = np.uint64(0x0101010101010101)
HIGH_BITS = np.uint64(0x8080808080808080)
_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_SPACES = np.uint64(0x2020202020202020)
_TABS = np.uint64(0x0909090909090909)
_NEWLINES = np.uint64(0x0A0A0A0A0A0A0A0A)
NONE = np.uint64(0)
_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_PLACE = (types.int64, types.int64)
_Generate = Callable[..., Any]


def _read(builder: Any, base: Any, place: Any, kind: Any) -> Any:
    return builder.load(_pointer(builder, base, place, kind), align=1)


def _put(builder: Any, base: Any, place: Any, value: Any) -> Any:
    builder.store(value, _pointer(builder, base, place, value.type), align=1)
    return ir.Constant(_WORD, 0)


def _pointer(builder: Any, base: Any, place: Any, kind: Any) -> Any:
    return builder.inttoptr(builder.add(base, place), kind.as_pointer())


def _times(builder: Any, index: Any, size: int) -> Any:
    return builder.mul(index, ir.Constant(_WORD, size))


def _putting(size: int) -> tuple[Any, _Generate]:
    """What writes the low bytes of an integer into a table of integers of so many bytes."""

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        table, index, value = given
        low = value if size == 8 else builder.trunc(value, ir.IntType(8 * size))
        return _put(builder, table, _times(builder, index, size), low)

    return types.int64(*_PLACE, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def byte_at(_: Any, base: Any, place: Any) -> tuple[Any, _Generate]:
    """The byte at a place, from 0 to 255."""
    return types.int64(*_PLACE), lambda _, builder, __, given: builder.zext(
        _read(builder, given[0], given[1], _BYTE), _WORD
    )


@intrinsic  # type: ignore[untyped-decorator]
def word_at(_: Any, base: Any, place: Any) -> tuple[Any, _Generate]:
    """Eight bytes from a place on, the first of them the lowest."""
    return types.uint64(*_PLACE), lambda _, builder, __, given: _read(
        builder, given[0], given[1], _WORD
    )


@intrinsic  # type: ignore[untyped-decorator]
def put_word(_: Any, base: Any, place: Any, value: Any) -> tuple[Any, _Generate]:
    """Write eight bytes at a place."""
    return types.int64(*_PLACE, types.uint64), lambda _, builder, __, given: _put(builder, *given)


@intrinsic  # type: ignore[untyped-decorator]
def item(_: Any, table: Any, index: Any) -> tuple[Any, _Generate]:
    """An integer of a table."""
    return types.int64(*_PLACE), lambda _, builder, __, given: _read(
        builder, given[0], _times(builder, given[1], 8), _WORD
    )


@intrinsic  # type: ignore[untyped-decorator]
def item32(_: Any, table: Any, index: Any) -> tuple[Any, _Generate]:
    """An integer of a table of 32-bit ones, none of them negative."""
    return types.int64(*_PLACE), lambda _, builder, __, given: builder.zext(
        _read(builder, given[0], _times(builder, given[1], 4), ir.IntType(32)), _WORD
    )


@intrinsic  # type: ignore[untyped-decorator]
def put_item(_: Any, table: Any, index: Any, value: Any) -> tuple[Any, _Generate]:
    """Write an integer into a table."""
    return _putting(8)


@intrinsic  # type: ignore[untyped-decorator]
def put_item32(_: Any, table: Any, index: Any, value: Any) -> tuple[Any, _Generate]:
    """Write an integer into a table of 32-bit ones."""
    return _putting(4)


@intrinsic  # type: ignore[untyped-decorator]
def put_item16(_: Any, table: Any, index: Any, value: Any) -> tuple[Any, _Generate]:
    """Write an integer into a table of 16-bit ones."""
    return _putting(2)


@intrinsic  # type: ignore[untyped-decorator]
def put_byte(_: Any, base: Any, place: Any, value: Any) -> tuple[Any, _Generate]:
    """Write the lowest byte of an integer at a place."""
    return _putting(1)


@intrinsic  # type: ignore[untyped-decorator]
def bits_of(_: Any, number: Any) -> tuple[Any, _Generate]:
    """A double's bits as an integer."""
    return types.int64(types.float64), lambda _, builder, __, given: builder.bitcast(
        given[0], _WORD
    )


@intrinsic  # type: ignore[untyped-decorator]
def _zeros_below(_: Any, word: Any) -> tuple[Any, _Generate]:
    """How many bits are below the lowest that is set, of a word that has one."""
    return types.int64(types.uint64), lambda _, builder, __, given: builder.cttz(
        given[0], ir.Constant(ir.IntType(1), 1)
    )


@compiled
def put_sized(table: int, index: int, size: int, value: int) -> None:
    """Write an integer into a table of ones of so many bytes: 1, 2, 4 or 8."""
    if size == 8:
        put_item(table, index, value)
    elif size == 4:
        put_item32(table, index, value)
    elif size == 2:
        put_item16(table, index, value)
    else:
        put_byte(table, index, value)


@compiled
def string_stop(base: int, at: int) -> int:
    """The place of the next quote, backslash or control character.

    A byte is zero if subtracting one borrows from its high bit, which was not set; the lowest such
    byte is right even where a borrow spoils those above it ("Determine if a word has a zero byte",
    S. E. Anderson, Bit Twiddling Hacks).
    """
    while True:
        word = word_at(base, at)
        quotes, backslashes = word ^ _QUOTES, word ^ _BACKSLASHES
        found = (quotes - _ONES) & ~quotes | (backslashes - _ONES) & ~backslashes
        found = (found | (word - _SPACES) & ~word) & HIGH_BITS
        if found != NONE:
            return int(at + (_zeros_below(found) >> 3))
        at += 8


@compiled
def field_stop(base: int, at: int) -> int:
    """The place of the next tab, newline or backslash; see `string_stop`."""
    while True:
        word = word_at(base, at)
        tabs, newlines, backslashes = word ^ _TABS, word ^ _NEWLINES, word ^ _BACKSLASHES
        found = (tabs - _ONES) & ~tabs | (newlines - _ONES) & ~newlines
        found = (found | (backslashes - _ONES) & ~backslashes) & HIGH_BITS
        if found != NONE:
            return int(at + (_zeros_below(found) >> 3))
        at += 8


@compiled
def same_bytes(base: int, at: int, other: int, other_at: int, length: int) -> bool:
    """Whether so many bytes of two memories are the same."""
    while length >= 8:
        if word_at(base, at) != word_at(other, other_at):
            return False
        at, other_at, length = at + 8, other_at + 8, length - 8
    if length == 0:
        return True
    differ = word_at(base, at) ^ word_at(other, other_at)
    return bool(differ << np.uint64(64 - 8 * length) == NONE)


@compiled
def copy_bytes(base: int, at: int, length: int, target: int, target_at: int) -> None:
    """Copy so many bytes, and up to seven more."""
    for done in range(0, length, 8):
        put_word(target, target_at + done, word_at(base, at + done))


@compiled
def copy_exactly(base: int, at: int, length: int, target: int, target_at: int) -> None:
    """Copy so many bytes, and look at no more."""
    words = length & ~7
    for done in range(0, words, 8):
        put_word(target, target_at + done, word_at(base, at + done))
    for done in range(words, length):
        put_byte(target, target_at + done, byte_at(base, at + done))
