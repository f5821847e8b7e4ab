"""Slices of a dataset: groups of files, or row groups of one large file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

import pyarrow.parquet as pq

from matih_ray.model.plan import IngestionSlice
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue, Value
from matih_ray.sources.files.store import ObjectStore, StoredFile, open_file

# A slice is stored and shown as one value.
MAX_FILES_PER_SLICE = 1000
# Only a file of more than so many slices' rows is worth looking into for row groups.
LARGE_FILE_SLICES = 2


class FilePart(Value):
    """A file as it was planned, whole or some of its row groups."""

    path: str
    size: int
    modified_s: int
    version: str
    groups: tuple[int, ...] | None = None

    @property
    def file(self) -> StoredFile:
        """The file that was planned."""
        return StoredFile(self.modified_s, self.path, self.size, self.version)


class FilesSlice(Value):
    """What one slice reads."""

    parts: tuple[FilePart, ...]


def parse(slice_: IngestionSlice) -> FilesSlice:
    """The parameters of a slice.

    Raises:
        ValidationError: They are not those of this source.
    """
    return FilesSlice.from_json(dict(slice_.params))


def make_slice(
    sequence: int, parts: Sequence[FilePart], rows: int, cursor: JsonValue = None
) -> IngestionSlice:
    """A slice of these parts."""
    params = FilesSlice(parts=tuple(parts)).to_dict()
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
    return IngestionSlice(
        key=f"files-{digest[:24]}",
        sequence=sequence,
        params=params,
        estimated_rows=rows,
        cursor_after=cursor,
    )


def whole(file: StoredFile) -> FilePart:
    """All of a file."""
    return FilePart(
        path=file.path, size=file.size, modified_s=file.modified_s, version=file.version
    )


def rows_in(unit: EndpointUnitDescriptor, file: StoredFile) -> int:
    """Estimated rows of a file, by its share of the unit's bytes."""
    if not unit.estimated_rows or not unit.estimated_bytes:
        return 1
    return max(1, unit.estimated_rows * file.size // unit.estimated_bytes)


def grouped(
    parts: Iterable[tuple[FilePart, int]], target_rows: int
) -> Iterator[tuple[list[FilePart], int]]:
    """Consecutive parts of about `target_rows` rows together, and those rows."""
    group: list[FilePart] = []
    held = 0
    for part, rows in parts:
        if group and (held + rows > target_rows or len(group) >= MAX_FILES_PER_SLICE):
            yield group, held
            group, held = [], 0
        group.append(part)
        held += rows
    if group:
        yield group, held


def divided(
    store: ObjectStore,
    unit: EndpointUnitDescriptor,
    files: Iterable[StoredFile],
    target_rows: int,
) -> Iterator[tuple[FilePart, int]]:
    """Files, large Parquet ones as parts of about `target_rows` rows."""
    for file in files:
        rows = rows_in(unit, file)
        if unit.kind != "parquet" or rows <= LARGE_FILE_SLICES * target_rows:
            yield whole(file), rows
            continue
        with pq.ParquetFile(open_file(store, file)) as parquet:
            meta = parquet.metadata
            sizes = [meta.row_group(index).num_rows for index in range(meta.num_row_groups)]
        yield from _row_groups(file, sizes, target_rows)


def _row_groups(
    file: StoredFile, sizes: Sequence[int], target_rows: int
) -> Iterator[tuple[FilePart, int]]:
    groups: list[int] = []
    held = 0
    for index, rows in enumerate(sizes):
        if groups and held + rows > target_rows:
            yield whole(file).model_copy(update={"groups": tuple(groups)}), held
            groups, held = [], 0
        groups.append(index)
        held += rows
    if groups:
        yield whole(file).model_copy(update={"groups": tuple(groups)}), held
