"""Snapshots: the metadata files of a commit, and the change of the table that makes it visible.

PyIceberg's transactions are not used to commit, for three reasons that were found by reading them:
a transaction keeps only the first of several assertions on refs, and a commit here needs two; its
retry builds a new commit without looking for the marker; and its partition summary fails on dates
that stand for infinity. The pieces it is made of (manifest writers, updates, requirements) are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriter,
)
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import (
    Operation,
    Snapshot,
    SnapshotSummaryCollector,
    Summary,
    update_snapshot_summaries,
)
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotRefUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from matih_ray.errors import FencedError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import RunId
from matih_ray.model.receipt import CommitMarker
from matih_ray.sinks.fencing import runs_after
from matih_ray.sinks.iceberg.manifest_files import live_manifests, manifest_list, manifest_writer
from matih_ray.sinks.iceberg.naming import load_branch, marker_property, runs_property

MARKER_SUMMARY = "matih.marker"
STREAM_SUMMARY = "matih.stream"
# What readers saw before the commit, for going back to it: a snapshot, or `none`.
BEFORE_SUMMARY = "matih.before"
# Says of a commit that it shows all that its run has gathered.
GATHERED_SUMMARY = "matih.gathered"


@dataclass(frozen=True)
class TableView:
    """What a commit is decided by: the heads of main and of the load branch, the marker, and the
    runs that have committed before the marker's."""

    main: int | None
    branch: int | None
    marker: CommitMarker | None
    earlier_runs: tuple[RunId, ...] = ()

    @property
    def refs(self) -> tuple[int | None, int | None]:
        """Both heads. Each marker commit moves one of them to a snapshot that never was before."""
        return self.main, self.branch


@dataclass(frozen=True)
class Placement:
    """Where a commit's snapshot goes: its parent, whether readers see it, what kind it is."""

    parent: int | None
    to_main: bool
    replaces: bool  # readers see other rows than before, not only more


def view_of(table: Table, stream: StreamKey) -> TableView:
    """The view of freshly loaded metadata."""
    metadata = table.metadata
    text = metadata.properties.get(marker_property(stream))
    runs = json.loads(metadata.properties.get(runs_property(stream), "[]"))
    main = metadata.refs.get(MAIN_BRANCH)
    load = metadata.refs.get(load_branch(stream))
    return TableView(
        main=None if main is None else main.snapshot_id,
        branch=None if load is None else load.snapshot_id,
        marker=None if text is None else CommitMarker.from_json(text),
        earlier_runs=tuple(RunId(run) for run in runs),
    )


def marker_properties(stream: StreamKey, view: TableView, marker: CommitMarker) -> dict[str, str]:
    """What the table remembers of the stream once the marker is applied to this view."""
    runs = runs_after(view.marker, view.earlier_runs, marker)
    properties = {marker_property(stream): marker.to_json()}
    return {**properties, runs_property(stream): json.dumps(runs)} if runs else properties


def place(view: TableView, marker: CommitMarker, *, shows_each: bool) -> Placement:
    """Where the marker's commit goes, once it may follow the view's marker.

    A run that does not show each commit starts from nothing and gathers its snapshots on the load
    branch; at the published commit of an overwrite main is set to the branch. Rows that others
    added to main meanwhile are replaced too: the overwrite wins. A load that a dead run left on the
    branch is dropped by the first commit of the next run.

    Raises:
        FencedError: The rows that this run loaded before are gone with the branch.
    """
    if shows_each:
        return Placement(view.main, to_main=True, replaces=False)
    held = gathered(view, marker)
    if held is None and view.marker is not None and view.marker.run_id == marker.run_id:
        return Placement(view.main, marker.published, replaces=False)  # it has been shown already
    return Placement(held, marker.published, replaces=view.main is not None)


def gathered(view: TableView, marker: CommitMarker) -> int | None:
    """The snapshot that holds what the marker's run has gathered; None if that is nothing.

    Raises:
        FencedError: What it has gathered is gone.
    """
    before = view.marker
    if before is None or before.run_id != marker.run_id or before.published:
        return None
    if view.branch is None:
        raise FencedError(
            f"the rows that run {marker.run_id} has loaded are gone: their branch was dropped; "
            "start a new run",
            run_id=marker.run_id,
        )
    return view.branch


class SnapshotWriter:
    """Writes one commit's manifest once, and a manifest list for each attempt.

    The snapshot's id stays the same over all attempts: finding it tells that one of them landed.
    """

    def __init__(self, table: Table, files: Sequence[DataFile], spec_id: int) -> None:
        self.snapshot_id = table.metadata.new_snapshot_id()
        self._lists: list[str] = []
        self._files = files
        self._removed: Mapping[str, tuple[DataFile, str]] = {}
        self._spec_id = spec_id
        self._manifests: list[ManifestFile] | None = None
        self._dropped: list[str] = []

    def replace(
        self, files: Sequence[DataFile], removed: Mapping[str, tuple[DataFile, str]]
    ) -> None:
        """Commit these files from now on, and take others away: each with its manifest's path."""
        self._files, self._removed = files, removed
        self._dropped += [one.manifest_path for one in self._manifests or ()]
        self._manifests = None

    def snapshot(
        self, table: Table, placement: Placement, extra_summary: dict[str, str], number: int = 1
    ) -> Snapshot:
        """Write the metadata of a snapshot that adds the files to the parent's.

        `number` is how many snapshots this commit has added by then, this one included.
        """
        metadata = table.metadata
        parent = None
        manifests = self._added(table)
        if placement.parent is not None:
            parent = metadata.snapshot_by_id(placement.parent)
        if parent is not None:
            kept = live_manifests(table, parent)
            manifests = manifests + [one for m in kept for one in self._without_removed(table, m)]
        collector = SnapshotSummaryCollector()
        for file in self._files:
            collector.metrics.add_file(file)
        for file, _ in self._removed.values():
            collector.metrics.remove_file(file)
        replaces = bool(self._removed) or (placement.replaces and placement.to_main)
        operation = Operation.OVERWRITE if replaces else Operation.APPEND
        summary = update_snapshot_summaries(
            Summary(operation, **collector.build(), **extra_summary),
            None if parent is None else parent.summary,
        )
        sequence_number = metadata.next_sequence_number() + number - 1
        return Snapshot(
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=None if parent is None else parent.snapshot_id,
            sequence_number=sequence_number,
            manifest_list=self._list(table, self.snapshot_id, parent, sequence_number, manifests),
            summary=summary,
            schema_id=metadata.current_schema_id,
        )

    def empty_snapshot(self, table: Table) -> Snapshot:
        """Write the metadata of a first snapshot without rows."""
        metadata = table.metadata
        snapshot_id = metadata.new_snapshot_id()
        sequence_number = metadata.next_sequence_number()
        return Snapshot(
            snapshot_id=snapshot_id,
            sequence_number=sequence_number,
            manifest_list=self._list(table, snapshot_id, None, sequence_number, []),
            summary=update_snapshot_summaries(Summary(Operation.APPEND)),
            schema_id=metadata.current_schema_id,
        )

    def drop_lists(self, io: FileIO) -> None:
        """Delete the manifest lists of attempts that certainly were not applied."""
        for path in self._lists:
            with contextlib.suppress(OSError):
                io.delete(path)
        self._lists.clear()

    def drop_all(self, io: FileIO) -> None:
        """Delete all metadata of a commit that certainly was not applied."""
        self.drop_lists(io)
        paths = [*self._dropped, *(one.manifest_path for one in self._manifests or ())]
        for path in paths:
            with contextlib.suppress(OSError):
                io.delete(path)

    def _added(self, table: Table) -> list[ManifestFile]:
        """One manifest for each partition spec of the files; usually there is one."""
        if self._manifests is None:
            specs = sorted({self._spec_of(file) for file in self._files})
            self._manifests = [self._added_of(table, spec_id) for spec_id in specs]
        return self._manifests

    def _spec_of(self, file: DataFile) -> int:
        return self._spec_id if file.spec_id is None else file.spec_id

    def _added_of(self, table: Table, spec_id: int) -> ManifestFile:
        with self._manifest_writer(table, spec_id) as writer:
            for file in self._files:
                if self._spec_of(file) != spec_id:
                    continue
                writer.add(
                    ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED,
                        snapshot_id=self.snapshot_id,
                        sequence_number=None,
                        file_sequence_number=None,
                        data_file=file,
                    )
                )
        return writer.to_manifest_file()

    def _without_removed(self, table: Table, manifest: ManifestFile) -> list[ManifestFile]:
        """The manifest, or one in its place that says which of its files are gone."""
        if all(path != manifest.manifest_path for _, path in self._removed.values()):
            return [manifest]
        with self._manifest_writer(table, manifest.partition_spec_id) as writer:
            for entry in manifest.fetch_manifest_entry(table.io):
                if entry.data_file.file_path in self._removed:
                    writer.delete(entry)
                else:
                    writer.existing(entry)
        written = writer.to_manifest_file()
        self._dropped.append(written.manifest_path)  # one for each attempt
        return [written]

    def _manifest_writer(self, table: Table, spec_id: int) -> ManifestWriter:
        return manifest_writer(table, spec_id, self.snapshot_id)

    def _list(
        self,
        table: Table,
        snapshot_id: int,
        parent: Snapshot | None,
        sequence_number: int,
        manifests: list[ManifestFile],
    ) -> str:
        path = manifest_list(table, snapshot_id, parent, sequence_number, manifests)
        self._lists.append(path)
        return path


def requirements(table: Table, view: TableView, branch: str) -> tuple[TableRequirement, ...]:
    """What must still be true when the catalog applies the commit.

    Every marker commit moves main or the load branch, and every marker commit asserts both. So a
    commit that was decided by one marker can never be applied after another one.
    """
    metadata = table.metadata
    asserted: list[TableRequirement] = [
        AssertTableUUID(uuid=metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=view.main),
    ]
    if metadata.snapshots:  # the library refuses assertions on branches of an empty table
        asserted.append(AssertRefSnapshotId(ref=branch, snapshot_id=view.branch))
    return tuple(asserted)


def updates(
    snapshots: Sequence[Snapshot],
    placement: Placement,
    view: TableView,
    branch: str,
    properties: dict[str, str],
) -> tuple[TableUpdate, ...]:
    """The change of the table: the last snapshot is the commit's; one before it becomes main."""
    changes: list[TableUpdate] = [AddSnapshotUpdate(snapshot=one) for one in snapshots]
    head = snapshots[-1].snapshot_id
    if placement.to_main:
        changes.append(set_branch(MAIN_BRANCH, head))
        if view.branch is not None:
            changes.append(RemoveSnapshotRefUpdate(ref_name=branch))
    else:
        if len(snapshots) > 1:
            changes.append(set_branch(MAIN_BRANCH, snapshots[0].snapshot_id))
        changes.append(set_branch(branch, head))
    changes.append(SetPropertiesUpdate(updates=properties))
    return tuple(changes)


def set_branch(name: str, snapshot_id: int) -> TableUpdate:
    """The update that makes a snapshot the head of a branch."""
    return _set_ref(name, SnapshotRefType.BRANCH, snapshot_id)


def set_tag(name: str, snapshot_id: int) -> TableUpdate:
    """The update that sets a tag, or moves it."""
    return _set_ref(name, SnapshotRefType.TAG, snapshot_id)


def _set_ref(name: str, kind: SnapshotRefType, snapshot_id: int) -> TableUpdate:
    return SetSnapshotRefUpdate(
        ref_name=name,
        type=kind,
        snapshot_id=snapshot_id,
        max_ref_age_ms=None,
        max_snapshot_age_ms=None,
        min_snapshots_to_keep=None,
    )
