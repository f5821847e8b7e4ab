"""Which files a merge replaces, and by which: copy-on-write, decided for one state of the table.

Incoming files are compared with the files of the table that can hold their keys: by partition where
the key determines it, by the bounds of the key's columns in the manifests, and then by the keys
themselves. Only files that lose a row are written again. Incoming files that lose none (no second
version of a key, no deletion, no late version) enter the table as they are, so that a load into an
empty table writes nothing twice.

A plan holds for the snapshot that it was made for, and the commit asserts that this still is the
head of main. On conflict it is made again; what was found out about files that are still there is
kept, because a file's rows never change.

Why not position deletes or deletion vectors: PyIceberg 0.12 reads them but writes neither, and a
table that is merged into all day would need a compaction before every reader is fast again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import Table

from matih_ray.errors import SinkError
from matih_ray.model.policy import MergeRule
from matih_ray.sinks.base import Workforce
from matih_ray.sinks.iceberg.data_files import from_payload
from matih_ray.sinks.iceberg.merge_pruning import may_share_keys
from matih_ray.sinks.iceberg.merge_work import (
    Layout,
    Match,
    MatchItem,
    MatchResult,
    Named,
    RewriteItem,
    RewriteResult,
    pack,
    unpack,
)

# Bytes of the table's files that one item looks at: seconds of work, lost with a worker. Smaller
# items would read the incoming keys more often than the files they are compared with.
ITEM_BYTES = 512 * 1024 * 1024
# Incoming rows that are compared with each other by one item, if their keys do not overlap.
SETTLE_ROWS = 2_000_000


@dataclass(frozen=True)
class Replacement:
    """The files that a commit adds, and those it takes away, each with its manifest."""

    added: tuple[DataFile, ...]
    removed: Mapping[str, tuple[DataFile, str]]


@dataclass
class Merge:
    """Plans the merge of some incoming files, as often as a commit needs. The rows of files in
    `gone` are no rows for the table: they remove those that have their keys."""

    rule: MergeRule
    staged: Sequence[DataFile]
    workforce: Workforce
    gone: frozenset[str] = frozenset()
    _matches: dict[str, Match] = field(default_factory=dict)
    _losers: dict[str, str] | None = None
    _rewrites: dict[tuple[str, str], RewriteResult] = field(default_factory=dict)
    _layout: Layout | None = None

    def plan(self, table: Table, snapshot_id: int | None) -> Replacement:
        """The merge into one snapshot of the table.

        Raises:
            SinkError: A file cannot be read, or the snapshot has delete files.
        """
        layout = Layout(
            schema_id=table.metadata.current_schema_id, spec_id=table.metadata.default_spec_id
        )
        if self._layout != layout:  # files are written for another schema or partitioning now
            self._layout = layout
            self._matches.clear()
            self._rewrites.clear()
        held = dict(_files(table, snapshot_id))
        near = {
            path: [one for one in self.staged if may_share_keys(table, self.rule, one, file)]
            for path, (file, _) in held.items()
        }
        candidates = {path: held[path][0] for path, staged in near.items() if staged}
        unknown = {path: file for path, file in candidates.items() if path not in self._matches}
        self._look_at(unknown, near, table, layout)
        matches = [self._matches[path] for path in candidates]
        drops = self._drops(matches)
        self._rewrite(drops, layout)
        added = [
            from_payload(dict(payload), table.spec(), table.schema())
            for match in matches
            for payload in match.files or ()
        ]
        for file in self.staged:
            drop = drops.get(file.file_path)
            if drop is None:
                added.append(file)
                continue
            added += [
                from_payload(dict(payload), table.spec(), table.schema())
                for payload in self._rewrites[file.file_path, drop].files
            ]
        removed = {match.path: held[match.path] for match in matches if match.files is not None}
        return Replacement(tuple(added), removed)

    def unused(self, used: Replacement | None) -> list[str]:
        """Files that were written for the merge, and that a commit of `used` does not name."""
        written = {file.file_path for file in self.staged} if used is not None else set()
        for match in self._matches.values():
            written |= {str(payload["path"]) for payload in match.files or ()}
        for rewrite in self._rewrites.values():
            written |= {str(payload["path"]) for payload in rewrite.files}
        kept = {file.file_path for file in used.added} if used is not None else set()
        return sorted(written - kept)

    def _look_at(
        self,
        files: Mapping[str, DataFile],
        near: Mapping[str, list[DataFile]],
        table: Table,
        layout: Layout,
    ) -> None:
        """Match files of the table, and settle the incoming files among themselves once."""
        items = list(self._match_items(files, near, layout))
        if self._losers is None:
            items += [
                MatchItem(layout=layout, staged=tuple(map(self._named, group)), settle=True)
                for group in _apart(self.staged, table, self.rule)
            ]
        results = self.workforce.run([item.to_dict() for item in items])
        losers: dict[str, str] = {}
        for result in map(MatchResult.from_json, results):
            self._matches.update({match.path: match for match in result.matches})
            losers.update(result.losers)
        if self._losers is None:
            self._losers = losers

    def _match_items(
        self, files: Mapping[str, DataFile], near: Mapping[str, list[DataFile]], layout: Layout
    ) -> Iterator[MatchItem]:
        """Files in groups of about equal size, each with the incoming files that concern it."""
        total = sum(file.file_size_in_bytes for file in files.values())
        count = min(len(files), max(self.workforce.parallelism, -(-total // ITEM_BYTES)))
        groups: list[list[DataFile]] = [[] for _ in range(count)]
        sizes = [0] * count
        for file in sorted(files.values(), key=lambda one: -one.file_size_in_bytes):
            smallest = sizes.index(min(sizes))
            groups[smallest].append(file)
            sizes[smallest] += file.file_size_in_bytes
        for group in groups:
            concerned = {one.file_path for file in group for one in near[file.file_path]}
            staged = tuple(self._named(one) for one in self.staged if one.file_path in concerned)
            yield MatchItem(layout=layout, staged=staged, held=tuple(map(self._named, group)))

    def _drops(self, matches: Sequence[Match]) -> dict[str, str]:
        """Rows of incoming files that nobody shall see, as masks by path."""
        rows = {file.file_path: file.record_count for file in self.staged}
        masks: dict[str, np.ndarray] = {}
        for found in (self._losers or {}, *(match.late for match in matches)):
            for path, text in found.items():
                mask = unpack(text, rows[path])
                masks[path] = masks[path] | mask if path in masks else mask
        return {path: pack(mask) for path, mask in masks.items()}

    def _rewrite(self, drops: Mapping[str, str], layout: Layout) -> None:
        wanted = [
            (file, drops[file.file_path])
            for file in self.staged
            if file.file_path in drops
            and (file.file_path, drops[file.file_path]) not in self._rewrites
        ]
        if not wanted:
            return
        items = [
            RewriteItem(layout=layout, file=self._named(file), drop=drop) for file, drop in wanted
        ]
        results = self.workforce.run([item.to_dict() for item in items])
        for (file, drop), result in zip(wanted, results, strict=True):
            self._rewrites[file.file_path, drop] = RewriteResult.from_json(result)

    def _named(self, file: DataFile) -> Named:
        path = file.file_path
        return Named(path=path, rows=file.record_count, gone=path in self.gone)


def _files(table: Table, snapshot_id: int | None) -> Iterator[tuple[str, tuple[DataFile, str]]]:
    """The data files of a snapshot by path, each with its manifest."""
    snapshot = None if snapshot_id is None else table.metadata.snapshot_by_id(snapshot_id)
    for manifest in snapshot.manifests(table.io) if snapshot is not None else ():
        if not (manifest.has_added_files() or manifest.has_existing_files()):
            continue
        if manifest.content == ManifestContent.DELETES:
            raise SinkError(
                f"table {'.'.join(table.name())} has delete files of another writer, which a merge "
                "would have to apply; compact the table first"
            )
        for entry in manifest.fetch_manifest_entry(table.io):
            file = entry.data_file
            file.spec_id = manifest.partition_spec_id
            yield file.file_path, (file, manifest.manifest_path)


def _apart(staged: Sequence[DataFile], table: Table, rule: MergeRule) -> list[list[DataFile]]:
    """Incoming files in groups of some rows between which no key can be twice."""
    groups: list[list[DataFile]] = []
    for file in staged:
        near = [g for g in groups if any(may_share_keys(table, rule, file, one) for one in g)]
        merged = [*(one for group in near for one in group), file]
        groups = [*(g for g in groups if all(g is not one for one in near)), merged]
    order = {file.file_path: number for number, file in enumerate(staged)}
    filled: list[list[DataFile]] = []
    for group in groups:
        rows = sum(one.record_count for one in group)
        if filled and rows + sum(one.record_count for one in filled[-1]) <= SETTLE_ROWS:
            filled[-1] += group
        else:
            filled.append(list(group))
    return [sorted(group, key=lambda one: order[one.file_path]) for group in filled]


def delete_files(io: FileIO, paths: Sequence[str]) -> None:
    """Delete files that certainly are not part of the table, as far as possible."""
    for path in paths:
        with contextlib.suppress(OSError):
            io.delete(path)
