"""Files of a store, and the datasets that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import cast

import pyarrow.fs as pafs

from matih_ray.errors import SourceRejectedError, UnknownUnitError
from matih_ray.sources.files.config import Dataset, FilesConfig, Format

# One listing is held in memory, at about half a kilobyte a file.
MAX_FILES = 1_000_000

_FORMATS: dict[str, Format] = {
    "parquet": "parquet",
    "csv": "csv",
    "ndjson": "ndjson",
    "jsonl": "ndjson",
    "json": "ndjson",
}
_COMPRESSED = re.compile(r"\.(gz|zst)$")


@dataclass(frozen=True, order=True)
class StoredFile:
    """One file. `path` is relative to the bucket; `modified_s` whole seconds since 1970, because
    S3 reports no more for a single file."""

    modified_s: int
    path: str
    size: int

    @property
    def modified_at(self) -> datetime:
        """When the store got it."""
        return datetime.fromtimestamp(self.modified_s, tz=timezone.utc)


@dataclass(frozen=True)
class FileSet:
    """A dataset with its files, ordered by time and path, and the format of all of them."""

    dataset: Dataset
    format: Format
    files: tuple[StoredFile, ...]


def stored(info: pafs.FileInfo, bucket: str) -> StoredFile:
    """What Arrow says about a file."""
    path = info.path.removeprefix(f"{bucket}/")
    return StoredFile(modified_s=info.mtime_ns // 1_000_000_000, path=path, size=info.size)


def list_files(store: pafs.FileSystem, bucket: str, prefix: str) -> list[StoredFile]:
    """All data files below the prefix. Hidden ones (`_SUCCESS`, `.tmp`) and empty ones are none.

    Raises:
        SourceRejectedError: There are more than `MAX_FILES`.
    """
    base = "/".join([bucket, *filter(None, prefix.strip("/").split("/"))])
    selector = pafs.FileSelector(base, recursive=True, allow_not_found="/" in base)
    infos = [info for info in store.get_file_info(selector) if info.type == pafs.FileType.File]
    if len(infos) > MAX_FILES:
        raise SourceRejectedError(f"{base} has more than {MAX_FILES} files; narrow the prefix")
    # a declared dataset with `names` may be empty; an empty file has no header and no footer
    return [stored(info, bucket) for info in infos if info.size and not _hidden(info.base_name)]


def file_sets(files: Iterable[StoredFile], config: FilesConfig) -> dict[str, FileSet]:
    """Datasets by name: the declared ones, or else each folder that holds files of one format.

    Raises:
        SourceRejectedError: A declared dataset's files are of several formats.
    """
    prefix = config.prefix.strip("/")
    relative = {file: file.path.removeprefix(prefix).lstrip("/") for file in files}
    if config.datasets:
        return {dataset.name: _declared(dataset, relative) for dataset in config.datasets}
    folders: dict[str, list[StoredFile]] = {}
    for file, path in relative.items():
        if format_of(path) is not None:
            folders.setdefault(path.rpartition("/")[0], []).append(file)
    found = {}
    for folder, members in folders.items():
        formats = {format_of(file.path) for file in members}
        if len(formats) == 1:
            name = folder or "."
            dataset = Dataset(name=name, glob=f"{folder}/*".lstrip("/"))
            found[name] = FileSet(dataset, cast("Format", formats.pop()), tuple(sorted(members)))
    return found


def file_set(sets: dict[str, FileSet], unit_id: str) -> FileSet:
    """The dataset of that name.

    Raises:
        UnknownUnitError: There is none.
    """
    if unit_id not in sets:
        raise UnknownUnitError(f"there is no dataset {unit_id} in this bucket", unit_id=unit_id)
    return sets[unit_id]


def format_of(path: str) -> Format | None:
    """The format that a file's name ends with, whatever it is compressed with."""
    return _FORMATS.get(_COMPRESSED.sub("", path).rpartition(".")[2].lower())


def _declared(dataset: Dataset, relative: dict[StoredFile, str]) -> FileSet:
    pattern = _pattern(dataset.glob)
    members = [file for file, path in relative.items() if pattern.fullmatch(path)]
    formats = {dataset.format or format_of(file.path) for file in members} - {None}
    if len(formats) > 1:
        raise SourceRejectedError(
            f"dataset {dataset.name} has files of several formats; narrow its glob",
            dataset=dataset.name,
        )
    format_ = formats.pop() if formats else dataset.format or "parquet"
    kept = [file for file in members if dataset.format or format_of(file.path)]
    return FileSet(dataset, format_ or "parquet", tuple(sorted(kept)))


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob in which `*` stays within a folder; a folder's name alone means all below it."""
    if not re.search(r"[*?]", glob):
        glob = f"{glob.rstrip('/')}/**" if format_of(glob) is None else glob
    pieces = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(pieces.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))
