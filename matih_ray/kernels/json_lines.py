"""Which bytes of lines of JSON objects are the values of which columns.

Lines of one source are alike: the same names in the same order, with the same blanks. So what was
between two values is expected to be there again on the next line, name and all, and is compared
eight bytes at a time; only where it differs is it read. What was read and what is the same as what
was read are JSON alike, so nothing goes unchecked: a line is taken if it is one JSON object (RFC
8259) whose wanted values have the types of their columns, and left to the caller if not.

Also left, because they are rare or not worth a loop: names with escapes, halves of surrogate pairs,
objects more than `MAX_DEPTH` deep, numbers that JSON allows and a column does not (1.0 as a whole
number), strings where numbers are wanted, objects and arrays where text is.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from matih_ray.kernels.compiling import compiled
from matih_ray.kernels.numbers import MAX_DIGITS, MINUS, ZERO, double_of, is_digit, read_number
from matih_ray.kernels.words import (
    bits_of,
    byte_at,
    item,
    put_item,
    same_bytes,
    string_stop,
    word_at,
)


class Kind(IntEnum):
    """What a column wants, and what `read_lines` makes of a value: a number and a length."""

    TEXT = 0  # where it is, one's complement of it if there are escapes; of scalars their own text
    INTEGER = 1  # the number, and 0
    DOUBLE = 2  # its bits, and 0; or where it is, for whoever rounds better
    BOOLEAN = 3  # 0 or 1, and 0
    ANY = 4  # where the JSON value is
    SCALAR = 5  # as TEXT, but no other numbers than whole ones, whose text all write alike


NULL, MISSING = -1, -2  # lengths of values that are not there
# A column's numbers in its table: where its name begins and ends, its kind, the most it can hold.
NAME, NAME_END, KIND, MOST = range(4)
COLUMN_ITEMS = 4

MAX_DEPTH = 60  # of a skipped value; a bit of a word each
MAX_GAPS = 256  # names of a line that are expected to come again; further ones are read each time

_QUOTE, _BACKSLASH, _COLON, _COMMA, _NEWLINE = (ord(one) for one in '"\\:,\n')
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = (ord(one) for one in "{}[]")
_SPACE, _TAB, _RETURN = (ord(one) for one in " \t\r")
_LETTER_T, _LETTER_F, _LETTER_U = (ord(one) for one in "tfu")
_ESCAPED = np.array([chr(byte) in '"\\/bfnrt' for byte in range(256)])
_WORD_NULL, _WORD_TRUE, _WORD_FALSE = (
    np.uint64(int.from_bytes(text, "little")) for text in (b"null", b"true", b"false")
)
_FOUR, _FIVE = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFF)
_ONE = np.uint64(1)
_NO_COLUMN = -1
_BAD = -1  # a place: this is not read here
# What was between two values: where, how long, and whose the second value is.
_GAP, _GAP_LENGTH, _GAP_COLUMN = range(3)
_GAP_ITEMS = 3


@compiled
def read_lines(
    base: int,
    at: int,
    size: int,
    names: int,
    columns: int,
    count: int,
    room: int,
    begins: int,
    values: int,
    lengths: int,
) -> int:
    """Read lines of a block, which end with newlines or the block.

    Args:
        base: Address of the block, which has `words.PADDING` after it.
        at: Where the first line begins.
        size: Bytes of the block without padding.
        names: Address of the names of columns, one after the other, with padding.
        columns: Address of `COLUMN_ITEMS` numbers of each column.
        count: How many columns there are.
        room: How many lines are read at most.
        begins: Address of room for a number of each line, and one more: gets where it begins, one's
            complement of it if it was not read here; and after them where the next line begins,
            or one more than `size`.
        values: Address of room for a number of each column and line, a column after the other.
        lengths: The same, all `MISSING`.

    Returns:
        How many lines were read.
    """
    gaps = np.zeros(MAX_GAPS * _GAP_ITEMS, np.int64)
    line = 0
    while at < size and line < room:
        end = _read_object(
            base, at, names, columns, count, room, values + 8 * line, lengths + 8 * line,
            gaps.ctypes.data,
        )  # fmt: skip
        if end != _BAD:
            end = _skip_blanks(base, end)
            if end < size and byte_at(base, end) != _NEWLINE:
                end = _BAD
        put_item(begins, line, ~at if end == _BAD else at)
        if end == _BAD:
            end = at
            while end < size and byte_at(base, end) != _NEWLINE:
                end += 1
        at = end + 1
        line += 1
    put_item(begins, line, at)
    return line


@compiled
def _read_object(
    base: int,
    at: int,
    names: int,
    columns: int,
    count: int,
    room: int,
    values: int,
    lengths: int,
    gaps: int,
) -> int:
    """Where the object that begins here ends, or `_BAD`."""
    at = _skip_blanks(base, at)
    if byte_at(base, at) != _OPEN_OBJECT:
        return _BAD
    after = _skip_blanks(base, at + 1)
    if byte_at(base, after) == _CLOSE_OBJECT:
        return after + 1
    guess = number = 0
    while True:
        gap = gaps + 8 * _GAP_ITEMS * min(number, MAX_GAPS - 1)
        length = item(gap, _GAP_LENGTH)
        if length > 0 and same_bytes(base, at, base, item(gap, _GAP), length):
            # there may be more blanks than there were
            at, column = _skip_blanks(base, at + length), item(gap, _GAP_COLUMN)
        else:
            start = at
            at, column = _read_name(base, at + 1, names, columns, count, guess)
            if at == _BAD:
                return _BAD
            put_item(gap, _GAP, start)
            put_item(gap, _GAP_LENGTH, at - start)
            put_item(gap, _GAP_COLUMN, column)
        number += 1
        if column == _NO_COLUMN:
            at = _skip_value(base, at)
        else:
            guess, cell = column + 1, column * room
            at = _read_value(base, at, columns, column, values, lengths, cell)
        if at == _BAD:
            return _BAD
        at = _skip_blanks(base, at)
        if byte_at(base, at) == _CLOSE_OBJECT:
            return at + 1
        if byte_at(base, at) != _COMMA:
            return _BAD


@compiled
def _read_name(
    base: int, at: int, names: int, columns: int, count: int, guess: int
) -> tuple[int, int]:
    """Where the value of the name that begins here begins, and whose it is. Columns are tried from
    the guessed one on."""
    at = _skip_blanks(base, at)
    end = _plain_string_end(base, at)
    if end == _BAD:
        return _BAD, _NO_COLUMN
    first, length, found = at + 1, end - at - 2, _NO_COLUMN
    for tried in range(count):
        column = (guess + tried) % count
        name = item(columns, COLUMN_ITEMS * column + NAME)
        known = item(columns, COLUMN_ITEMS * column + NAME_END) - name
        if known == length and same_bytes(names, name, base, first, length):
            found = column
            break
    at = _skip_blanks(base, end)
    if byte_at(base, at) != _COLON:
        return _BAD, _NO_COLUMN
    return _skip_blanks(base, at + 1), found


@compiled
def _plain_string_end(base: int, at: int) -> int:
    """After the string that begins here, if it has no escapes."""
    if byte_at(base, at) != _QUOTE:
        return _BAD
    at = string_stop(base, at + 1)
    return at + 1 if byte_at(base, at) == _QUOTE else _BAD


@compiled
def _read_value(
    base: int, at: int, columns: int, column: int, values: int, lengths: int, cell: int
) -> int:
    """Read the value that begins here, and return where it ends."""
    kind = item(columns, COLUMN_ITEMS * column + KIND)
    byte = byte_at(base, at)
    if word_at(base, at) & _FOUR == _WORD_NULL:
        put_item(lengths, cell, NULL)
        return at + 4
    if byte == _QUOTE and kind in (Kind.TEXT, Kind.SCALAR):
        end, escaped = _string_end(base, at)
        put_item(values, cell, ~(at + 1) if escaped else at + 1)
        put_item(lengths, cell, end - at - 2)
        return end
    if kind == Kind.INTEGER:
        most = item(columns, COLUMN_ITEMS * column + MOST)
        return _read_integer(base, at, most, values, lengths, cell)
    if kind == Kind.DOUBLE:
        return _read_double(base, at, values, lengths, cell)
    end = _skip_value(base, at)
    if kind == Kind.BOOLEAN:
        if byte not in (_LETTER_T, _LETTER_F):
            return _BAD
        put_item(values, cell, np.int64(byte == _LETTER_T))
        put_item(lengths, cell, 0)
        return end
    if kind != Kind.ANY and byte in (_OPEN_OBJECT, _OPEN_ARRAY):
        return _BAD
    if kind == Kind.SCALAR and end != _BAD and not _is_plain(base, at):
        return _BAD
    put_item(values, cell, at)
    put_item(lengths, cell, end - at)
    return end


@compiled
def _is_plain(base: int, at: int) -> bool:
    """Whether the scalar that begins here is no number, or a whole one without a needless sign."""
    byte = byte_at(base, at)
    if byte != MINUS and not is_digit(byte):
        return True
    _, digits, _, _, whole = read_number(base, at)
    return whole and (byte != MINUS or digits != np.uint64(0))


@compiled
def _read_integer(base: int, at: int, most: int, values: int, lengths: int, cell: int) -> int:
    negative = byte_at(base, at) == MINUS
    end, digits, _, count, whole = read_number(base, at)
    if end == _BAD or not whole or count > MAX_DIGITS:
        return _BAD
    if digits > np.uint64(most) + np.uint64(negative):
        return _BAD
    number = np.int64(digits)
    put_item(values, cell, -number if negative else number)
    put_item(lengths, cell, 0)
    return end


@compiled
def _read_double(base: int, at: int, values: int, lengths: int, cell: int) -> int:
    negative = byte_at(base, at) == MINUS
    end, digits, exponent, count, _ = read_number(base, at)
    if end == _BAD:
        return _BAD
    found = double_of(digits, exponent, count)
    if found < 0.0:
        put_item(values, cell, at)
        put_item(lengths, cell, end - at)
    else:
        put_item(values, cell, bits_of(-found if negative else found))
        put_item(lengths, cell, 0)
    return end


@compiled
def _skip_blanks(base: int, at: int) -> int:
    """The next byte that is not blank. A newline is none: it ends the line."""
    while byte_at(base, at) in (_SPACE, _TAB, _RETURN):
        at += 1
    return at


@compiled
def _string_end(base: int, at: int) -> tuple[int, bool]:
    """After the string that begins here, and whether it has escapes."""
    escaped = False
    at += 1
    while True:
        at = string_stop(base, at)
        byte = byte_at(base, at)
        if byte == _QUOTE:
            return at + 1, escaped
        if byte != _BACKSLASH:
            return _BAD, False
        escaped = True
        at = _escape_end(base, at)
        if at == _BAD:
            return _BAD, False


@compiled
def _escape_end(base: int, at: int) -> int:
    """After the escape that begins here, both halves of a surrogate pair."""
    byte = byte_at(base, at + 1)
    if byte != _LETTER_U:
        return at + 2 if _ESCAPED[byte] else _BAD
    unit = hex_unit(base, at + 2)
    if not 0xD800 <= unit < 0xE000:
        return at + 6 if unit >= 0 else _BAD
    if unit >= 0xDC00 or byte_at(base, at + 6) != _BACKSLASH or byte_at(base, at + 7) != _LETTER_U:
        return _BAD
    return at + 12 if 0xDC00 <= hex_unit(base, at + 8) < 0xE000 else _BAD


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
    if byte == _QUOTE:
        end, _ = _string_end(base, at)
        return end
    if byte == MINUS or is_digit(byte):
        return read_number(base, at)[0]
    if word & _FOUR == _WORD_NULL or word & _FOUR == _WORD_TRUE:
        return at + 4
    return at + 5 if word & _FIVE == _WORD_FALSE else _BAD


@compiled
def _skip_value(base: int, at: int) -> int:
    """After the value that begins here, whatever it is."""
    depth, objects = 0, np.uint64(0)  # which of the open ones are objects, the innermost lowest
    while at != _BAD:
        byte = byte_at(base, at)
        if byte not in (_OPEN_OBJECT, _OPEN_ARRAY):
            at = _skip_scalar(base, at)
            if at == _BAD or depth == 0:
                return at
        elif depth == MAX_DEPTH:
            return _BAD
        else:
            depth, objects = depth + 1, objects << _ONE | np.uint64(byte == _OPEN_OBJECT)
            at = _skip_blanks(base, at + 1)
            if byte_at(base, at) != _closing(objects):
                at = _next_value(base, at, objects)
                continue
        at = _skip_blanks(base, at)
        while byte_at(base, at) == _closing(objects):
            depth, objects, at = depth - 1, objects >> _ONE, at + 1
            if depth == 0:
                return at
            at = _skip_blanks(base, at)
        at = _next_value(base, at + 1, objects) if byte_at(base, at) == _COMMA else _BAD
    return _BAD


@compiled
def _closing(objects: np.uint64) -> int:
    """What ends the innermost object or array."""
    return _CLOSE_OBJECT if objects & _ONE == _ONE else _CLOSE_ARRAY


@compiled
def _next_value(base: int, at: int, objects: np.uint64) -> int:
    """Where the next value of the innermost object or array begins, its name skipped."""
    at = _skip_blanks(base, at)
    return _skip_name(base, at) if objects & _ONE == _ONE else at


@compiled
def _skip_name(base: int, at: int) -> int:
    """Where the value of the name that begins here begins."""
    if byte_at(base, at) != _QUOTE:
        return _BAD
    at, _ = _string_end(base, at)
    if at == _BAD:
        return _BAD
    at = _skip_blanks(base, at)
    return _skip_blanks(base, at + 1) if byte_at(base, at) == _COLON else _BAD
