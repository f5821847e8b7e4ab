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
from matih_ray.kernels.json_stretches import (
    BAD,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    FOUR_BYTES,
    OPEN_ARRAY,
    OPEN_OBJECT,
    QUOTE,
    WORD_NULL,
    plain_string_end,
    skip_blanks,
    skip_value,
    string_end,
)
from matih_ray.kernels.numbers import MAX_DIGITS, MINUS, is_digit, read_double, read_number
from matih_ray.kernels.times import read_time
from matih_ray.kernels.words import byte_at, item, put_item, same_bytes, word_at


class Kind(IntEnum):
    """What a column wants, and what `read_lines` makes of a value: a number and a length."""

    TEXT = 0  # where it is, one's complement of it if there are escapes; of scalars their own text
    INTEGER = 1  # the number, and 0
    DOUBLE = 2  # its bits, and 0; or where it is, for whoever rounds better
    BOOLEAN = 3  # 0 or 1, and 0
    ANY = 4  # where the JSON value is
    SCALAR = 5  # as TEXT, but no other numbers than whole ones, whose text all write alike
    TIME = 6  # how many units after 1970, and 0


NULL, MISSING = -1, -2  # lengths of values that are not there
# A column's numbers in its table: where its name begins and ends, its kind, how many bytes its
# numbers have if it has numbers, the largest of them; and of times what is between day and time,
# 1 if `Z` follows, the digits that count, and those of the unit.
NAME, NAME_END, KIND, SIZE, MOST, BETWEEN, ZONED, PRECISION, DIGITS = range(9)
COLUMN_ITEMS = 9

MAX_GAPS = 256  # names of a line that are expected to come again; further ones are read each time

_NEWLINE, _LETTER_T, _LETTER_F = ord("\n"), ord("t"), ord("f")
_NO_COLUMN = -1
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
        base: Address of the block, which has `kernels.PADDING` after it.
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
        lengths: The same, all `MISSING`; all of a line that was not read are `NULL` then.

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
        if end != BAD:
            end = skip_blanks(base, end)
            if end < size and byte_at(base, end) != _NEWLINE:
                end = BAD
        put_item(begins, line, ~at if end == BAD else at)
        if end == BAD:
            for column in range(count):
                put_item(lengths, column * room + line, NULL)
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
    """Where the object that begins here ends, or `BAD`."""
    at = skip_blanks(base, at)
    if byte_at(base, at) != OPEN_OBJECT:
        return BAD
    after = skip_blanks(base, at + 1)
    if byte_at(base, after) == CLOSE_OBJECT:
        return after + 1
    guess = number = 0
    while True:
        gap = gaps + 8 * _GAP_ITEMS * min(number, MAX_GAPS - 1)
        length = item(gap, _GAP_LENGTH)
        if length > 0 and same_bytes(base, at, base, item(gap, _GAP), length):
            # there may be more blanks than there were
            at, column = skip_blanks(base, at + length), item(gap, _GAP_COLUMN)
        else:
            start = at
            at, column = _read_name(base, at + 1, names, columns, count, guess)
            if at == BAD:
                return BAD
            put_item(gap, _GAP, start)
            put_item(gap, _GAP_LENGTH, at - start)
            put_item(gap, _GAP_COLUMN, column)
        number += 1
        if column == _NO_COLUMN:
            at = skip_value(base, at)
        else:
            guess, cell = column + 1, column * room
            at = _read_value(base, at, columns, column, values, lengths, cell)
        if at == BAD:
            return BAD
        at = skip_blanks(base, at)
        if byte_at(base, at) == CLOSE_OBJECT:
            return at + 1
        if byte_at(base, at) != COMMA:
            return BAD


@compiled
def _read_name(
    base: int, at: int, names: int, columns: int, count: int, guess: int
) -> tuple[int, int]:
    """Where the value of the name that begins here begins, and whose it is. Columns are tried from
    the guessed one on."""
    at = skip_blanks(base, at)
    end = plain_string_end(base, at)
    if end == BAD:
        return BAD, _NO_COLUMN
    first, length, found = at + 1, end - at - 2, _NO_COLUMN
    for tried in range(count):
        column = (guess + tried) % count
        name = item(columns, COLUMN_ITEMS * column + NAME)
        known = item(columns, COLUMN_ITEMS * column + NAME_END) - name
        if known == length and same_bytes(names, name, base, first, length):
            found = column
            break
    at = skip_blanks(base, end)
    if byte_at(base, at) != COLON:
        return BAD, _NO_COLUMN
    return skip_blanks(base, at + 1), found


@compiled
def _read_value(
    base: int, at: int, columns: int, column: int, values: int, lengths: int, cell: int
) -> int:
    """Read the value that begins here, and return where it ends."""
    kind = item(columns, COLUMN_ITEMS * column + KIND)
    byte = byte_at(base, at)
    if word_at(base, at) & FOUR_BYTES == WORD_NULL:
        put_item(lengths, cell, NULL)
        return at + 4
    if byte == QUOTE and kind in (Kind.TEXT, Kind.SCALAR):
        end, escaped = string_end(base, at)
        put_item(values, cell, ~(at + 1) if escaped else at + 1)
        put_item(lengths, cell, end - at - 2)
        return end
    if kind == Kind.INTEGER:
        most = item(columns, COLUMN_ITEMS * column + MOST)
        return _read_integer(base, at, most, values, lengths, cell)
    if kind == Kind.TIME:
        return _read_timestamp(base, at, columns + 8 * COLUMN_ITEMS * column, values, lengths, cell)
    if kind == Kind.DOUBLE:
        return _read_double(base, at, values, lengths, cell)
    end = skip_value(base, at)
    if kind == Kind.BOOLEAN:
        if byte not in (_LETTER_T, _LETTER_F):
            return BAD
        put_item(values, cell, np.int64(byte == _LETTER_T))
        put_item(lengths, cell, 0)
        return end
    if kind != Kind.ANY and byte in (OPEN_OBJECT, OPEN_ARRAY):
        return BAD
    if kind == Kind.SCALAR and end != BAD and not _is_plain(base, at):
        return BAD
    put_item(values, cell, at)
    put_item(lengths, cell, end - at)
    return end


@compiled
def _read_timestamp(base: int, at: int, column: int, values: int, lengths: int, cell: int) -> int:
    if byte_at(base, at) != QUOTE:
        return BAD
    end, ticks = read_time(
        base,
        at + 1,
        item(column, BETWEEN),
        item(column, ZONED),
        item(column, PRECISION),
        item(column, DIGITS),
    )
    if end == BAD or byte_at(base, end) != QUOTE:
        return BAD
    put_item(values, cell, ticks)
    put_item(lengths, cell, 0)
    return end + 1


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
    if end == BAD or not whole or count > MAX_DIGITS:
        return BAD
    if digits > np.uint64(most) + np.uint64(negative):
        return BAD
    number = np.int64(digits)
    put_item(values, cell, -number if negative else number)
    put_item(lengths, cell, 0)
    return end


@compiled
def _read_double(base: int, at: int, values: int, lengths: int, cell: int) -> int:
    end, bits, is_known = read_double(base, at)
    if end != BAD:
        put_item(values, cell, bits if is_known else at)
        put_item(lengths, cell, 0 if is_known else end - at)
    return end
