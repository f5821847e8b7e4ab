"""Taking back what a run has committed, while nobody has committed on top of it.

Readers get a new snapshot that names the files of the one before the run. Main is never set back to
an old snapshot: a commit whose outcome is unknown asserts the head that it found, and a head that
comes again could let it in late. The snapshot that is gone back to is held by a tag meanwhile, so
that an expiry cannot take it away; the last commit asserts the tag, too.

The stream gets a marker of the rollback, and the run joins those that have committed before: if it
is resumed it is fenced, while a new run goes on from here. Commits of maintenance that came after
the run's are taken back with it, since they changed no row.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot, Summary, update_snapshot_summaries
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    RemoveSnapshotRefUpdate,
    SetPropertiesUpdate,
    TableUpdate,
)

from matih_ray.errors import CommitRejectedError, ConflictError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import RunId
from matih_ray.model.receipt import CommitMarker
from matih_ray.sinks.iceberg.boundary import (
    COMMIT_ERRORS,
    CommitAnswer,
    answer_of,
    mapped,
    translated,
)
from matih_ray.sinks.iceberg.catalog import CatalogConfig
from matih_ray.sinks.iceberg.commit import FIRST_BACKOFF_S, MAX_ATTEMPTS, MAX_BACKOFF_S
from matih_ray.sinks.iceberg.maintenance.replacing import MAINTENANCE_SUMMARY
from matih_ray.sinks.iceberg.manifest_files import live_manifests, manifest_list
from matih_ray.sinks.iceberg.naming import ROLLBACK_TAG, audit_branch, load_branch, stream_digest
from matih_ray.sinks.iceberg.snapshots import (
    BEFORE_SUMMARY,
    GATHERED_SUMMARY,
    MARKER_SUMMARY,
    STREAM_SUMMARY,
    TableView,
    marker_properties,
    requirements,
    set_branch,
    set_tag,
    view_of,
)
from matih_ray.sinks.iceberg.target import IcebergTarget

ROLLBACK_SUMMARY = "matih.rollback"


@dataclass
class Rollback:
    """Takes back one run of a stream."""

    catalog: Catalog
    config: CatalogConfig
    stream: StreamKey
    target: IcebergTarget
    run_id: RunId

    def run(self) -> None:
        """See `SupportsRollback.rollback`."""
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                longest = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**attempt)
                time.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            if self._attempt():
                return
        raise CommitRejectedError(
            f"{self._what} met other commits {MAX_ATTEMPTS} times in a row; try again"
        )

    @property
    def _what(self) -> str:
        return f"take run {self.run_id} back"

    @property
    def _marker(self) -> CommitMarker:
        name = RunId(f"rollback-{self.run_id}")
        return CommitMarker(run_id=name, epoch=1, sequence=1, through=0)

    def _attempt(self) -> bool:
        """One turn; False means that it must turn again. An unknown outcome shows in the next."""
        with mapped(self._what, self.config):
            table = self.catalog.load_table(self.target.identifier)
        self.target.check_is(table)
        view = view_of(table, self.stream)
        if view.marker == self._marker:
            return True
        if view.marker is None or view.marker.run_id != self.run_id:
            newest = "no run" if view.marker is None else f"run {view.marker.run_id}"
            raise ConflictError(
                f"only the newest run of a unit can be taken back, which is {newest}, not run "
                f"{self.run_id}",
                run_id=self.run_id,
            )
        before = self._before(table)
        try:
            if before is not None:
                held = table.metadata.refs.get(ROLLBACK_TAG)
                if held is None or held.snapshot_id != before.snapshot_id:
                    self._hold(table, before)
                    return False
            self._commit(table, view, before)
        except COMMIT_ERRORS as error:
            if answer_of(error) is CommitAnswer.REFUSED:
                raise translated(self._what, error, self.config) from None
            return False
        return True

    def _before(self, table: Table) -> Snapshot | None:
        """What readers saw before the run; None if that was nothing."""
        metadata = table.metadata
        first: Snapshot | None = None
        for entry in reversed(metadata.snapshot_log):
            snapshot = metadata.snapshot_by_id(entry.snapshot_id)
            if snapshot is None or not (self._is_ours(snapshot) or _is_maintenance(snapshot)):
                break
            if self._is_ours(snapshot):
                first = snapshot
        if first is None:
            if view_of(table, self.stream).marker and not self._is_shown(table):
                return metadata.current_snapshot()  # readers never saw anything of it
            raise self._conflict("others have committed to the table since")
        told = _told(first, BEFORE_SUMMARY)
        if told is None or not self._is_first(first):
            raise self._conflict("others have committed between its commits, or some have expired")
        if told == "none":
            return None
        before = metadata.snapshot_by_id(int(told))
        if before is None:
            raise self._conflict("the snapshot before it has expired")
        return before

    def _is_ours(self, snapshot: Snapshot) -> bool:
        marker = _told(snapshot, MARKER_SUMMARY)
        return (
            marker is not None
            and _told(snapshot, STREAM_SUMMARY) == stream_digest(self.stream)
            and CommitMarker.from_json(marker).run_id == self.run_id
        )

    def _is_first(self, snapshot: Snapshot) -> bool:
        """Whether readers saw nothing of the run before this snapshot of it.

        An overwrite is shown by one commit, whichever number it has: it does not start from what
        was on main.
        """
        if _told(snapshot, GATHERED_SUMMARY) is not None:
            return True
        marker = CommitMarker.from_json(_told(snapshot, MARKER_SUMMARY) or "")
        parent = str(snapshot.parent_snapshot_id or "none")
        return marker.sequence == 1 or parent != _told(snapshot, BEFORE_SUMMARY)

    def _is_shown(self, table: Table) -> bool:
        marker = view_of(table, self.stream).marker
        return marker is not None and marker.published

    def _conflict(self, why: str) -> ConflictError:
        return ConflictError(f"run {self.run_id} cannot be taken back: {why}", run_id=self.run_id)

    def _hold(self, table: Table, before: Snapshot) -> None:
        held = table.metadata.refs.get(ROLLBACK_TAG)
        asserted = AssertRefSnapshotId(
            ref=ROLLBACK_TAG, snapshot_id=None if held is None else held.snapshot_id
        )
        tag = set_tag(ROLLBACK_TAG, before.snapshot_id)
        self.catalog.commit_table(table, (asserted,), (tag,))

    def _commit(self, table: Table, view: TableView, before: Snapshot | None) -> None:
        branch = load_branch(self.stream)
        asserted = requirements(table, view, branch)
        changes: list[TableUpdate] = []
        if view.main is not None:
            snapshot = self._snapshot(table, before)
            changes += [
                AddSnapshotUpdate(snapshot=snapshot),
                set_branch(MAIN_BRANCH, snapshot.snapshot_id),
            ]
        if before is not None:
            held = AssertRefSnapshotId(ref=ROLLBACK_TAG, snapshot_id=before.snapshot_id)
            asserted = (*asserted, held)
            changes.append(RemoveSnapshotRefUpdate(ref_name=ROLLBACK_TAG))
        for name in (branch, audit_branch(self.stream)):
            if name in table.metadata.refs:
                changes.append(RemoveSnapshotRefUpdate(ref_name=name))
        properties = marker_properties(self.stream, view, self._marker)
        changes.append(SetPropertiesUpdate(updates=properties))
        self.catalog.commit_table(table, asserted, tuple(changes))

    def _snapshot(self, table: Table, before: Snapshot | None) -> Snapshot:
        """A snapshot on top of main with the files of another one, or with none."""
        metadata = table.metadata
        head = metadata.current_snapshot()
        snapshot_id = metadata.new_snapshot_id()
        sequence_number = metadata.next_sequence_number()
        manifests = [] if before is None else live_manifests(table, before)
        told = {ROLLBACK_SUMMARY: self.run_id}
        totals = None if before is None or before.summary is None else before.summary
        return Snapshot(
            snapshot_id=snapshot_id,
            parent_snapshot_id=None if head is None else head.snapshot_id,
            sequence_number=sequence_number,
            manifest_list=manifest_list(table, snapshot_id, head, sequence_number, manifests),
            summary=update_snapshot_summaries(
                Summary(Operation.OVERWRITE, **told),
                None if totals is None else totals.additional_properties,
            ),
            schema_id=metadata.current_schema_id,
        )


def _told(snapshot: Snapshot, name: str) -> str | None:
    return None if snapshot.summary is None else snapshot.summary.get(name)


def _is_maintenance(snapshot: Snapshot) -> bool:
    return _told(snapshot, MAINTENANCE_SUMMARY) is not None
