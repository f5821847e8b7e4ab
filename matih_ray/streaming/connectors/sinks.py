"""The seam of sinks, and the small ones: `print`, `blackhole` and `filesystem`."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from matih_ray.errors import SqlNotSupportedError
from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import JsonValue
from matih_ray.streaming.connectors.options import local_path, option
from matih_ray.streaming.sql.casts import java_text
from matih_ray.streaming.sql.script import CreateTable


class TableSink(Protocol):
    """Where the rows of one INSERT go: written, then prepared, then committed.

    What is prepared is plain data that a checkpoint can hold; it is not visible yet, and committing
    it twice does it once. `print` is the exception: its lines are out when they are written.
    """

    @property
    def marker(self) -> CommitMarker | None:
        """What the target carries, or will when what was prepared is committed; None if nothing."""

    @property
    def is_marked(self) -> bool:
        """Whether commits leave markers at all."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch of the table's columns."""

    def prepare(self, *, always: bool = False) -> JsonValue:
        """Finish what was written since the last time; None if there is nothing to commit.

        With `always` there is something to commit without rows too, where commits are fenced.
        """

    def commit(self, prepared: JsonValue) -> None:
        """Show what was prepared, by whichever process.

        Raises:
            FencedError: Another owner of the job has committed since.
        """

    def abort(self) -> None:
        """Drop what was written and not prepared, as far as possible."""


@runtime_checkable
class TakesChanges(Protocol):
    """A sink of a table whose rows can be replaced and removed."""

    def change(self, batch: pa.RecordBatch, gone: npt.NDArray[np.bool_]) -> None:
        """Take changes in order: rows as they are now, and those that are gone."""


def open_sink(table: CreateTable, schema: pa.Schema, out: IO[str]) -> TableSink:
    """The sink of a table that was declared with a connector.

    Raises:
        SqlNotSupportedError: The connector or its format is not there.
    """
    connector = option(table, "connector")
    if connector == "print":
        return PrintSink(out, option(table, "print-identifier", ""))
    if connector == "blackhole":
        return BlackholeSink()
    if connector == "filesystem":
        return FileSink(local_path(table), option(table, "format"), schema)
    raise SqlNotSupportedError(
        f"table {'.'.join(table.path)}: connector {connector!r} cannot be written here; there are "
        "filesystem, print, blackhole and catalog tables",
        clause=connector,
    )


class _Unmarked:
    """A sink whose target has no place for markers."""

    marker: CommitMarker | None = None
    is_marked = False


class BlackholeSink(_Unmarked):
    """Takes rows and forgets them."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Forget a batch."""

    def prepare(self, *, always: bool = False) -> JsonValue:
        """Nothing to commit."""
        del always
        return None

    def commit(self, prepared: JsonValue) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


class PrintSink(_Unmarked):
    """Rows as `+I[a, b]`, a line each."""

    def __init__(self, out: IO[str], identifier: str) -> None:
        self._out = out
        self._prefix = f"{identifier}> " if identifier else ""

    def write(self, batch: pa.RecordBatch) -> None:
        """Print a batch."""
        columns = [[_printed(value) for value in column.to_pylist()] for column in batch.columns]
        for row in zip(*columns, strict=True):
            self._out.write(f"{self._prefix}+I[{', '.join(row)}]\n")

    def prepare(self, *, always: bool = False) -> JsonValue:
        """Show what is still buffered."""
        del always
        self._out.flush()
        return None

    def commit(self, prepared: JsonValue) -> None:
        """Printed rows are out already."""

    def abort(self) -> None:
        """Printed rows stay printed."""


def _printed(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(java_text(value))
    if isinstance(value, list):
        return f"[{', '.join(map(_printed, value))}]"
    if hasattr(value, "isoformat") and hasattr(value, "hour"):
        return str(value.isoformat())
    return str(value)


class FileSink(_Unmarked):
    """Files in a directory, one for each commit, hidden under a dotted name until then."""

    def __init__(self, directory: Path, kind: str, schema: pa.Schema) -> None:
        if kind not in ("json", "csv", "parquet"):
            raise SqlNotSupportedError(f"format {kind!r} is not supported", clause="format")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._kind, self._schema = directory, kind, schema
        self._name = ""
        self._file: IO[bytes] | None = None
        self._parquet: pyarrow.parquet.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch."""
        file = self._opened()
        if self._parquet is not None:
            self._parquet.write_batch(batch)
        elif self._kind == "csv":
            options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
            pyarrow.csv.write_csv(batch, file, options)
        else:
            lines = (json.dumps(row, default=_json_value) for row in batch.to_pylist())
            file.write("".join(f"{line}\n" for line in lines).encode())

    def prepare(self, *, always: bool = False) -> JsonValue:
        """Finish the file."""
        del always  # files are not fenced
        if self._file is None:
            return None
        self._close()
        return self._name

    def commit(self, prepared: JsonValue) -> None:
        """Show the file."""
        if not isinstance(prepared, str):
            return
        hidden = self._directory / f".{prepared}"
        if hidden.exists():  # else it was shown already
            hidden.rename(self._directory / prepared)

    def abort(self) -> None:
        """Delete the file."""
        if self._file is not None:
            self._close()
            (self._directory / f".{self._name}").unlink(missing_ok=True)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._name = f"part-{uuid.uuid4()}.{self._kind}"
            self._file = (self._directory / f".{self._name}").open("wb")
            if self._kind == "parquet":
                self._parquet = pyarrow.parquet.ParquetWriter(self._file, self._schema)
        return self._file

    def _close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
        if self._file is not None:
            self._file.close()
        self._file, self._parquet = None, None


def _json_value(value: object) -> object:
    """Times in Flink's SQL form; decimals as text, which loses no digit."""
    text = str(value)
    return text.rstrip("0").rstrip(".") if "." in text and ":" in text else text
