"""Rows of newline-delimited JSON. Numbers are exact; objects and lists arrive as JSON text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa

from matih_ray.errors import SourceRejectedError
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.documents.exact_json import json_text, parse
from matih_ray.sources.files.tabular import misfit, typed_text
from matih_ray.sources.files.types import DECIMAL_DIGITS

READ_BYTES = 1 << 20
# Python objects take several times the bytes of their text.
PIECE_BYTES = TARGET_BATCH_BYTES // 4
# Longer lines are files without line ends.
MAX_LINE_BYTES = 64 << 20

Row = dict[str, Any]


def pieces(stream: pa.NativeFile, path: str) -> Iterator[tuple[list[Row], int]]:
    """Rows of a file, those of about `PIECE_BYTES` of text at a time, and the bytes of that text.

    Raises:
        SourceRejectedError: A line is not one JSON object, or is too long.
    """
    rows: list[Row] = []
    size = 0
    for number, line in enumerate(_lines(stream, path), start=1):
        rows.append(_parsed(line, path, number))
        size += len(line)
        if size >= PIECE_BYTES:
            yield rows, size
            rows, size = [], 0
    if rows:
        yield rows, size


def native_type(values: Iterable[Any]) -> str:
    """What a sample of one column is: an Arrow type's spelling, or `json` when nothing else is."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if not kinds or kinds == {str}:
        return "string"
    if kinds == {bool}:
        return "bool"
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in present):
        return "int64"
    if kinds <= {int, Decimal}:
        scale = max(_places(value) for value in present)
        kind = pa.decimal128(DECIMAL_DIGITS, min(scale, DECIMAL_DIGITS))
        return str(kind) if all(_fits(value, kind) for value in present) else "json"
    return "json"


def json_batch(
    rows: list[Row], path: str, schema: pa.Schema, natives: dict[str, str], start: int
) -> pa.RecordBatch:
    """Rows as one batch; `start` is the number of the first.

    Raises:
        UnrepresentableValueError: A value is not exactly of its column's type.
    """
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if natives[field.name] == "json":
            texts = [None if value is None else json_text(value) for value in values]
            columns.append(pa.array(texts, pa.string()))
        else:
            columns.append(_column(values, path, field, start))
    return pa.record_batch(columns, schema=schema)


def _column(values: list[Any], path: str, field: pa.Field, start: int) -> pa.Array:
    kind = field.type
    numeric = pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    for index, value in enumerate(values):
        fits = _fits(value, kind) if numeric else isinstance(value, str)
        if value is not None and not fits:
            raise misfit(path, start + index, field.name, kind)
    if numeric:
        return pa.array(values, kind)
    return typed_text(pa.array(values, pa.string()), path, field, start)


def _fits(value: Any, kind: pa.DataType) -> bool:
    if value is None or pa.types.is_boolean(kind):
        return value is None or isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return False
    if pa.types.is_integer(kind):
        limit = 1 << (kind.bit_width - 1)
        return isinstance(value, int) and -limit <= value < limit
    number = Decimal(value)
    whole_digits = number.adjusted() + 1 if number else 0
    return _places(number) <= int(kind.scale) and whole_digits <= int(kind.precision - kind.scale)


def _places(value: int | Decimal) -> int:
    exponent = Decimal(value).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _parsed(line: bytes, path: str, number: int) -> Row:
    try:
        row = parse(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise SourceRejectedError(
            f"line {number} of {path} is not one JSON object with unique names",
            file=path,
            row=number,
        )
    return row


def _lines(stream: pa.NativeFile, path: str) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > MAX_LINE_BYTES:
            raise SourceRejectedError(
                f"a line of {path} is longer than {MAX_LINE_BYTES} bytes", file=path
            )
    if rest.strip():
        yield rest
