"""JSON values as stretches of bytes (RFC 8259): where one ends, and whether it is one."""

from __future__ import annotations

import numpy as np

from matih_ray.kernels.compiling import compiled
from matih_ray.kernels.numbers import MINUS, ZERO, is_digit, read_number
from matih_ray.kernels.words import byte_at, string_stop, word_at

BAD = -1  # a place: here is none, or one that kernels leave alone

MAX_DEPTH = 60  # of a skipped value; a bit of a word each

QUOTE, COLON, COMMA = (ord(one) for one in '":,')
OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, _CLOSE_ARRAY = (ord(one) for one in "{}[]")
WORD_NULL, _WORD_TRUE, _WORD_FALSE = (
    np.uint64(int.from_bytes(text, "little")) for text in (b"null", b"true", b"false")
)
FOUR_BYTES, _FIVE = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFF)
_SPACE, _TAB, _RETURN = (ord(one) for one in " \t\r")
_BACKSLASH, _LETTER_U = ord("\\"), ord("u")
_ESCAPED = np.array([chr(byte) in '"\\/bfnrt' for byte in range(256)])
_ONE = np.uint64(1)


@compiled
def skip_blanks(base: int, at: int) -> int:
    """The next byte that is not blank. A newline is none: it ends the line."""
    while byte_at(base, at) in (_SPACE, _TAB, _RETURN):
        at += 1
    return at


@compiled
def string_end(base: int, at: int) -> tuple[int, bool]:
    """After the string that begins here, and whether it has escapes."""
    escaped = False
    at += 1
    while True:
        at = string_stop(base, at)
        byte = byte_at(base, at)
        if byte == QUOTE:
            return at + 1, escaped
        if byte != _BACKSLASH:
            return BAD, False
        escaped = True
        at = _escape_end(base, at)
        if at == BAD:
            return BAD, False


@compiled
def _escape_end(base: int, at: int) -> int:
    """After the escape that begins here, both halves of a surrogate pair."""
    byte = byte_at(base, at + 1)
    if byte != _LETTER_U:
        return at + 2 if _ESCAPED[byte] else BAD
    unit = hex_unit(base, at + 2)
    if not 0xD800 <= unit < 0xE000:
        return at + 6 if unit >= 0 else BAD
    if unit >= 0xDC00 or byte_at(base, at + 6) != _BACKSLASH or byte_at(base, at + 7) != _LETTER_U:
        return BAD
    return at + 12 if 0xDC00 <= hex_unit(base, at + 8) < 0xE000 else BAD


@compiled
def hex_unit(base: int, at: int) -> int:
    """The number that four hexadecimal digits say, or -1."""
    unit = 0
    for place in range(at, at + 4):
        byte = byte_at(base, place)
        letter = byte | 0x20
        if is_digit(byte):
            unit = unit << 4 | byte - ZERO
        elif ord("a") <= letter <= ord("f"):
            unit = unit << 4 | letter - ord("a") + 10
        else:
            return -1
    return unit


@compiled
def _skip_scalar(base: int, at: int) -> int:
    byte, word = byte_at(base, at), word_at(base, at)
    if byte == QUOTE:
        end, _ = string_end(base, at)
        return end
    if byte == MINUS or is_digit(byte):
        return read_number(base, at)[0]
    if word & FOUR_BYTES == WORD_NULL or word & FOUR_BYTES == _WORD_TRUE:
        return at + 4
    return at + 5 if word & _FIVE == _WORD_FALSE else BAD


@compiled
def skip_value(base: int, at: int) -> int:
    """After the value that begins here, whatever it is."""
    depth, objects = 0, np.uint64(0)  # which of the open ones are objects, the innermost lowest
    while at != BAD:
        byte = byte_at(base, at)
        if byte not in (OPEN_OBJECT, OPEN_ARRAY):
            at = _skip_scalar(base, at)
            if at == BAD or depth == 0:
                return at
        elif depth == MAX_DEPTH:
            return BAD
        else:
            depth, objects = depth + 1, objects << _ONE | np.uint64(byte == OPEN_OBJECT)
            at = skip_blanks(base, at + 1)
            if byte_at(base, at) != _closing(objects):
                at = _next_value(base, at, objects)
                continue
        at = skip_blanks(base, at)
        while byte_at(base, at) == _closing(objects):
            depth, objects, at = depth - 1, objects >> _ONE, at + 1
            if depth == 0:
                return at
            at = skip_blanks(base, at)
        at = _next_value(base, at + 1, objects) if byte_at(base, at) == COMMA else BAD
    return BAD


@compiled
def _closing(objects: np.uint64) -> int:
    """What ends the innermost object or array."""
    return CLOSE_OBJECT if objects & _ONE == _ONE else _CLOSE_ARRAY


@compiled
def _next_value(base: int, at: int, objects: np.uint64) -> int:
    """Where the next value of the innermost object or array begins, its name skipped."""
    at = skip_blanks(base, at)
    return _skip_name(base, at) if objects & _ONE == _ONE else at


@compiled
def _skip_name(base: int, at: int) -> int:
    """Where the value of the name that begins here begins."""
    if byte_at(base, at) != QUOTE:
        return BAD
    at, _ = string_end(base, at)
    if at == BAD:
        return BAD
    at = skip_blanks(base, at)
    return skip_blanks(base, at + 1) if byte_at(base, at) == COLON else BAD


@compiled
def plain_string_end(base: int, at: int) -> int:
    """After the string that begins here, if it has no escapes."""
    if byte_at(base, at) != QUOTE:
        return BAD
    at = string_stop(base, at + 1)
    return at + 1 if byte_at(base, at) == QUOTE else BAD
