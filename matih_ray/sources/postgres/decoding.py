"""Turns a block of COPY text into an Arrow record batch, exactly.

Arrow's CSV reader does the work, one thread, one block at a time, with a tab as delimiter and all
quoting off. What it does not know is added here: backslash escapes inside strings, `\\x` hex of
bytea, and the values that `exact_values` names. Each costs nothing while it does not occur. Where
much is read, the compiled kernels take its place, which need half of its time (`copy_kernels`);
it still reads what they leave, and names what nobody can read.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from matih_ray.errors import UnrepresentableValueError
from matih_ray.kernels import PADDING
from matih_ray.sources.postgres.copy_kernels import KernelDecoder
from matih_ray.sources.postgres.exact_values import decode_texts

_PARSE = csv.ParseOptions(
    delimiter="\t",
    quote_char=False,
    escape_char=False,
    newlines_in_values=False,
    ignore_empty_lines=False,  # a line with one empty string is a row
)

# What COPY's text format escapes ("File Formats" on the reference page of COPY). A doubled
# backslash must go first and come back last; NUL stands for it, which no PostgreSQL text contains.
_ESCAPES = (
    ("\\\\", "\0"),
    ("\\n", "\n"),
    ("\\t", "\t"),
    ("\\r", "\r"),
    ("\\b", "\b"),
    ("\\f", "\f"),
    ("\\v", "\v"),
    ("\0", "\\"),
)
_BYTEA_PREFIX = b"\\\\x"  # the backslash of hex format, escaped by COPY
_COLUMN_IN_MESSAGE = re.compile(r"In CSV column #(\d+)")


class BlockDecoder:
    """Decodes the blocks of one slice. Remembers which columns need the exact decoder."""

    def __init__(self, schema: pa.Schema, loose: Collection[str] = ()) -> None:
        """Args:
        schema: What to decode to.
        loose: Decimal columns whose texts may not fit their type. Arrow's CSV reader would take
            1234.5 for decimal(5,2), which then holds six digits.
        """
        self._schema = schema
        self._names = [str(index) for index in range(len(schema))]
        self._as_text = {i for i, field in enumerate(schema) if field.name in loose}
        self._bytea = [i for i, field in enumerate(schema) if pa.types.is_binary(field.type)]
        types = [
            pa.string() if i in self._as_text else field.type for i, field in enumerate(schema)
        ]
        self._kernels = KernelDecoder(types)

    def decode(self, padded: bytes | memoryview) -> pa.RecordBatch:
        """One record batch of the rows in a block with `PADDING` after it.

        Raises:
            UnrepresentableValueError: A value has no exact form; names the column.
        """
        if not self._names:
            rows = pa.Array.from_buffers(pa.struct([]), bytes(padded).count(b"\n"), [None])
            return pa.RecordBatch.from_struct_array(rows)
        found = self._kernels.columns(padded)
        if found is not None:
            columns = list(map(_of_kernel, found, self._schema))
            return pa.RecordBatch.from_arrays(columns, schema=self._schema)
        return self._decode_by_arrow(bytes(padded))

    def _decode_by_arrow(self, padded: bytes) -> pa.RecordBatch:
        parsed = self._parse(padded)
        escaped = self._has_escapes(padded, parsed)
        columns = [
            self._column(index, _single(parsed.column(index)), escaped=escaped)
            for index in range(len(self._schema))
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def of_texts(self, columns: Sequence[pa.Array], rows: int) -> pa.RecordBatch:
        """One record batch of so many rows, whose values are PostgreSQL's own texts without escapes
        (binary, a column each; none if there are no rows).

        Raises:
            UnrepresentableValueError: A value has no exact form; names the column.
        """
        if not self._names:
            return pa.RecordBatch.from_struct_array(
                pa.Array.from_buffers(pa.struct([]), rows, [None])
            )
        if not rows:
            return pa.RecordBatch.from_pylist([], self._schema)
        arrays = map(_of_text, columns, self._schema)
        return pa.RecordBatch.from_arrays(list(arrays), schema=self._schema)

    def _parse(self, padded: bytes) -> pa.Table:
        """Each failure moves a column to the exact decoder, so this ends."""
        block = pa.py_buffer(padded).slice(0, len(padded) - len(PADDING))
        read = csv.ReadOptions(
            use_threads=False, block_size=block.size + 1, column_names=self._names
        )
        while True:
            try:
                return csv.read_csv(pa.BufferReader(block), read, _PARSE, self._convert())
            except pa.ArrowInvalid as error:
                self._leave_fast_path(str(error))

    def _convert(self) -> csv.ConvertOptions:
        types = {
            name: pa.string() if index in self._as_text else self._schema.field(index).type
            for index, name in enumerate(self._names)
        }
        return csv.ConvertOptions(
            column_types=types,
            null_values=["\\N"],
            strings_can_be_null=True,
            true_values=["t"],
            false_values=["f"],
            check_utf8=True,
        )

    def _leave_fast_path(self, message: str) -> None:
        """Read the column that failed as text from now on; decimals fail without naming theirs."""
        found = _COLUMN_IN_MESSAGE.search(message)
        failed = {int(found[1])} if found else self._decimals()
        failed = {index for index in failed if _has_exact_decoder(self._schema.field(index).type)}
        if failed <= self._as_text:
            name = self._schema.field(int(found[1])).name if found else None
            raise UnrepresentableValueError(
                f"column {name!r} holds text that is not UTF-8" if name else message, column=name
            )
        self._as_text |= failed

    def _decimals(self) -> set[int]:
        return {i for i, field in enumerate(self._schema) if pa.types.is_decimal(field.type)}

    def _has_escapes(self, padded: bytes, parsed: pa.Table) -> bool:
        """Whether any string has an escape: other backslashes are NULLs' and bytea's."""
        nulls = sum(column.null_count for column in parsed.columns)
        bytea = sum(parsed.num_rows - parsed.column(index).null_count for index in self._bytea)
        if nulls + bytea == 0:
            return b"\\" in padded  # four times as fast as counting
        return bool(padded.count(b"\\") != nulls + 2 * bytea)

    def _column(self, index: int, values: pa.Array, *, escaped: bool) -> pa.Array:
        field = self._schema.field(index)
        if index in self._as_text:
            return decode_texts(values, field.type, field.name)
        if pa.types.is_binary(field.type):
            return _bytes_from_hex(values, field.name)
        if escaped and pa.types.is_string(field.type):
            return _unescaped(values)
        return values


def _has_exact_decoder(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(arrow) or pa.types.is_decimal(arrow))


def _single(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _unescaped(values: pa.Array) -> pa.Array:
    if not pc.any(pc.match_substring(values, "\\")).as_py():
        return values
    for escape, character in _ESCAPES:
        values = pc.replace_substring(values, escape, character)
    return values


def _of_kernel(values: pa.Array, field: pa.Field) -> pa.Array:
    """Values of one column from what the kernels made of it: their texts, if not what is wanted."""
    is_done = values.type == field.type and not pa.types.is_binary(field.type)
    return values if is_done else _of_text(values, field)


def _of_text(texts: pa.Array, field: pa.Field) -> pa.Array:
    """Values of one column from PostgreSQL's texts for them."""
    arrow, types = field.type, pa.types
    if types.is_binary(arrow):
        return _bytes_from_hex(texts, field.name, b"\\x")
    try:
        strings = texts.cast(pa.string())
    except pa.ArrowInvalid:
        raise UnrepresentableValueError(
            f"column {field.name!r} holds text that is not UTF-8", column=field.name
        ) from None
    if types.is_string(arrow):
        return strings
    if types.is_boolean(arrow):
        return pc.equal(strings, "t")
    try:
        if types.is_time(arrow):
            days = pc.binary_join_element_wise("1970-01-01", strings, " ")
            return days.cast(pa.timestamp("us")).cast(arrow)
        return strings.cast(arrow)
    except pa.ArrowInvalid:
        return decode_texts(strings, arrow, field.name)


def _bytes_from_hex(values: pa.Array, column: str, prefix: bytes = _BYTEA_PREFIX) -> pa.Array:
    """`\\\\x0aff` of each row to its bytes: all rows' digits are one buffer, decoded at once."""
    if pc.all(pc.starts_with(values, prefix)).as_py() is False:
        raise UnrepresentableValueError(
            f"column {column!r} did not arrive in hex format; does a connection pooler drop "
            "bytea_output?",
            column=column,
        )
    digits = pc.replace_substring(values, prefix, b"", max_replacements=1)
    validity, offsets, data = digits.buffers()
    decoded = b"" if data is None else binascii.unhexlify(memoryview(data))
    positions = pa.Array.from_buffers(pa.int32(), len(digits) + 1, [None, offsets])
    halves = pc.divide(positions, pa.scalar(2, pa.int32()))
    return pa.Array.from_buffers(
        pa.binary(), len(digits), [validity, halves.buffers()[1], pa.py_buffer(decoded)]
    )
