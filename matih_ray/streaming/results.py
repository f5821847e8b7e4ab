"""What a query found: rows as JSON, a file for each page, removed when nobody wants them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from matih_ray.control.stream_jobs import Rows
from matih_ray.errors import NotFoundError, QueryLimitError, StateError
from matih_ray.model.sql_session import ColumnType, ResultColumn
from matih_ray.model.value import JsonValue
from matih_ray.streaming.sql.types import FlinkType
from matih_ray.streaming.storage import filesystem_of

# What a person looks at, or a program asks before it goes on: more belongs in a table.
MAX_ROWS = 10_000
MAX_BYTES = 8 * 1024 * 1024
# A page is one answer over HTTP.
PAGE_ROWS = 1000
PAGE_BYTES = 1024 * 1024

_ROOTS = {
    "INT": "INTEGER",
    "STRING": "VARCHAR",
    "TIMESTAMP": "TIMESTAMP_WITHOUT_TIME_ZONE",
    "TIMESTAMP_LTZ": "TIMESTAMP_WITH_LOCAL_TIME_ZONE",
}


class ResultFiles:
    """The pages of one query below a URI or a local path."""

    def __init__(self, uri: str) -> None:
        self._files, self._root = filesystem_of(uri)

    def write(self, number: int, rows: Rows) -> None:
        """Keep a page.

        Raises:
            StateError: It cannot be written.
        """
        try:
            self._files.create_dir(self._root, recursive=True)
            with self._files.open_output_stream(self._page(number)) as stream:
                stream.write(json.dumps(rows, separators=(",", ":")).encode())
        except (OSError, pa.ArrowException) as error:
            raise StateError(f"cannot write {self._page(number)}: {error}") from None

    def read(self, number: int) -> Rows:
        """A page.

        Raises:
            NotFoundError: There is none.
            StateError: It cannot be read.
        """
        try:
            with self._files.open_input_stream(self._page(number)) as stream:
                return tuple(tuple(row) for row in json.loads(stream.read()))
        except FileNotFoundError:
            raise NotFoundError(
                f"page {number} of the result is gone; run the query again"
            ) from None
        except (OSError, pa.ArrowException) as error:
            raise StateError(f"cannot read {self._page(number)}: {error}") from None

    def delete(self) -> None:
        """Remove all pages, if there are any."""
        try:
            info = self._files.get_file_info(self._root)
            if info.type == pyarrow.fs.FileType.Directory:
                self._files.delete_dir(self._root)
        except (OSError, pa.ArrowException) as error:
            raise StateError(f"cannot remove {self._root}: {error}") from None

    def _page(self, number: int) -> str:
        return f"{self._root}/{number}.json"


class PageWriter:
    """Cuts rows into pages, within the limits of a result.

    `wanted` is how many rows the query asked for, if it did.
    """

    def __init__(
        self, files: ResultFiles, schema: Mapping[str, FlinkType], wanted: int | None
    ) -> None:
        self._files = files
        self._kinds = list(schema.values())
        self._wanted = wanted
        self._page: list[tuple[JsonValue, ...]] = []
        self._page_bytes = 0
        self._rows = 0
        self._bytes = 0
        self.pages = 0

    @property
    def is_full(self) -> bool:
        """Whether there are as many rows as were asked for."""
        return self._wanted is not None and self._rows >= self._wanted

    def take(self, batch: pa.RecordBatch) -> None:
        """Take rows.

        Raises:
            QueryLimitError: They are too many, or too large.
        """
        most = MAX_ROWS + 1 if self._wanted is None else min(self._wanted, MAX_ROWS + 1)
        batch = batch.slice(0, max(0, most - self._rows))
        columns = [
            json_values(column, kind)
            for column, kind in zip(batch.columns, self._kinds, strict=True)
        ]
        for row in zip(*columns, strict=True):
            self._take_row(row)

    def close(self) -> int:
        """Keep the last page; how many there are, one at least."""
        if self._page or not self.pages:
            self._flush()
        return self.pages

    def _take_row(self, row: tuple[JsonValue, ...]) -> None:
        size = len(json.dumps(row, separators=(",", ":")))
        self._rows += 1
        self._bytes += size
        if self._rows > MAX_ROWS:
            raise _too_much(f"{MAX_ROWS} rows", "rows")
        if self._bytes > MAX_BYTES:
            raise _too_much(f"{MAX_BYTES} bytes", "bytes")
        if self._page and self._page_bytes + size > PAGE_BYTES:
            self._flush()
        self._page.append(row)
        self._page_bytes += size
        if len(self._page) == PAGE_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._files.write(self.pages, tuple(self._page))
        self.pages += 1
        self._page, self._page_bytes = [], 0


def _too_much(limit: str, what: str) -> QueryLimitError:
    return QueryLimitError(
        f"the result has more than {limit}; add WHERE or LIMIT, or write it into a table: CREATE "
        "TABLE … AS SELECT",
        limit=what,
    )


def result_columns(schema: Mapping[str, FlinkType]) -> tuple[ResultColumn, ...]:
    """The columns of a query, with types in Flink's words."""
    return tuple(ResultColumn(name=name, type=_type(kind)) for name, kind in schema.items())


def _type(kind: FlinkType) -> ColumnType:
    is_sized = kind.kind == "DECIMAL" or kind.is_time
    return ColumnType(
        root=_ROOTS.get(kind.kind, kind.kind),
        precision=kind.precision if is_sized else None,
        scale=kind.scale if kind.kind == "DECIMAL" else None,
        element=None if kind.element is None else _type(kind.element),
    )


def json_values(column: pa.Array, kind: FlinkType) -> list[JsonValue]:
    """The values of a column as Flink's gateway writes them in JSON; DECIMAL as text, which loses
    no digit on the way."""
    if kind.element is not None:
        return [json_values(one.values, kind.element) if one.is_valid else None for one in column]
    if kind.is_time:
        return [_iso(text) for text in pc.cast(column, pa.string()).to_pylist()]
    if kind.kind in ("DECIMAL", "DATE"):
        return [None if one is None else str(one) for one in column.to_pylist()]
    if kind.kind in ("FLOAT", "DOUBLE"):
        short = kind.kind == "FLOAT"
        return [_number(one, short=short) for one in column.to_pylist()]
    found: list[JsonValue] = column.to_pylist()
    return found


def _iso(text: str | None) -> str | None:
    """`2026-01-01 00:00:00.500000` as `2026-01-01T00:00:00.5`."""
    if text is None:
        return None
    text = text.replace(" ", "T")
    zone = "Z" if text.endswith("Z") else ""
    bare = text.removesuffix("Z")
    return (bare.rstrip("0").rstrip(".") if "." in bare else bare) + zone


def _number(value: float | None, *, short: bool) -> float | str | None:
    if value is None:
        return None
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(str(np.float32(value))) if short else value
