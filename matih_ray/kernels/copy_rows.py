"""Which bytes of rows of PostgreSQL's COPY text are the values of which columns ("File Formats" on
the reference page of COPY).

Numbers and times are written where they belong at once; of texts it is noted where they are. The
values are as the server writes them under `datestyle = 'ISO, YMD'` in UTC: any other, such as an
infinite date or a decimal of more digits than 64 bits hold, ends the reading, and the caller reads
that column as text.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from matih_ray.kernels.compiling import compiled
from matih_ray.kernels.numbers import (
    MAX_DIGITS,
    MINUS,
    POINT,
    read_digits,
    read_double,
)
from matih_ray.kernels.times import read_clock, read_day, read_fraction
from matih_ray.kernels.words import (
    byte_at,
    field_stop,
    item,
    put_byte,
    put_item,
    put_item32,
    put_sized,
)


class Kind(IntEnum):
    """What a column wants."""

    TEXT = 0  # where it is, one's complement of it if there are escapes
    INTEGER = 1
    DECIMAL = 2  # of 128 bits
    DOUBLE = 3  # its bits; or where it is, for whoever rounds better
    BOOLEAN = 4
    DATE = 5  # days after 1970
    TIMESTAMP = 6  # microseconds after 1970
    TIME = 7  # microseconds after midnight


# A column's numbers in its table: its kind, how many bytes its values have, the largest of them
# or of a decimal's digits, the digits after a decimal's point, 1 if times end with a zone; and
# addresses: of its data, which are places of texts, of lengths, which texts and doubles have, and
# of its validity, all set; and how many of its values are NULL, which is counted.
KIND, SIZE, MOST, SCALE, ZONED, DATA, LENGTHS, VALIDITY, NULLS = range(9)
COLUMN_ITEMS = 9

NULL = -1  # length of a text that is not there
_BAD = -1
_TAB, _NEWLINE, _BACKSLASH, _PLUS, _ZERO = ord("\t"), ord("\n"), ord("\\"), ord("+"), ord("0")
_LETTER_N, _LETTER_T, _LETTER_F = ord("N"), ord("t"), ord("f")
_MICROSECOND = 6  # digits after the point
# More digits than this may not fit 64 bits with a sign.
_SIGNED_DIGITS = 18


@compiled
def count_lines(base: int, size: int) -> int:
    """How many newlines a block has."""
    count = 0
    for at in range(size):
        count += byte_at(base, at) == _NEWLINE
    return count


@compiled
def read_rows(base: int, size: int, columns: int, width: int) -> int:
    """Read all rows of a block.

    Args:
        base: Address of the block, which ends with a newline and has `kernels.PADDING` after it.
        size: Bytes of the block without padding.
        columns: Address of `COLUMN_ITEMS` numbers of each column, with room for as many rows as
            there are newlines.
        width: How many columns there are.

    Returns:
        How many rows there are, or one's complement of the column of a value that is not what its
        column wants.
    """
    at = row = 0
    while at < size:
        for column in range(width):
            mine = columns + 8 * COLUMN_ITEMS * column
            if byte_at(base, at) == _BACKSLASH and byte_at(base, at + 1) == _LETTER_N:
                _put_null(mine, row)
                end = at + 2
            else:
                end = _read_value(base, at, mine, row)
            wanted = _NEWLINE if column == width - 1 else _TAB
            if end == _BAD or byte_at(base, end) != wanted:
                return ~column
            at = end + 1
        row += 1
    return row


@compiled
def _put_null(column: int, row: int) -> None:
    kind = item(column, KIND)
    data = item(column, DATA)
    if kind == Kind.TEXT or kind == Kind.DOUBLE:
        put_item(item(column, LENGTHS), row, NULL)
    if kind == Kind.DECIMAL:
        put_item(data, 2 * row, 0)
        put_item(data, 2 * row + 1, 0)
    elif item(column, SIZE) > 0:
        put_sized(data, row, item(column, SIZE), 0)
    validity = item(column, VALIDITY)
    put_byte(validity, row >> 3, byte_at(validity, row >> 3) & ~(1 << (row & 7)))
    put_item(column, NULLS, item(column, NULLS) + 1)


@compiled
def _read_value(base: int, at: int, column: int, row: int) -> int:
    """Where the value that begins here ends, or `_BAD`."""
    kind, data = item(column, KIND), item(column, DATA)
    if kind == Kind.TEXT:
        return _read_text(base, at, data, item(column, LENGTHS), row)
    if kind == Kind.DECIMAL:
        return _read_decimal(base, at, item(column, SCALE), item(column, MOST), data, row)
    if kind == Kind.INTEGER:
        return _read_integer(base, at, item(column, SIZE), item(column, MOST), data, row)
    if kind == Kind.DOUBLE:
        return _read_double(base, at, data, item(column, LENGTHS), row)
    if kind == Kind.BOOLEAN:
        letter = byte_at(base, at)
        if letter == _LETTER_T:
            put_byte(data, row >> 3, byte_at(data, row >> 3) | 1 << (row & 7))
        return at + 1 if letter in (_LETTER_T, _LETTER_F) else _BAD
    return _read_time(base, at, kind, item(column, ZONED), data, row)


@compiled
def _read_text(base: int, at: int, places: int, lengths: int, row: int) -> int:
    end = field_stop(base, at)
    place = at
    while byte_at(base, end) == _BACKSLASH:
        if byte_at(base, end + 1) == _NEWLINE:
            return _BAD  # no server escapes so, and what is after it need not be the block's
        place = ~at
        end = field_stop(base, end + 2)
    put_item(places, row, place)
    put_item(lengths, row, end - at)
    return end


@compiled
def _read_integer(base: int, at: int, size: int, most: int, data: int, row: int) -> int:
    negative = byte_at(base, at) == MINUS
    first = at + negative
    end, digits = read_digits(base, first, np.uint64(0))
    if not first < end <= first + MAX_DIGITS or digits > np.uint64(most) + np.uint64(negative):
        return _BAD
    number = np.int64(digits)
    put_sized(data, row, size, -number if negative else number)
    return end


@compiled
def _read_decimal(base: int, at: int, scale: int, most: int, data: int, row: int) -> int:
    negative = byte_at(base, at) == MINUS
    first = at + negative
    point, digits = read_digits(base, first, np.uint64(0))
    end, count = point, point - first
    if scale > 0:
        if byte_at(base, point) != POINT:
            return _BAD
        end, digits = read_digits(base, point + 1, digits)
        if end - point - 1 != scale:
            return _BAD
        count += scale
    if point == first or count > _SIGNED_DIGITS or digits > np.uint64(most):
        return _BAD
    number = np.int64(digits)
    if negative:
        number = -number
    put_item(data, 2 * row, number)
    put_item(data, 2 * row + 1, number >> 63)
    return end


@compiled
def _read_double(base: int, at: int, data: int, lengths: int, row: int) -> int:
    end, bits, is_known = read_double(base, at)
    if not is_known:  # or Infinity, or NaN
        end = field_stop(base, at)
    put_item(data, row, bits if is_known else at)
    put_item(lengths, row, 0 if is_known else end - at)
    return end


@compiled
def _read_time(base: int, at: int, kind: int, zoned: int, data: int, row: int) -> int:
    """A date, a timestamp, or a time of day."""
    days = 0
    if kind != Kind.TIME:
        at, days = read_day(base, at)
        if at == _BAD:
            return _BAD
        if kind == Kind.DATE:
            put_item32(data, row, days)
            return at
        if byte_at(base, at) != ord(" "):
            return _BAD
        at += 1
    at, clock_s = read_clock(base, at)
    if at == _BAD:
        return _BAD
    at, fraction = read_fraction(base, at, _MICROSECOND, _MICROSECOND)
    if at == _BAD:
        return _BAD
    put_item(data, row, (days * 86_400 + clock_s) * 1_000_000 + fraction)
    if zoned == 0:
        return at
    utc = byte_at(base, at + 1) == _ZERO and byte_at(base, at + 2) == _ZERO
    return at + 3 if byte_at(base, at) == _PLUS and utc else _BAD
