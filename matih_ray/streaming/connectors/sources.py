"""Bounded sources: `filesystem` (JSON, CSV, Parquet) and `datagen`."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from matih_ray.errors import (
    SourceChangedError,
    SourceUnavailableError,
    SqlInvalidError,
    SqlNotSupportedError,
    StreamRowError,
)
from matih_ray.sources.read_ahead import read_ahead
from matih_ray.streaming.connectors.json_format import JsonFormat, JsonOptions
from matih_ray.streaming.connectors.line_pieces import Piece, pieces_of
from matih_ray.streaming.connectors.options import flag, local_path, option
from matih_ray.streaming.connectors.reader import BadRow
from matih_ray.streaming.sql.casts import cast_function
from matih_ray.streaming.sql.script import CreateTable
from matih_ray.streaming.sql.types import STRING, FlinkType

BATCH_ROWS = 64 * 1024
# Threads that read and decode what comes while windows take what is there. They leave the
# interpreter to others; more of them wait for a process that aggregates.
DECODERS = 2
MAX_FILES = 1_000_000
_DEFAULT_LENGTH = 100  # of datagen's text, as in Flink

# What can be closed before its end, which ends the threads that read ahead.
Batches: TypeAlias = Generator[pa.RecordBatch, None, None]


@dataclass
class SourceRead:
    """One reading of a table: batches of the needed columns, and the rows that were left out, which
    whoever reads takes away."""

    batches: Batches
    bad: list[BadRow] = field(default_factory=list)


@dataclass(frozen=True)
class _Reading:
    """What is read of which files, and where bad rows go."""

    table: CreateTable
    fields: Mapping[str, FlinkType]
    files: list[Path] | None
    keep_bad: bool
    bad: list[BadRow] = field(default_factory=list)

    def paths(self) -> list[Path]:
        """The files; a table's may not be there yet when reading begins."""
        return files_of(self.table) if self.files is None else self.files


def open_source(
    table: CreateTable,
    fields: Mapping[str, FlinkType],
    *,
    files: list[Path] | None = None,
    keep_bad: bool = False,
) -> SourceRead:
    """Read these columns of a table, or of some of its files. With `keep_bad` rows that cannot be
    read are left out, whatever the options say.

    Raises:
        SqlInvalidError: An option is wrong.
        SqlNotSupportedError: The connector or format is not there.
    """
    connector = option(table, "connector")
    if connector == "datagen":
        return SourceRead(_datagen(table, fields))
    if connector != "filesystem":
        raise SqlNotSupportedError(
            f"table {'.'.join(table.path)}: connector {connector!r} cannot be read here; there are "
            "filesystem and datagen",
            clause=connector,
        )
    kind = option(table, "format")
    read = {"json": _json, "csv": _csv, "parquet": _parquet}.get(kind)
    if read is None:
        raise SqlNotSupportedError(f"format {kind!r} is not supported", clause="format")
    reading = _Reading(table, fields, files, keep_bad)
    return SourceRead(read(reading), reading.bad)


def files_of(table: CreateTable) -> list[Path]:
    """The files of a table by name; hidden ones do not count, as in Flink.

    Raises:
        SourceUnavailableError: There is nothing at the path.
    """
    path = local_path(table)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SourceUnavailableError(f"there is no file or directory {path}")
    found = sorted(
        one for one in path.rglob("*") if one.is_file() and not one.name.startswith((".", "_"))
    )
    if len(found) > MAX_FILES:
        raise SqlInvalidError(f"{path} has more than {MAX_FILES} files")
    return found


def _json(reading: _Reading) -> Batches:
    table = reading.table
    standard = option(table, "json.timestamp-format.standard", "SQL")
    options = JsonOptions(
        flag(table, "json.ignore-parse-errors"),
        flag(table, "json.fail-on-missing-field"),
        standard,
        reading.keep_bad,
    )
    json_format = JsonFormat(reading.fields, options)

    def decoded(piece: Piece) -> tuple[list[pa.RecordBatch], list[BadRow]]:
        found = list(json_format.decode(piece.padded()))
        where = piece.path.name
        bad = [BadRow("", f"{where}: {one.why}", one.text) for part in found for one in part.bad]
        return [part.batch for part in found], bad

    pieces = (piece for path in reading.paths() for piece in pieces_of(path))
    for batches, bad in read_ahead(decoded, pieces, DECODERS):
        reading.bad.extend(bad)
        yield from batches


def _csv(reading: _Reading) -> Batches:
    table, fields = reading.table, reading.fields
    names = [column.name for column in table.columns if column.type is not None]
    ignore = flag(table, "csv.ignore-parse-errors")

    def bad_row(row: pyarrow.csv.InvalidRow) -> str:
        why = f"{row.actual_columns} columns instead of {row.expected_columns}"
        reading.bad.append(BadRow(str(row.number or ""), why, (row.text or "").encode()))
        return "skip" if ignore or reading.keep_bad else "error"

    null = table.options.values.get("csv.null-literal")
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(fields, pa.string()),
        include_columns=list(fields),
        strings_can_be_null=null is not None,
        null_values=[] if null is None else [null],
        quoted_strings_can_be_null=False,
    )
    for path in reading.paths():
        if path.stat().st_size == 0:
            continue
        try:
            with pyarrow.csv.open_csv(
                path,
                read_options=pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=option(table, "csv.field-delimiter", ","),
                    invalid_row_handler=bad_row,
                    newlines_in_values=True,
                ),
                convert_options=convert,
            ) as reader:
                for batch in reader:
                    yield _typed(batch, fields, ignore=ignore)
        except pa.ArrowInvalid as error:
            raise StreamRowError(f"a row of {path} cannot be read: {error}") from None


def _typed(
    batch: pa.RecordBatch, fields: Mapping[str, FlinkType], *, ignore: bool
) -> pa.RecordBatch:
    columns = []
    for name, kind in fields.items():
        text = batch.column(name)
        if kind != STRING:  # an empty field of another type is NULL
            text = pa.compute.if_else(
                pa.compute.equal(text, ""), pa.scalar(None, pa.string()), text
            )
        found = cast_function(STRING, kind)(text)
        if found.null_count != text.null_count and not ignore:
            raise StreamRowError(
                f"a row cannot be read: field {name} is no {kind}; 'csv.ignore-parse-errors' = "
                "'true' reads NULL"
            )
        columns.append(found)
    return pa.record_batch(columns, names=list(fields))


def _parquet(reading: _Reading) -> Batches:
    fields = reading.fields
    schema = pa.schema([(name, kind.arrow) for name, kind in fields.items()])
    for path in reading.paths():
        with pyarrow.parquet.ParquetFile(path) as file:
            missing = set(fields) - set(file.schema_arrow.names)
            if missing:
                raise SourceChangedError(f"{path} has no column {', '.join(sorted(missing))}")
            for batch in file.iter_batches(BATCH_ROWS, columns=list(fields)):
                try:
                    yield batch.select(list(fields)).cast(schema)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    raise SourceChangedError(
                        f"{path} does not fit its table's columns: {error}"
                    ) from None


def _datagen(table: CreateTable, fields: Mapping[str, FlinkType]) -> Batches:
    rows = int(option(table, "number-of-rows"))
    randomness = random.Random()  # noqa: S311 - sample data
    makers = {name: _maker(table, name, kind, randomness) for name, kind in fields.items()}
    for start in range(0, rows, BATCH_ROWS):
        numbers = range(start, min(start + BATCH_ROWS, rows))
        yield pa.record_batch(
            [
                pa.array([make(number) for number in numbers], fields[name].arrow)
                for name, make in makers.items()
            ],
            names=list(fields),
        )


def _maker(
    table: CreateTable, name: str, kind: FlinkType, randomness: random.Random
) -> Callable[[int], object]:
    """The value of a field in a row, by its options `fields.<name>.…`."""

    def told(key: str, default: str) -> str:
        return option(table, f"fields.{name}.{key}", default)

    if told("kind", "random") == "sequence":
        if not kind.is_integer:
            raise SqlNotSupportedError(f"a sequence of {kind} is not supported", clause="datagen")
        first = int(told("start", "0"))
        return lambda number: first + number
    if kind.is_integer:
        low, high = int(told("min", "0")), int(told("max", "100"))
        return lambda _: randomness.randint(low, high)
    if kind.kind == "DOUBLE":
        least, most = float(told("min", "0")), float(told("max", "1"))
        return lambda _: randomness.uniform(least, most)
    if kind.kind == "BOOLEAN":
        return lambda _: randomness.random() < 0.5
    if kind.kind == "STRING":
        length = int(told("length", str(_DEFAULT_LENGTH)))
        return lambda _: "".join(randomness.choices(string.hexdigits[:16], k=length))
    if kind.is_time:
        return lambda _: datetime.now(timezone.utc).replace(tzinfo=None)
    raise SqlNotSupportedError(f"datagen of {kind} is not supported", clause="datagen")
