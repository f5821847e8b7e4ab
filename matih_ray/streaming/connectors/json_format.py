"""Flink's `json` format: lines or messages, decoded to the needed columns only.

Whole blocks go through the compiled reader. Lines that it leaves alone, because they are bad or
need one of Flink's leniencies, are decoded one by one and put in their places: so exactness costs
only where rows need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matih_ray.errors import SqlInvalidError, StreamRowError
from matih_ray.kernels import PADDING
from matih_ray.streaming.connectors.json_values import (
    BadValueError,
    converted,
    converter,
    document,
    documents,
)
from matih_ray.streaming.sql.types import INTEGERS, FlinkType

if TYPE_CHECKING:
    from matih_ray.kernels.json_columns import JsonReader, Lines

# Rows of a batch: enough for the cost of a batch to vanish, and few enough for what is known of
# them while they are decoded to stay in the processor's cache.
BATCH_ROWS = 32 * 1024


@dataclass(frozen=True)
class JsonOptions:
    """The format's options. With `keep_bad` a row that cannot be read is told of as a bad one,
    where else it would stop the job."""

    ignore_errors: bool = False
    fail_on_missing: bool = False
    timestamps: str = "SQL"
    keep_bad: bool = False


@dataclass(frozen=True)
class BadValue:
    """A line or message that could not be read."""

    number: int
    why: str
    text: bytes


@dataclass(frozen=True)
class Decoded:
    """Rows of lines or messages. `numbers` are the ones that they came from, None where each is one
    row."""

    batch: pa.RecordBatch
    numbers: Sequence[int] | None = None
    bad: tuple[BadValue, ...] = ()


class JsonFormat:
    """Decodes blocks of lines, or messages; by several threads at a time."""

    def __init__(self, fields: Mapping[str, FlinkType], options: JsonOptions) -> None:
        if options.timestamps not in ("SQL", "ISO-8601"):
            raise SqlInvalidError("json.timestamp-format.standard is SQL or ISO-8601")
        self._fields = fields
        self._options = options
        self._converters = {
            name: converter(kind, options.timestamps) for name, kind in fields.items()
        }
        self._schema = pa.schema([(name, kind.arrow) for name, kind in fields.items()])
        self._reader = _reader_of(fields, options)

    def decode(self, padded: bytes | bytearray) -> Iterator[Decoded]:
        """The rows of whole lines with `PADDING` after them, in order. Empty lines are none.

        Raises:
            StreamRowError: A row cannot be read, and parse errors are not ignored.
        """
        if b"\r" in padded:
            padded = b"\n".join([*padded[: -len(PADDING)].splitlines(), PADDING])
        for lines in self._reader.read(padded, BATCH_ROWS):
            yield self._decoded(lines, partial(_stripped, lines))

    def decode_values(self, values: list[bytes]) -> Decoded:
        """The rows of messages that each hold a JSON document, in order. Numbers count from the
        first message.

        Raises:
            StreamRowError: A value cannot be read, and parse errors are not ignored.
        """
        lines = self._lines(values)
        if lines is None:
            # some are empty or more than a line: let those be left, to be read as they are
            lines = self._lines([one if one and b"\n" not in one else b"?" for one in values])
        assert lines is not None  # noqa: S101 - each is a line now
        return self._decoded(lines, values.__getitem__)

    def _lines(self, values: list[bytes]) -> Lines | None:
        return self._reader.read_each(b"\n".join([*values, PADDING]), len(values))

    def _decoded(self, lines: Lines, text_of: Callable[[int], bytes | None]) -> Decoded:
        """The rows of lines. Those that the reader left, or whose values do not have their types,
        are read one by one, if they have a text."""
        batch, left = self._typed(lines)
        if not left.any():
            return Decoded(batch)
        rows: list[list[object]] = []
        origins: list[int] = []
        bad: list[BadValue] = []
        for number in np.flatnonzero(left).tolist():
            text = text_of(number)
            if text is None:
                continue
            try:
                found = [self._row(one) for one in documents(text)]
            except (ValueError, RecursionError) as error:
                bad.append(BadValue(number, self._refused(error), text))
                continue
            rows += found
            origins += [number] * len(found)
        numbers = np.concatenate([np.flatnonzero(~left), origins]).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        whole = pa.concat_batches([batch.filter(pa.array(~left)), self._batch(rows)])
        return Decoded(whole.take(pa.array(order)), numbers[order].tolist(), tuple(bad))

    def _typed(self, lines: Lines) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
        """Columns of the fields' types, and which lines are left: by the reader, or because they
        have a value of another type."""
        columns, left = [], lines.left.copy()
        for column, (name, kind) in zip(lines.columns, self._fields.items(), strict=True):
            found = column if column.type == kind.arrow else self._each(column, name)
            if found is not column:
                refused = pc.and_(found.is_null(), column.is_valid())
                left |= refused.to_numpy(zero_copy_only=False)
            columns.append(found)
        return pa.record_batch(columns, schema=self._schema), left

    def _each(self, column: pa.Array, name: str) -> pa.Array:
        """Values of JSON texts one by one; NULL what is none of the field's type."""
        values: list[object] = []
        for text in column.to_pylist():
            try:
                values.append(converted(document(text or "null"), self._converters[name]))
            except (ValueError, RecursionError):
                values.append(None)
        return pa.array(values, self._fields[name].arrow)

    def _batch(self, rows: list[list[object]]) -> pa.RecordBatch:
        columns = [
            pa.array([row[place] for row in rows], field.type)
            for place, field in enumerate(self._schema)
        ]
        return pa.record_batch(columns, schema=self._schema)

    def _refused(self, error: Exception) -> str:
        """Why a row is left out, or the error that stops the job."""
        why = str(error) if isinstance(error, BadValueError) else "it is no JSON object"
        if self._options.ignore_errors or self._options.keep_bad:
            return why
        raise StreamRowError(
            f"a row cannot be read: {why}; 'json.ignore-parse-errors' = 'true' goes on"
        ) from None

    def _row(self, one: object) -> list[object]:
        if not isinstance(one, dict):
            raise BadValueError("it is no JSON object")
        row: list[object] = []
        for name, convert in self._converters.items():
            if name not in one and self._options.fail_on_missing:
                raise BadValueError(f"field {name} is missing")
            try:
                row.append(converted(one.get(name), convert))
            except BadValueError:
                if not self._options.ignore_errors:
                    raise BadValueError(f"field {name} is no {self._fields[name]}") from None
                row.append(None)
        return row


def _stripped(lines: Lines, number: int) -> bytes | None:
    return lines.text(number).strip() or None


def _reader_of(fields: Mapping[str, FlinkType], options: JsonOptions) -> JsonReader:
    """What reads fields at once; those of other types as JSON texts."""
    # numba is loaded by who decodes, not by who only plans
    from matih_ray.kernels.json_columns import JsonColumn, JsonReader
    from matih_ray.kernels.json_lines import Kind

    kinds = {"STRING": Kind.TEXT, "DOUBLE": Kind.DOUBLE, "BOOLEAN": Kind.BOOLEAN}
    kinds |= dict.fromkeys(INTEGERS, Kind.INTEGER)
    kinds |= dict.fromkeys(("TIMESTAMP", "TIMESTAMP_LTZ"), Kind.TIME)
    between = " " if options.timestamps == "SQL" else "T"
    columns = [
        JsonColumn(name, kinds[kind.kind], kind.arrow, between, kind.precision)
        if kind.kind in kinds
        else JsonColumn(name, Kind.ANY)
        for name, kind in fields.items()
    ]
    return JsonReader(columns, leave_missing=options.fail_on_missing)
