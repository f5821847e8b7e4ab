"""Columns of blocks of lines that are JSON objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from matih_ray.kernels import PADDING
from matih_ray.kernels.columns import ABSENT, OUT_ITEMS, TEXT_BYTES, TOTAL_ITEMS, fill, measure
from matih_ray.kernels.gathering import Integers, round_doubles
from matih_ray.kernels.json_lines import COLUMN_ITEMS, MISSING, NULL, Kind, read_lines
from matih_ray.kernels.texts import is_utf8, join_lines

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


@dataclass(frozen=True)
class JsonColumn:
    """What is read of the fields of a name. `type` says more of whole numbers and times; of times,
    `between` is what is between day and time, and further digits than `precision` do not count."""

    name: str
    kind: Kind
    type: pa.DataType = field(default_factory=pa.string)
    between: str = " "
    precision: int = 9

    @property
    def size(self) -> int:
        """Bytes of a number; 0 if it holds none."""
        is_number = not (pa.types.is_string(self.type) or pa.types.is_boolean(self.type))
        return int(self.type.bit_width // 8) if is_number else 0

    def items(self, start: int, end: int) -> tuple[int, ...]:
        """What the kernel knows of it, whose name has this place among the names."""
        is_time = self.kind is Kind.TIME
        return (
            start,
            end,
            self.kind,
            self.size,
            (1 << (8 * self.size - 1)) - 1 if self.size else 0,
            ord(self.between),
            is_time and self.type.tz is not None,
            self.precision,
            _DIGITS[self.type.unit] if is_time else 0,
        )


@dataclass(frozen=True)
class Lines:
    """What was read of lines that follow each other. Lines that are `left` have NULL in all
    columns."""

    columns: list[pa.Array]
    left: NDArray[np.bool_]
    block: bytes | bytearray
    begins: Integers  # one more than there are lines

    @property
    def count(self) -> int:
        """How many lines there are."""
        return len(self.left)

    def text(self, number: int) -> bytes:
        """A line, without its end."""
        return _line(self.block, self.begins, number)


class JsonReader:
    """Reads these columns; by several threads at a time."""

    def __init__(self, columns: Sequence[JsonColumn], *, leave_missing: bool = False) -> None:
        """Args:
        columns: What is wanted of a line.
        leave_missing: Whether a line is left if it has not all of the names.
        """
        self._columns = columns
        self._leave_missing = leave_missing
        names = [column.name.encode() for column in columns]
        ends = [0, *np.cumsum([*map(len, names)])]
        self._names = np.frombuffer(b"".join([*names, PADDING]), np.uint8)
        items = [column.items(*ends[at : at + 2]) for at, column in enumerate(columns)]
        self._table = np.array(items, np.int64).reshape(len(columns), COLUMN_ITEMS)

    def read(self, padded: bytes | bytearray, room: int) -> Iterator[Lines]:
        """The lines of a block with `PADDING` after it, so many at once."""
        at = 0
        while at < len(padded) - len(PADDING):
            lines = self._read(padded, at, room)
            yield lines
            at = int(lines.begins[-1])

    def read_each(self, padded: bytes | bytearray, count: int) -> Lines | None:
        """The lines of a block with `PADDING` after it, if they are so many."""
        lines = self._read(padded, 0, count)
        is_all = lines.begins[-1] >= len(padded) - len(PADDING)
        return lines if is_all and lines.count == count else None

    def _read(self, padded: bytes | bytearray, at: int, room: int) -> Lines:
        block = np.frombuffer(padded, np.uint8)
        base, size = block.ctypes.data, len(block) - len(PADDING)
        values = np.empty((len(self._columns), room), np.int64)
        lengths = np.full(values.shape, MISSING)
        begins = np.empty(room + 1, np.int64)
        count = read_lines(
            base,
            at,
            size,
            self._names.ctypes.data,
            self._table.ctypes.data,
            len(self._columns),
            room,
            begins.ctypes.data,
            values.ctypes.data,
            lengths.ctypes.data,
        )
        begins = begins[: count + 1]
        left = begins[:-1] < 0
        np.bitwise_xor(begins[:-1], -1, out=begins[:-1], where=left)
        if not is_utf8(base, at, min(int(begins[-1]), size)):
            between = pairwise(begins.tolist())
            left |= [not is_utf8(base, start, after - 1) for start, after in between]
            lengths[:, :count][:, left] = NULL
        if self._leave_missing:
            left |= (lengths[:, :count] == MISSING).any(axis=0)
            lengths[:, :count][:, left] = NULL
        return Lines(self._filled(base, values, lengths, count), left, padded, begins)

    def _filled(self, base: int, values: Integers, lengths: Integers, count: int) -> list[pa.Array]:
        """The columns of so many lines."""
        width, room = values.shape
        totals = np.empty((width, TOTAL_ITEMS), np.int64)
        measure(lengths.ctypes.data, room, count, width, totals.ctypes.data)
        outs = np.zeros((width, OUT_ITEMS), np.int64)
        buffers: list[list[NDArray[np.uint8] | None]] = []
        for at, column in enumerate(self._columns):
            if column.kind is Kind.DOUBLE and totals[at, TEXT_BYTES]:
                round_doubles(base, values[at, :count], lengths[at, :count])
            mine = _room_of(column, count, int(totals[at, TEXT_BYTES]), int(totals[at, ABSENT]))
            outs[at, : len(mine)] = [0 if one is None else one.ctypes.data for one in mine]
            buffers.append(mine)
        fill(
            base,
            self._table.ctypes.data,
            values.ctypes.data,
            lengths.ctypes.data,
            room,
            count,
            width,
            outs.ctypes.data,
        )
        return [
            _array(column.type, count, mine, int(absent))
            for column, mine, absent in zip(self._columns, buffers, totals[:, ABSENT], strict=True)
        ]


def _room_of(
    column: JsonColumn, count: int, text_bytes: int, absent: int
) -> list[NDArray[np.uint8] | None]:
    """Buffers of a column: its validity, its data, and offsets of texts."""
    bits = (count + 7) // 8
    validity = np.empty(bits, np.uint8) if absent else None
    if column.size:
        return [validity, np.empty(count * column.size, np.uint8)]
    if column.kind is Kind.BOOLEAN:
        return [validity, np.empty(bits, np.uint8)]
    data = np.empty(text_bytes + len(PADDING), np.uint8)
    return [validity, data, np.empty(4 * (count + 1), np.uint8)]


def _array(
    kind: pa.DataType, count: int, buffers: list[NDArray[np.uint8] | None], absent: int
) -> pa.Array:
    validity, data, *offsets = (None if one is None else pa.py_buffer(one) for one in buffers)
    return pa.Array.from_buffers(kind, count, [validity, *offsets, data], absent)


def lines_of(texts: pa.Array) -> bytearray:
    """Texts as a block of lines with `PADDING` after it; a line that is empty for each NULL."""
    if not len(texts):
        return bytearray(PADDING)
    _, offset_buffer, data = texts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    block = bytearray(int(offsets[-1] - offsets[0]) + len(texts) + len(PADDING))
    target = np.frombuffer(block, np.uint8).ctypes.data
    join_lines(0 if data is None else data.address, offsets.ctypes.data, len(texts), target)
    return block


def _line(block: bytes | bytearray, begins: Integers, number: int) -> bytes:
    return bytes(block[begins[number] : begins[number + 1] - 1])
