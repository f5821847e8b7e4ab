"""Columns of blocks of rows in PostgreSQL's COPY text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from matih_ray.kernels import PADDING
from matih_ray.kernels.copy_rows import (
    COLUMN_ITEMS,
    DATA,
    KIND,
    LENGTHS,
    MOST,
    NULLS,
    SCALE,
    SIZE,
    VALIDITY,
    ZONED,
    Kind,
    count_lines,
    read_rows,
)
from matih_ray.kernels.gathering import Integers, round_doubles, text_buffers
from matih_ray.kernels.texts import is_utf8

_MAX_DECIMAL_DIGITS = 18  # of which all fit 64 bits


class NotReadError(Exception):
    """A value of `column` is not what its column wants; of None, the block is not UTF-8."""

    def __init__(self, column: int | None) -> None:
        super().__init__(column)
        self.column = column


class CopyReader:
    """Reads columns of these types. Binary ones get the bytes of the server's text for a value;
    so does, as a string, whatever has no form here. Not thread-safe."""

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        self._columns = [_Column(_kind(arrow), arrow) for arrow in types]
        items = [column.items() for column in self._columns]
        self._table = np.array(items, np.int64).reshape(len(items), COLUMN_ITEMS)

    def read(self, padded: bytes | memoryview) -> list[pa.Array]:
        """The columns of a block that ends with a newline and `PADDING`.

        Raises:
            NotReadError: Not all of it can be read here.
        """
        base, size = np.frombuffer(padded, np.uint8).ctypes.data, len(padded) - len(PADDING)
        if not is_utf8(base, 0, size):
            raise NotReadError(None)
        room = count_lines(base, size)
        table = self._table.copy()
        buffers = [
            column.make_room(room, items)
            for column, items in zip(self._columns, table, strict=True)
        ]
        rows = read_rows(base, size, table.ctypes.data, len(table))
        if rows < 0:
            raise NotReadError(~rows)
        return [
            column.array(base, rows, mine, int(nulls))
            for column, mine, nulls in zip(self._columns, buffers, table[:, NULLS], strict=True)
        ]


class _Column:
    """What is read of a column."""

    def __init__(self, kind: Kind, arrow: pa.DataType) -> None:
        self._kind = kind
        self._arrow = arrow if kind is not Kind.TEXT else _text(arrow)
        # of the rows of one block, and then of the next: memory that was used is faster
        self._places = self._lengths = np.empty(0, np.int64)

    def items(self) -> list[int]:
        """What the kernel knows of it, without addresses."""
        size = most = scale = 0
        if self._kind not in (Kind.TEXT, Kind.BOOLEAN):
            size = self._arrow.bit_width // 8
        if self._kind is Kind.INTEGER:
            most = (1 << (8 * size - 1)) - 1
        if self._kind is Kind.DECIMAL:
            most = 10 ** min(self._arrow.precision, _MAX_DECIMAL_DIGITS) - 1
            scale = self._arrow.scale
        zoned = self._kind is Kind.TIMESTAMP and self._arrow.tz is not None
        known = {KIND: self._kind, SIZE: size, MOST: most, SCALE: scale, ZONED: zoned}
        return [int(known.get(item, 0)) for item in range(COLUMN_ITEMS)]

    def make_room(self, rows: int, items: Integers) -> list[pa.Buffer]:
        """Buffers for the validity and, unless they are texts, the values of so many rows, whose
        addresses the items get."""
        bits = (rows + 7) // 8
        validity = pa.allocate_buffer(bits)
        np.frombuffer(validity, np.uint8)[:] = 0xFF
        items[VALIDITY] = validity.address
        if self._kind in (Kind.TEXT, Kind.DOUBLE) and len(self._lengths) < rows:
            self._places, self._lengths = np.empty((2, rows), np.int64)
        items[LENGTHS] = self._lengths.ctypes.data
        if self._kind is Kind.TEXT:
            items[DATA] = self._places.ctypes.data
            return [validity]
        is_boolean = self._kind is Kind.BOOLEAN
        data = pa.allocate_buffer(bits if is_boolean else rows * self._arrow.bit_width // 8)
        if is_boolean:
            np.frombuffer(data, np.uint8)[:] = 0
        items[DATA] = data.address
        return [validity, data]

    def array(self, base: int, rows: int, buffers: list[pa.Buffer], nulls: int) -> pa.Array:
        """The values, of a block that is at this address."""
        if self._kind is Kind.TEXT:
            buffers = [*buffers, *text_buffers(base, self._places[:rows], self._lengths[:rows])]
        if self._kind is Kind.DOUBLE:
            round_doubles(base, np.frombuffer(buffers[1], np.int64), self._lengths[:rows])
        if not nulls:
            buffers[0] = None
        return pa.Array.from_buffers(self._arrow, rows, buffers, nulls)


def _kind(arrow: pa.DataType) -> Kind:
    types = pa.types
    if types.is_boolean(arrow):
        return Kind.BOOLEAN
    if types.is_signed_integer(arrow) and arrow.bit_width > 8:
        return Kind.INTEGER
    if types.is_decimal128(arrow) and arrow.scale >= 0:
        return Kind.DECIMAL
    if types.is_float64(arrow):
        return Kind.DOUBLE
    if types.is_date32(arrow):
        return Kind.DATE
    if types.is_timestamp(arrow) and arrow.unit == "us":
        return Kind.TIMESTAMP
    if types.is_time64(arrow) and arrow.unit == "us":
        return Kind.TIME
    return Kind.TEXT


def _text(arrow: pa.DataType) -> pa.DataType:
    return pa.binary() if pa.types.is_binary(arrow) else pa.string()
