"""Flink's `json` format: one object a line, decoded to the needed columns only.

Blocks go through Arrow's JSON reader, which is strict where Flink is lenient (text to number, any
value to text). A block that it refuses is halved until few lines are left, and those are decoded
one by one with Flink's own coercions. So exactness costs only where rows need it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.json

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError, StreamRowError
from matih_ray.streaming.connectors.json_times import FORMS, parsed
from matih_ray.streaming.sql.casts import parse_timestamps
from matih_ray.streaming.sql.types import BITS, FlinkType

# Blocks of no more lines are decoded line by line.
FEW_LINES = 32
# Types whose JSON values Arrow's reader checks as strictly as is needed.
_DIRECT = ("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "DOUBLE", "STRING")


@dataclass(frozen=True)
class JsonOptions:
    """The format's options. With `keep_bad` a row that cannot be read is told of as a bad one,
    where else it would stop the job."""

    ignore_errors: bool = False
    fail_on_missing: bool = False
    timestamps: str = "SQL"
    keep_bad: bool = False


@dataclass(frozen=True)
class Decoded:
    """Rows of a list of values. `numbers` are the values that they came from, None where each
    value is one row; `bad` are the values that could not be read, and why."""

    batch: pa.RecordBatch
    numbers: list[int] | None = None
    bad: tuple[tuple[int, str], ...] = ()


class _BadValueError(ValueError):
    """A field does not have its type."""


class JsonFormat:
    """Decodes blocks of lines, or values by several threads at a time."""

    def __init__(self, fields: Mapping[str, FlinkType], options: JsonOptions) -> None:
        if options.timestamps not in ("SQL", "ISO-8601"):
            raise SqlInvalidError("json.timestamp-format.standard is SQL or ISO-8601")
        self._fields = fields
        self._options = options
        self._converters = {name: _converter(kind, options) for name, kind in fields.items()}
        self._schema = pa.schema([(name, kind.arrow) for name, kind in fields.items()])
        self._read_schema = pa.schema(
            [
                (name, kind.arrow if _is_direct(kind) else pa.string())
                for name, kind in fields.items()
            ]
        )
        self._direct = not options.fail_on_missing and all(
            _is_direct(kind) or kind.is_time for kind in fields.values()
        )
        self.left_out: list[tuple[str, bytes]] = []  # of lines: why, and what

    def decode(self, block: bytes) -> list[pa.RecordBatch]:
        """The rows of whole lines, in order.

        Raises:
            StreamRowError: A row cannot be read, and parse errors are not ignored.
        """
        block = block.strip(b"\n")
        # first as it is: what has empty lines or other line ends is found out by that
        whole = self._at_once(block) if self._direct else None
        if whole is not None:
            return [whole]
        if b"\r" in block or b"\n\n" in block:
            lines = block.splitlines() if b"\r" in block else block.split(b"\n")
            block = b"\n".join(line for line in lines if line.strip())
        return self._decode(block) if block else []

    def decode_values(self, values: list[bytes]) -> list[Decoded]:
        """The rows of values that each hold a JSON document, in order; `numbers` count from the
        first value of the whole list.

        Raises:
            StreamRowError: A value cannot be read, and parse errors are not ignored.
        """
        return self._decode_values(values, 0) if values else []

    def _decode_values(self, values: list[bytes], first: int) -> list[Decoded]:
        whole = self._at_once(b"\n".join(values), len(values)) if self._direct else None
        if whole is not None:
            numbers = None if first == 0 else list(range(first, first + len(values)))
            return [Decoded(whole, numbers)]
        if len(values) <= FEW_LINES:
            return [self._values_one_by_one(values, first)]
        middle = len(values) // 2
        return [
            *self._decode_values(values[:middle], first),
            *self._decode_values(values[middle:], first + middle),
        ]

    def _values_one_by_one(self, values: list[bytes], first: int) -> Decoded:
        rows: list[list[object]] = []
        numbers: list[int] = []
        bad: list[tuple[int, str]] = []
        for number, value in enumerate(values, first):
            try:
                found = self._read(value)
            except (ValueError, RecursionError) as error:
                bad.append((number, self._refused(error)))
                continue
            rows += found
            numbers += [number] * len(found)
        return Decoded(self._batch(rows), numbers, tuple(bad))

    def _decode(self, block: bytes) -> list[pa.RecordBatch]:
        batch = self._at_once(block) if self._direct else None
        if batch is not None:
            return [batch]
        if block.count(b"\n") < FEW_LINES:
            return [self._one_by_one(block.split(b"\n"))]
        middle = block.find(b"\n", len(block) // 2)
        if middle < 0:
            middle = block.rfind(b"\n")
        return [*self._decode(block[:middle]), *self._decode(block[middle + 1 :])]

    def _at_once(self, block: bytes, count: int | None = None) -> pa.RecordBatch | None:
        """The block by Arrow's reader, or None if Flink might read it otherwise. It has so many
        objects, or as many as it has lines."""
        # an object a line, neither less nor more: valid JSON has no `}` newline `{` within a value
        if not (block.startswith(b"{") and block.endswith(b"}")):
            return None
        ends, between = _line_ends(block)
        count = ends + 1 if count is None else count
        if between != count - 1 or not _is_utf8(block):
            return None
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(block),
                # whoever wants several threads decodes several blocks
                read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1, use_threads=False),
                parse_options=pyarrow.json.ParseOptions(
                    explicit_schema=self._read_schema, unexpected_field_behavior="ignore"
                ),
            )
        except pa.ArrowInvalid:
            return None
        return self._typed(table) if table.num_rows == count else None

    def _typed(self, table: pa.Table) -> pa.RecordBatch | None:
        columns = []
        for name, kind in self._fields.items():
            column = table.column(name).combine_chunks()
            if kind.is_time:
                found = parsed(column, kind, self._options.timestamps)
                if found.null_count != column.null_count:
                    return None
                column = found
            columns.append(column)
        return pa.record_batch(columns, schema=self._schema)

    def _one_by_one(self, lines: list[bytes]) -> pa.RecordBatch:
        return self._batch([row for line in lines for row in self._rows(line)])

    def _batch(self, rows: list[list[object]]) -> pa.RecordBatch:
        columns = [
            pa.array([row[place] for row in rows], field.type)
            for place, field in enumerate(self._schema)
        ]
        return pa.record_batch(columns, schema=self._schema)

    def _rows(self, line: bytes) -> list[list[object]]:
        try:
            return self._read(line)
        except (ValueError, RecursionError) as error:
            self.left_out.append((self._refused(error), line))
            return []

    def _read(self, text: bytes) -> list[list[object]]:
        found, _ = _DECODER.raw_decode(text.decode().lstrip())
        objects = found if isinstance(found, list) else [found]
        return [self._row(one) for one in objects]

    def _refused(self, error: Exception) -> str:
        """Why a row is left out, or the error that stops the job."""
        why = str(error) if isinstance(error, _BadValueError) else "it is no JSON object"
        if self._options.ignore_errors or self._options.keep_bad:
            return why
        raise StreamRowError(
            f"a row cannot be read: {why}; 'json.ignore-parse-errors' = 'true' goes on"
        ) from None

    def _row(self, one: object) -> list[object]:
        if not isinstance(one, dict):
            raise _BadValueError("it is no JSON object")
        row: list[object] = []
        for name, convert in self._converters.items():
            if name not in one and self._options.fail_on_missing:
                raise _BadValueError(f"field {name} is missing")
            value = one.get(name)
            try:
                row.append(None if value is None else convert(value))
            except (ValueError, InvalidOperation, pa.ArrowInvalid):
                if not self._options.ignore_errors:
                    raise _BadValueError(f"field {name} is no {self._fields[name]}") from None
                row.append(None)
        return row


def _is_direct(kind: FlinkType) -> bool:
    return kind.kind in _DIRECT or (kind.element is not None and kind.element.kind in _DIRECT)


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _line_ends(block: bytes) -> tuple[int, int]:
    """How many there are, and how many of them are between two objects. The block begins and ends
    with neither of them."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    between = (text[ends - 1] == ord("}")) & (text[ends + 1] == ord("{"))
    return len(ends), int(np.count_nonzero(between))


class _Text(str):
    """A number of a document, as it was written."""

    __slots__ = ()


_DECODER = json.JSONDecoder(parse_float=_Text, parse_int=_Text)
_Converter = Callable[[object], object]


def _converter(kind: FlinkType, options: JsonOptions) -> _Converter:
    """What a JSON value that is not null becomes.

    Raises:
        SqlNotSupportedError: The type cannot be read from JSON here.
    """
    if kind.is_time:
        form = re.compile(FORMS[options.timestamps, kind.kind])
        return lambda value: _time(value, kind, form)
    if kind.element is not None:
        inner = _converter(kind.element, options)
        return lambda value: _array(value, inner)
    if kind.is_integer:
        return lambda value: _integer(value, kind)
    if kind.kind == "DECIMAL":
        return lambda value: _decimal(value, kind)
    found = {"STRING": _text, "BOOLEAN": _boolean, "DOUBLE": _double, "FLOAT": _double}.get(
        kind.kind
    )
    if found is None:
        raise SqlNotSupportedError(f"{kind} in JSON is not supported", clause=kind.kind)
    return found


def _text(value: object) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return _compact(value)


def _compact(value: object) -> str:
    """Compact JSON, numbers as they were written."""
    if isinstance(value, dict):
        parts = (
            f"{json.dumps(key, ensure_ascii=False)}:{_compact(one)}" for key, one in value.items()
        )
        return f"{{{','.join(parts)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_compact, value))}]"
    return str(value) if isinstance(value, _Text) else json.dumps(value, ensure_ascii=False)


def _boolean(value: object) -> bool:
    """True for `true` and text `true`, else false, as Flink has it."""
    return value is True or (isinstance(value, str) and str(value).strip().lower() == "true")


def _number(value: object) -> Decimal:
    if not isinstance(value, str):
        raise _BadValueError("no number")
    found = Decimal(str(value).strip())
    if not found.is_finite() or "_" in value:
        raise _BadValueError("no number")
    return found


def _integer(value: object, kind: FlinkType) -> int:
    """A number loses its fraction; text must be a whole number."""
    found = _number(value)
    if not isinstance(value, _Text) and not re.fullmatch(r"\s*[+-]?\d+\s*", str(value)):
        raise _BadValueError("no whole number")
    whole, limit = int(found) if abs(found) < 1 << 64 else 1 << 64, 1 << (BITS[kind.kind] - 1)
    if not -limit <= whole < limit:
        raise _BadValueError("out of range")
    return whole


def _double(value: object) -> float:
    if isinstance(value, str) and str(value).strip() in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return float(_number(value))


def _decimal(value: object, kind: FlinkType) -> Decimal | None:
    found = _number(value).quantize(Decimal(1).scaleb(-kind.scale), rounding=ROUND_HALF_UP)
    return found if len(found.as_tuple().digits) <= kind.precision else None


def _array(value: object, inner: _Converter) -> list[object]:
    if not isinstance(value, list):
        raise _BadValueError("no array")
    return [None if one is None else inner(one) for one in value]


def _time(value: object, kind: FlinkType, form: re.Pattern[str]) -> object:
    if isinstance(value, _Text) or not isinstance(value, str) or not form.match(value):
        raise _BadValueError("no timestamp")
    found = parse_timestamps(pa.array([value.rstrip("Z")]), kind, "^")
    if found.null_count:
        raise _BadValueError("no such day")
    return found[0]
