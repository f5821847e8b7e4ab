"""Arrow types as PostgreSQL's, and batches as the CSV that COPY reads."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from matih_ray.errors import SchemaMismatchError, SinkError

# Rows of about this size become CSV at a time: little memory beside the batch, and less than what
# is on its way to the server, so that it parses one piece while the next is made.
PIECE_BYTES = 1024 * 1024

_TYPES: dict[pa.DataType, str] = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.int32(): "integer",
    pa.float64(): "double precision",
    pa.bool_(): "boolean",
    pa.date32(): "date",
    pa.timestamp("us", "UTC"): "timestamp with time zone",
    pa.timestamp("us"): "timestamp without time zone",
    pa.list_(pa.string()): "text[]",
}
_ZERO = re.compile(rb"\0")
# Every value is quoted and NULL is not, so that NULL and the empty string stay apart.
_OPTIONS = csv.WriteOptions(include_header=False, quoting_style="all_valid")


def column_type(field: pa.Field) -> str:
    """The type of a column, as `format_type` of PostgreSQL spells it.

    Raises:
        SchemaMismatchError: There is none that holds every value.
    """
    if pa.types.is_decimal128(field.type):
        return f"numeric({field.type.precision},{field.type.scale})"
    found = _TYPES.get(field.type)
    if found is None:
        raise SchemaMismatchError(
            f"column {field.name}: no PostgreSQL type is declared for {field.type}",
            column=field.name,
        )
    return found


def csv_pieces(batch: pa.RecordBatch) -> Iterator[pa.Buffer]:
    """The batch's rows as CSV, about a megabyte at a time.

    Raises:
        SinkError: A text holds U+0000, which PostgreSQL cannot store; context names the column.
    """
    flat = _flat(batch)
    rows = max(1, flat.num_rows * PIECE_BYTES // max(flat.nbytes, 1))
    for start in range(0, flat.num_rows, rows):
        piece = flat.slice(start, rows)
        sink = pa.BufferOutputStream()
        csv.write_csv(piece, sink, _OPTIONS)
        written = sink.getvalue()
        if _ZERO.search(written):
            raise _zero_byte(piece)
        yield written


class CsvFile:
    """A batch as a file of CSV, made while it is read.

    `problem` is what ended the reading: the driver raises an error of its own for it.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._pieces = csv_pieces(batch)
        self._rest = memoryview(b"")
        self.bytes_read = 0
        self.problem: SinkError | None = None

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size` of them; none at the end. Raises as `csv_pieces`."""
        while not self._rest:
            try:
                piece = next(self._pieces, None)
            except SinkError as problem:
                self.problem = problem
                raise
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        taken, self._rest = bytes(self._rest[:size]), self._rest[size:]
        self.bytes_read += len(taken)
        return taken


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with lists as array literals, which CSV can hold."""
    for position, field in enumerate(batch.schema):
        if pa.types.is_list(field.type):
            literal = pa.field(field.name, pa.string())
            batch = batch.set_column(position, literal, _array_literals(batch.column(position)))
    return batch


def _array_literals(lists: pa.ListArray) -> pa.Array:
    """Lists of texts as PostgreSQL writes arrays: `{"a","b \\"c\\""}`, `{NULL}`."""
    values = lists.flatten()
    for sign in ("\\", '"'):
        values = pc.replace_substring(values, sign, "\\" + sign)
    quoted = pc.fill_null(pc.binary_join_element_wise('"', values, '"', ""), "NULL")
    # flatten leaves out what is behind NULL lists and outside a slice, so offsets start anew
    ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(lists), 0)).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    whole = pa.ListArray.from_arrays(offsets, quoted, mask=lists.is_null())
    return pc.binary_join_element_wise("{", pc.binary_join(whole, ","), "}", "")


def _zero_byte(flat: pa.RecordBatch) -> SinkError:
    guilty = [
        name
        for name, column in zip(flat.schema.names, flat.columns, strict=True)
        if pa.types.is_string(column.type)
        and pc.any(pc.match_substring(column, "\0"), min_count=0).as_py()
    ]
    name = guilty[0] if guilty else "?"
    return SinkError(
        f"column {name} holds the character U+0000, which PostgreSQL cannot store; remove it in "
        "the source",
        column=name,
    )
