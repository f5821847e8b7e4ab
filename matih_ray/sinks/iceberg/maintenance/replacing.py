"""The commit of a maintenance pass: files take the place of others, and manifests are merged.

A group of files is replaced only while all of them are part of the table; if a merge has rewritten
one meanwhile, the group is dropped and what was written for it deleted. Readers see the same rows
before and after. Old manifests are immutable, so what was made of them is kept from one attempt to
the next: meeting a busy writer costs an attempt a manifest list, no more.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pyiceberg.catalog import Catalog
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import (
    Operation,
    Snapshot,
    SnapshotSummaryCollector,
    Summary,
    update_snapshot_summaries,
)
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, AssertTableUUID

from matih_ray.errors import SinkError, SinkUnavailableError
from matih_ray.sinks.iceberg.boundary import (
    COMMIT_ERRORS,
    CommitAnswer,
    answer_of,
    mapped,
    translated,
)
from matih_ray.sinks.iceberg.catalog import CatalogConfig
from matih_ray.sinks.iceberg.commit import FIRST_BACKOFF_S, MAX_BACKOFF_S
from matih_ray.sinks.iceberg.manifest_files import live_manifests, manifest_list, manifest_writer
from matih_ray.sinks.iceberg.merge_plan import delete_files
from matih_ray.sinks.iceberg.snapshots import set_branch

MAINTENANCE_SUMMARY = "matih.maintenance"
# An attempt is one manifest list and one call of the catalog. Writers that commit all the time
# leave a gap sooner than this; if not, the next pass will find one.
MAX_ATTEMPTS = 50
# Entries of one manifest, about 1 MB: readers fetch manifests in parallel and prune them as wholes.
MANIFEST_ENTRIES = 5_000
# More small manifests than this are merged; readers open every one of them.
MAX_SMALL_MANIFESTS = 10


@dataclass(frozen=True)
class Replacement:
    """Files of the table, by path, and those that hold their rows from now on."""

    removed: tuple[str, ...]
    added: tuple[DataFile, ...]


@dataclass
class Outcome:
    """What a replacing commit came to; `snapshot_id` is None if there was nothing to commit."""

    snapshot_id: int | None = None
    done: list[Replacement] = field(default_factory=list)
    lost: list[Replacement] = field(default_factory=list)
    manifests_before: int = 0
    manifests_after: int = 0


@dataclass(frozen=True)
class _Merged:
    """New manifests, what they take the place of, and what was replaced with them."""

    sources: frozenset[str]
    done: tuple[Replacement, ...]
    manifests: tuple[ManifestFile, ...]
    removed: tuple[DataFile, ...]


class ReplacingCommit:
    """Replaces files of one table, and merges its small manifests."""

    def __init__(
        self, catalog: Catalog, config: CatalogConfig, table: Table, *, merge_manifests: bool
    ) -> None:
        self._catalog = catalog
        self._config = config
        self._identifier = table.name()
        self._uuid = table.metadata.table_uuid
        self._snapshot_id = table.metadata.new_snapshot_id()
        self._merge_manifests = merge_manifests
        self._what = f"maintain table {'.'.join(self._identifier)}"
        self._entries: dict[str, list[ManifestEntry]] = {}
        self._merged: _Merged | None = None
        self._written: list[str] = []
        self._in_doubt = False

    def run(self, replacements: Sequence[Replacement]) -> Outcome:
        """Replace what can be replaced.

        Raises:
            SinkError: The table is gone, or the commit could not be made; its files are deleted
                unless it may have been applied.
        """
        outcome = Outcome()
        try:
            for attempt in range(MAX_ATTEMPTS):
                if attempt:
                    longest = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**attempt)
                    time.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                if self._attempt(replacements, outcome):
                    break
            else:
                raise SinkUnavailableError(
                    f"cannot {self._what}: others committed {MAX_ATTEMPTS} times in a row"
                )
        except SinkError:
            if not self._in_doubt:
                self._merged = None
                self._discard(replacements)
            raise
        self._discard(outcome.lost)
        return outcome

    def _attempt(self, replacements: Sequence[Replacement], outcome: Outcome) -> bool:
        with mapped(self._what, self._config):
            table = self._catalog.load_table(self._identifier)
        if table.metadata.table_uuid != self._uuid:
            raise SinkError(f"cannot {self._what}: it was dropped and created again")
        if table.metadata.snapshot_by_id(self._snapshot_id) is not None:
            self._landed(table, replacements, outcome)
            return True
        head = table.metadata.refs.get(MAIN_BRANCH)
        parent = None if head is None else table.metadata.snapshot_by_id(head.snapshot_id)
        if parent is None:
            outcome.lost = list(replacements)
            return True
        with mapped(self._what, self._config):
            manifests = live_manifests(table, parent)
            merged = self._made(table, manifests, replacements)
            outcome.manifests_before = len(manifests)
            outcome.manifests_after = len(manifests) - len(merged.sources) + len(merged.manifests)
        if not merged.sources:
            outcome.lost, outcome.manifests_after = list(replacements), len(manifests)
            return True
        try:
            self._commit(table, parent, manifests, merged)
        except COMMIT_ERRORS as error:
            self._judge(error, table)
            return False
        outcome.snapshot_id = self._snapshot_id
        outcome.done = list(merged.done)
        outcome.lost = [one for one in replacements if one not in merged.done]
        return True

    def _landed(self, table: Table, replacements: Sequence[Replacement], outcome: Outcome) -> None:
        """An attempt of ours was applied and nobody told us: the table knows which it was."""
        snapshot = table.metadata.snapshot_by_id(self._snapshot_id)
        assert snapshot is not None  # noqa: S101 - the caller looked
        with mapped(self._what, self._config):
            paths = {
                entry.data_file.file_path
                for manifest in live_manifests(table, snapshot)
                if manifest.added_snapshot_id == self._snapshot_id
                for entry in self._live(table, manifest)
            }
        outcome.snapshot_id = self._snapshot_id
        for one in replacements:
            is_there = all(file.file_path in paths for file in one.added)
            (outcome.done if is_there else outcome.lost).append(one)

    def _judge(self, error: Exception, table: Table) -> None:
        """Return if the loop may turn again after this exception, else raise."""
        answer = answer_of(error)
        if answer is CommitAnswer.UNKNOWN:
            self._in_doubt = True
        elif answer is CommitAnswer.REFUSED:
            with mapped(self._what, self._config):
                now = self._catalog.load_table(self._identifier).metadata
            # a commit to a branch that is not asserted takes the sequence number, too
            if now.next_sequence_number() == table.metadata.next_sequence_number():
                raise translated(self._what, error, self._config) from None

    def _made(
        self, table: Table, manifests: list[ManifestFile], replacements: Sequence[Replacement]
    ) -> _Merged:
        """The new manifests; those of an earlier attempt if nobody has touched their sources."""
        present = {manifest.manifest_path for manifest in manifests}
        if self._merged is not None and self._merged.sources <= present:
            return self._merged
        if any(manifest.content == ManifestContent.DELETES for manifest in manifests):
            raise SinkError(
                f"cannot {self._what}: it has delete files of another writer, which only that "
                "writer can apply; compact it there"
            )
        where = {
            entry.data_file.file_path: manifest.manifest_path
            for manifest in manifests
            for entry in self._live(table, manifest)
        }
        done = tuple(one for one in replacements if all(path in where for path in one.removed))
        removed = {path for one in done for path in one.removed}
        touched = {where[path] for path in removed}
        if self._merge_manifests:
            small = [m for m in manifests if _entries_of(m) < MANIFEST_ENTRIES // 2]
            if touched or len(small) > MAX_SMALL_MANIFESTS:
                touched |= {manifest.manifest_path for manifest in small}
        chosen = [manifest for manifest in manifests if manifest.manifest_path in touched]
        if not done and len(chosen) < 2:
            chosen = []
        self._merged = self._write(table, chosen, done, removed) if chosen else _NOTHING
        return self._merged

    def _live(self, table: Table, manifest: ManifestFile) -> list[ManifestEntry]:
        """The entries of a manifest, a few KB each, read once for all attempts."""
        path = manifest.manifest_path
        if path not in self._entries:
            self._entries[path] = manifest.fetch_manifest_entry(table.io)
        return self._entries[path]

    def _write(
        self,
        table: Table,
        sources: list[ManifestFile],
        done: tuple[Replacement, ...],
        removed: set[str],
    ) -> _Merged:
        entries: dict[int, list[ManifestEntry]] = {}
        for manifest in sources:
            entries.setdefault(manifest.partition_spec_id, []).extend(self._live(table, manifest))
        manifests = []
        for spec_id, held in entries.items():
            # what has gone is told apart from what is there: readers skip a manifest of nothing
            stays = [one for one in held if one.data_file.file_path not in removed]
            goes = [one for one in held if one.data_file.file_path in removed]
            for some in (stays, goes):
                for start in range(0, len(some), MANIFEST_ENTRIES):
                    part = some[start : start + MANIFEST_ENTRIES]
                    manifests.append(self._manifest(table, spec_id, part, removed))
        added = [file for one in done for file in one.added]
        for spec_id in sorted({file.spec_id for file in added}):
            new = [_added(file) for file in added if file.spec_id == spec_id]
            manifests.append(self._manifest(table, spec_id, new, set()))
        return _Merged(
            sources=frozenset(manifest.manifest_path for manifest in sources),
            done=done,
            manifests=tuple(manifests),
            removed=tuple(
                entry.data_file
                for held in entries.values()
                for entry in held
                if entry.data_file.file_path in removed
            ),
        )

    def _manifest(
        self, table: Table, spec_id: int, entries: Sequence[ManifestEntry], removed: set[str]
    ) -> ManifestFile:
        with manifest_writer(table, spec_id, self._snapshot_id) as writer:
            for entry in entries:
                if entry.status == ManifestEntryStatus.ADDED and entry.snapshot_id is None:
                    writer.add(entry)
                elif entry.data_file.file_path in removed:
                    writer.delete(entry)
                else:
                    writer.existing(entry)
        manifest = writer.to_manifest_file()
        self._written.append(manifest.manifest_path)
        return manifest

    def _commit(
        self, table: Table, parent: Snapshot, manifests: list[ManifestFile], merged: _Merged
    ) -> None:
        kept = [one for one in manifests if one.manifest_path not in merged.sources]
        metadata = table.metadata
        sequence_number = metadata.next_sequence_number()
        new = [*merged.manifests, *kept]
        path = manifest_list(table, self._snapshot_id, parent, sequence_number, new)
        self._written.append(path)
        snapshot = Snapshot(
            snapshot_id=self._snapshot_id,
            parent_snapshot_id=parent.snapshot_id,
            sequence_number=sequence_number,
            manifest_list=path,
            summary=_summary(parent, merged),
            schema_id=metadata.current_schema_id,
        )
        self._catalog.commit_table(
            table,
            (
                AssertTableUUID(uuid=metadata.table_uuid),
                AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=parent.snapshot_id),
            ),
            (AddSnapshotUpdate(snapshot=snapshot), set_branch(MAIN_BRANCH, self._snapshot_id)),
        )
        self._written.remove(path)

    def _discard(self, replacements: Sequence[Replacement]) -> None:
        """Delete what was written and is not part of the table."""
        lost = [file.file_path for one in replacements for file in one.added]
        used = {one.manifest_path for one in self._merged.manifests} if self._merged else set()
        if self._in_doubt:
            unused: list[str] = []
        else:
            unused = [path for path in self._written if path not in used]
        if not lost and not unused:
            return
        with contextlib.suppress(SinkError):
            delete_files(self._io(), [*lost, *unused])

    def _io(self) -> FileIO:
        with mapped(self._what, self._config):
            return self._catalog.load_table(self._identifier).io


_NOTHING = _Merged(frozenset(), (), (), ())


def live_files(table: Table) -> Iterator[ManifestEntry]:
    """The data files that readers of main see, oldest first."""
    snapshot = table.metadata.current_snapshot()
    entries: list[ManifestEntry] = []
    for manifest in live_manifests(table, snapshot) if snapshot is not None else ():
        if manifest.content == ManifestContent.DATA:
            entries += manifest.fetch_manifest_entry(table.io)
    yield from sorted(entries, key=lambda entry: entry.sequence_number or 0)


def _added(file: DataFile) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=ManifestEntryStatus.ADDED,
        snapshot_id=None,
        sequence_number=None,
        file_sequence_number=None,
        data_file=file,
    )


def _entries_of(manifest: ManifestFile) -> int:
    return (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)


def _summary(parent: Snapshot, merged: _Merged) -> Summary:
    collector = SnapshotSummaryCollector()
    for one in merged.done:
        for file in one.added:
            collector.metrics.add_file(file)
    for file in merged.removed:
        collector.metrics.remove_file(file)
    kind = "compact" if merged.done else "manifests"
    told = Summary(Operation.OVERWRITE, **collector.build(), **{MAINTENANCE_SUMMARY: kind})
    totals = update_snapshot_summaries(told, parent.summary)
    # the library adds totals up for other operations only; this one says that no row has changed
    return Summary(Operation.REPLACE, **totals.additional_properties)
