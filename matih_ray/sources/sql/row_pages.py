"""Pages of rows as a driver gives them, put together to what makes a good batch. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from matih_ray.sources.base import TARGET_BATCH_BYTES

# Rows that become one batch, if they are small; Python holds about ten times their bytes meanwhile.
MAX_BATCH_ROWS = 50_000
# What a value counts for that is neither text nor bytes.
VALUE_BYTES = 8

Row = TypeVar("Row", bound=Sequence[object])


def gathered_rows(pages: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """Pages put together to about `TARGET_BATCH_BYTES`, or `MAX_BATCH_ROWS`."""
    rows: list[Row] = []
    size = 0
    for page in pages:
        rows += page
        size += sum(_size(value) for row in page for value in row)
        if size >= TARGET_BATCH_BYTES or len(rows) >= MAX_BATCH_ROWS:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _size(value: object) -> int:
    return len(value) if isinstance(value, (str, bytes)) else VALUE_BYTES
