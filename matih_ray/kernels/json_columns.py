"""Columns of blocks of lines that are JSON objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from matih_ray.kernels import PADDING
from matih_ray.kernels.json_lines import MISSING, NULL, Kind, read_lines
from matih_ray.kernels.texts import gather, join_lines

Integers = NDArray[np.int64]
_TYPES = {Kind.DOUBLE: pa.float64(), Kind.BOOLEAN: pa.bool_()}


@dataclass(frozen=True)
class JsonColumn:
    """What is read of the fields of a name; `bits` are those of whole numbers."""

    name: str
    kind: Kind
    bits: int = 64

    @property
    def type(self) -> pa.DataType:
        """What the column holds."""
        if self.kind is Kind.INTEGER:
            return pa.from_numpy_dtype(f"int{self.bits}")
        return _TYPES.get(self.kind, pa.string())


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
        self._table = np.array(
            [
                (ends[number], ends[number + 1], column.kind, (1 << (column.bits - 1)) - 1)
                for number, column in enumerate(columns)
            ],
            np.int64,
        )

    def read(self, padded: bytes | bytearray, room: int) -> Iterator[Lines]:
        """The lines of a block with `PADDING` after it, so many at once."""
        is_utf8, at = _is_utf8(padded), 0
        while at < len(padded) - len(PADDING):
            lines = self._read(padded, at, room, is_utf8=is_utf8)
            yield lines
            at = int(lines.begins[-1])

    def read_each(self, padded: bytes | bytearray, count: int) -> Lines | None:
        """The lines of a block with `PADDING` after it, if they are so many."""
        lines = self._read(padded, 0, count, is_utf8=_is_utf8(padded))
        is_all = lines.begins[-1] >= len(padded) - len(PADDING)
        return lines if is_all and lines.count == count else None

    def _read(self, padded: bytes | bytearray, at: int, room: int, *, is_utf8: bool) -> Lines:
        block = np.frombuffer(padded, np.uint8)
        values = np.empty((len(self._columns), room), np.int64)
        lengths = np.full(values.shape, MISSING)
        begins = np.empty(room + 1, np.int64)
        count = read_lines(
            block.ctypes.data,
            at,
            len(block) - len(PADDING),
            self._names.ctypes.data,
            self._table.ctypes.data,
            len(self._columns),
            room,
            begins.ctypes.data,
            values.ctypes.data,
            lengths.ctypes.data,
        )
        begins, lengths = begins[: count + 1], lengths[:, :count]
        left = begins[:-1] < 0
        begins[:-1][left] = ~begins[:-1][left]
        if not is_utf8:
            left |= [not _is_utf8(_line(padded, begins, number)) for number in range(count)]
        if self._leave_missing:
            left |= (lengths == MISSING).any(axis=0)
        lengths[:, left] = NULL
        columns = [
            _column(block, column, values[number, :count], lengths[number])
            for number, column in enumerate(self._columns)
        ]
        return Lines(columns, left, padded, begins)


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


def _column(
    block: NDArray[np.uint8], column: JsonColumn, values: Integers, lengths: Integers
) -> pa.Array:
    absent = lengths < 0
    validity = None
    if absent.any():
        validity = pa.py_buffer(np.packbits(~absent, bitorder="little"))
    if column.kind is Kind.INTEGER:
        held = values.astype(f"int{column.bits}", copy=False)
    elif column.kind is Kind.DOUBLE:
        held = _rounded(block, values, lengths)
    elif column.kind is Kind.BOOLEAN:
        held = np.packbits(values.astype(np.bool_), bitorder="little")
    else:
        return _texts(block, values, lengths, validity)
    return pa.Array.from_buffers(column.type, len(lengths), [validity, pa.py_buffer(held)])


def _texts(
    block: NDArray[np.uint8], places: Integers, lengths: Integers, validity: pa.Buffer | None
) -> pa.Array:
    room = int(lengths.sum(where=lengths > 0)) + len(PADDING)
    text, offsets = np.empty(room, np.uint8), np.empty(len(places) + 1, np.int32)
    gather(
        block.ctypes.data,
        places.ctypes.data,
        lengths.ctypes.data,
        len(places),
        offsets.ctypes.data,
        text.ctypes.data,
    )
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(places), buffers)


def _rounded(block: NDArray[np.uint8], values: Integers, lengths: Integers) -> Integers:
    """The doubles, with those of many digits rounded by Arrow."""
    hard = np.flatnonzero(lengths > 0)
    if len(hard):
        found = _texts(block, values[hard], lengths[hard], None).cast(pa.float64())
        values[hard] = found.to_numpy().view(np.int64)
    return values


def _line(block: bytes | bytearray, begins: Integers, number: int) -> bytes:
    return bytes(block[begins[number] : begins[number + 1] - 1])


def _is_utf8(text: bytes | bytearray) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
