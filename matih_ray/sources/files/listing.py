"""Files of a store, and the datasets that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from matih_ray.errors import SourceRejectedError, UnknownUnitError
from matih_ray.sources.files.config import Dataset, FilesConfig, Format
from matih_ray.sources.files.store import ObjectStore, StoredFile

MIXED: Final = "mixed"
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


@dataclass(frozen=True)
class FileSet:
    """A dataset with its files, ordered by time and path, and the format of all of them.
    `unknown` counts files beside them that have no known format."""

    dataset: Dataset
    format: Format | Literal["mixed"]
    files: tuple[StoredFile, ...]
    unknown: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a plan says about files that it leaves out."""
        if not self.unknown:
            return ()
        return (f"{self.unknown} files are left out: their names end in no known format",)

    def check_one_format(self) -> None:
        """Raise unless all files have one format.

        Raises:
            SourceRejectedError: Names the formats and the remedy.
        """
        if self.format == MIXED:
            kinds = sorted({str(format_of(file.path)) for file in self.files})
            raise SourceRejectedError(
                f"dataset {self.dataset.name} has files of several formats, {' and '.join(kinds)}; "
                "declare datasets whose globs keep them apart",
                dataset=self.dataset.name,
            )


def list_files(store: ObjectStore, prefix: str) -> list[StoredFile]:
    """All data files below the prefix. Hidden ones (`_SUCCESS`, `.tmp`) and empty ones are none.

    Raises:
        SourceRejectedError: There are more than `MAX_FILES`.
    """
    found = []
    for number, file in enumerate(store.list_files(folder_of(prefix)), start=1):
        if number > MAX_FILES:
            raise SourceRejectedError(
                f"there are more than {MAX_FILES} files below {prefix or '/'}; narrow the prefix"
            )
        # a declared dataset with `names` may be empty; an empty file has no header and no footer
        if file.size and not _hidden(file.path.rpartition("/")[2]):
            found.append(file)
    return found


def folder_of(prefix: str) -> str:
    """What the paths of all files in a folder begin with."""
    parts = [part for part in prefix.split("/") if part]
    return "/".join([*parts, ""])


def file_sets(files: Iterable[StoredFile], config: FilesConfig) -> dict[str, FileSet]:
    """Datasets by name: the declared ones, or else each folder that holds files of a known format.
    One of several formats is `mixed`: it is shown, so that nobody thinks it empty, and not read."""
    start = len(folder_of(config.prefix))
    relative = {file: file.path[start:] for file in files}
    if config.datasets:
        return {dataset.name: _declared(dataset, relative) for dataset in config.datasets}
    folders: dict[str, dict[StoredFile, str]] = {}
    for file, path in relative.items():
        folders.setdefault(path.rpartition("/")[0], {})[file] = path
    found = {}
    for folder, members in folders.items():
        dataset = Dataset(name=folder or ".", glob=f"{folder}/*".lstrip("/"))
        file_set_ = _set_of(dataset, members)
        if file_set_.files:
            found[dataset.name] = file_set_
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
    return _set_of(dataset, {f: path for f, path in relative.items() if pattern.fullmatch(path)})


def _set_of(dataset: Dataset, members: dict[StoredFile, str]) -> FileSet:
    formats = {file: dataset.format or format_of(path) for file, path in members.items()}
    kept = sorted(file for file, format_ in formats.items() if format_ is not None)
    kinds = sorted({format_ for format_ in formats.values() if format_ is not None})
    format_ = kinds[0] if kinds else dataset.format or "parquet"
    return FileSet(
        dataset, format_ if len(kinds) < 2 else MIXED, tuple(kept), len(members) - len(kept)
    )


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob in which `*` stays within a folder; a folder's name alone means all below it."""
    if not re.search(r"[*?]", glob):
        glob = f"{glob.rstrip('/')}/**" if format_of(glob) is None else glob
    pieces = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(pieces.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))
