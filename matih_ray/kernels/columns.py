"""What was read of lines as the buffers of columns, all of a block in one call: each return to
Python asks for the interpreter, which other threads are using."""

from __future__ import annotations

from matih_ray.kernels.compiling import compiled
from matih_ray.kernels.json_lines import COLUMN_ITEMS, KIND, SIZE, Kind
from matih_ray.kernels.texts import gather
from matih_ray.kernels.words import item, put_byte, put_item, put_sized

# Of a column: bytes of its texts, and how many of its values are not there.
TEXT_BYTES, ABSENT = range(2)
TOTAL_ITEMS = 2
# Of a column: addresses of its validity, if it has one, of its data, and of offsets into them.
VALIDITY, DATA, OFFSETS = range(3)
OUT_ITEMS = 3


@compiled
def measure(lengths: int, room: int, count: int, width: int, totals: int) -> None:
    """How much room columns need.

    Args:
        lengths: Address of a number of each column and line, a column after the other.
        room: Lines that there is room for.
        count: Lines that there are.
        width: Columns that there are.
        totals: Address of room for `TOTAL_ITEMS` numbers of each column: gets them.
    """
    for column in range(width):
        size = absent = 0
        for line in range(count):
            length = item(lengths, column * room + line)
            size += max(length, 0)
            absent += length < 0
        put_item(totals, TOTAL_ITEMS * column + TEXT_BYTES, size)
        put_item(totals, TOTAL_ITEMS * column + ABSENT, absent)


@compiled
def fill(
    base: int,
    columns: int,
    values: int,
    lengths: int,
    room: int,
    count: int,
    width: int,
    outs: int,
) -> None:
    """Fill the buffers of columns.

    Args:
        base: Address of the block that places are of, with padding.
        columns: See `json_lines.read_lines`.
        values: Address of a number of each column and line, a column after the other.
        lengths: The same.
        room: Lines that there is room for.
        count: Lines that there are.
        width: Columns that there are.
        outs: Address of `OUT_ITEMS` addresses of each column. Data of texts have padding.
    """
    for column in range(width):
        kind = item(columns, COLUMN_ITEMS * column + KIND)
        size = item(columns, COLUMN_ITEMS * column + SIZE)
        mine, its_lengths = values + 8 * room * column, lengths + 8 * room * column
        out = outs + 8 * OUT_ITEMS * column
        data = item(out, DATA)
        if item(out, VALIDITY) != 0:
            _fill_validity(its_lengths, count, item(out, VALIDITY))
        if kind == Kind.BOOLEAN:
            _fill_bits(mine, its_lengths, count, data)
        elif size > 0:
            _fill_numbers(mine, count, size, data)
        else:
            gather(base, mine, its_lengths, count, item(out, OFFSETS), data)


@compiled
def _fill_validity(lengths: int, count: int, target: int) -> None:
    for first in range(0, count, 8):
        bits = 0
        for line in range(first, min(first + 8, count)):
            bits |= (item(lengths, line) >= 0) << (line - first)
        put_byte(target, first >> 3, bits)


@compiled
def _fill_bits(values: int, lengths: int, count: int, target: int) -> None:
    for first in range(0, count, 8):
        bits = 0
        for line in range(first, min(first + 8, count)):
            if item(lengths, line) >= 0:
                bits |= item(values, line) << (line - first)
        put_byte(target, first >> 3, bits)


@compiled
def _fill_numbers(values: int, count: int, size: int, target: int) -> None:
    """Numbers of so many bytes."""
    for line in range(count):
        put_sized(target, line, size, item(values, line))
