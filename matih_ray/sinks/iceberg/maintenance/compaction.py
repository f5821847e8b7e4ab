"""Which files a compaction rewrites together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyiceberg.manifest import DataFile
from pyiceberg.typedef import Record

# A file that has this share of the target is large enough.
LARGE_SHARE = 0.75
# A file this many times as large as all smaller ones of its partition together waits for more of
# them. A row is then rewritten only when its file grows to several times its size, so that what a
# partition's rows cost grows with the logarithm of its size and not with the number of commits.
LARGEST_RATIO = 4


@dataclass(frozen=True)
class Group:
    """Files of one partition that become one file, oldest first."""

    files: tuple[DataFile, ...]

    @property
    def bytes(self) -> int:
        """What rewriting it reads."""
        return sum(file.file_size_in_bytes for file in self.files)


def groups_of(files: Iterable[DataFile], target_bytes: int, min_files: int) -> list[Group]:
    """Groups of small files, by partition. `files` come oldest first."""
    partitions: dict[tuple[int, Record], list[DataFile]] = {}
    for file in files:
        if file.file_size_in_bytes < target_bytes * LARGE_SHARE:
            partitions.setdefault((file.spec_id, file.partition), []).append(file)
    return [
        group
        for small in partitions.values()
        for group in _filled(_comparable(small), target_bytes, min_files)
    ]


def within(groups: Iterable[Group], budget_bytes: int | None) -> tuple[list[Group], int]:
    """Groups that a budget allows, and the bytes of those that it does not. The groups of most
    files come first: they help readers most for a byte."""
    ordered = sorted(groups, key=lambda group: group.bytes / len(group.files))
    chosen: list[Group] = []
    spent = left = 0
    for group in ordered:
        if budget_bytes is not None and spent + group.bytes > budget_bytes:
            left += group.bytes
            continue
        spent += group.bytes
        chosen.append(group)
    return chosen, left


def _comparable(files: Sequence[DataFile]) -> list[DataFile]:
    """The files without those that are far larger than the rest."""
    by_size = sorted(files, key=lambda file: file.file_size_in_bytes)
    total = sum(file.file_size_in_bytes for file in files)
    while by_size:
        largest = by_size[-1].file_size_in_bytes
        if largest <= LARGEST_RATIO * (total - largest):
            break
        total -= largest
        by_size.pop()
    kept = {file.file_path for file in by_size}
    return [file for file in files if file.file_path in kept]


def _filled(files: Sequence[DataFile], target_bytes: int, min_files: int) -> list[Group]:
    if len(files) < min_files:
        return []
    filled: list[list[DataFile]] = [[]]
    size = 0
    for file in files:
        if filled[-1] and size + file.file_size_in_bytes > target_bytes:
            filled.append([])
            size = 0
        filled[-1].append(file)
        size += file.file_size_in_bytes
    return [Group(tuple(group)) for group in filled if len(group) > 1]
