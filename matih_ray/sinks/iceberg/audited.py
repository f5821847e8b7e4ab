"""The last commit of a run that is finalized: write, audit, publish.

All earlier commits of the run have parked their files on the load branch, as an overwrite does. The
last one makes a candidate of them: a snapshot on top of main that only the audit branch shows. What
that branch shows is audited, and then one commit sets main to it, stores the marker, sets the tag
and drops both branches.

The candidate carries no marker property, so nothing has been committed until it is published:
whoever dies in between commits again, makes a new candidate and audits that. Publishing asserts
main, the load branch and the audit branch. Main then is what the candidate was made from, so it
moves forward and nothing that others have committed is lost; if it is not, the candidate is made
again. If the audit fails, the branch stays for people to look at until the stream's next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotRefUpdate,
    SetPropertiesUpdate,
    TableRequirement,
    TableUpdate,
)

from matih_ray.errors import AuditFailedError, ConflictError, SinkError
from matih_ray.model.finalize import RUN, Finalize
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import WriteReceipt
from matih_ray.sinks.base import CommitOutcome
from matih_ray.sinks.iceberg.audit import Change, failures, files_of
from matih_ray.sinks.iceberg.boundary import COMMIT_ERRORS, mapped
from matih_ray.sinks.iceberg.commit import MarkedCommit, data_files_of
from matih_ray.sinks.iceberg.merge_plan import Merge
from matih_ray.sinks.iceberg.naming import audit_branch
from matih_ray.sinks.iceberg.snapshots import (
    BEFORE_SUMMARY,
    GATHERED_SUMMARY,
    Placement,
    SnapshotWriter,
    TableView,
    gathered,
    marker_properties,
    place,
    requirements,
    set_branch,
    set_tag,
    view_of,
)


@dataclass(frozen=True)
class _Passed:
    """A candidate that has passed the audit, and the heads that it was made from."""

    refs: tuple[int | None, int | None]
    snapshot_id: int


class AuditedCommit(MarkedCommit):
    """The published commit of a run with `finalize`."""

    _passed: _Passed | None = None
    _candidates = 0
    _has_parked = False

    def _landed(self, table: Table) -> bool:
        return self._ever_in_doubt and view_of(table, self._stream).marker == self._marker

    def _try(
        self, table: Table, view: TableView, receipts: Sequence[WriteReceipt]
    ) -> CommitOutcome | None:
        self._check_tag(table)
        try:
            passed = self._passed
            if passed is None or not self._is_current(table, view, passed):
                staged = self._stage(table, view, receipts)
                if staged is None:
                    return None
                table = self._load()
                if not self._is_audited(table, view, *staged):
                    return None
                passed = self._passed = _Passed(view.refs, staged[0].snapshot_id)
            self._publish(table, view, passed)
        except COMMIT_ERRORS as error:
            self._judge(error, table, view)
            return None
        return CommitOutcome.APPLIED

    def _tidy(self) -> None:
        # files of other candidates and of the load branch are parts of the table until they expire
        if self._candidates == 1 and not self._has_parked:
            super()._tidy()

    @property
    def _finalize(self) -> Finalize:
        assert self._target.finalize is not None  # noqa: S101 - what this commit is for
        return self._target.finalize

    @property
    def _audit_branch(self) -> str:
        return audit_branch(self._stream)

    @property
    def _tag(self) -> str | None:
        tag = self._finalize.tag
        return None if tag is None else tag.replace(RUN, self._marker.run_id)

    def _check_tag(self, table: Table) -> None:
        held = None if self._tag is None else table.metadata.refs.get(self._tag)
        if held is not None and held.snapshot_ref_type is SnapshotRefType.BRANCH:
            raise ConflictError(
                f"{self._tag!r} is a branch of table {'.'.join(self._target.identifier)}, so it "
                "cannot be set as a tag; choose another name in finalize.tag",
                tag=self._tag,
            )

    def _is_current(self, table: Table, view: TableView, passed: _Passed) -> bool:
        """Whether main is what the candidate was made from, and the audit branch shows it."""
        head = table.metadata.refs.get(self._audit_branch)
        return (
            passed.refs == view.refs and head is not None and head.snapshot_id == passed.snapshot_id
        )

    def _stage(
        self, table: Table, view: TableView, receipts: Sequence[WriteReceipt]
    ) -> tuple[Snapshot, Change] | None:
        """Let the audit branch show what main shall; None if main has moved meanwhile."""
        made = self._made(table, view, receipts)
        if made is None:
            return None
        change, writer, placement = made
        before = {BEFORE_SUMMARY: str(view.main or "none"), GATHERED_SUMMARY: "true"}
        snapshot = writer.snapshot(table, placement, {**self._summary, **before})
        asserted: list[TableRequirement] = [AssertTableUUID(uuid=table.metadata.table_uuid)]
        if table.metadata.snapshots:  # the library refuses assertions on branches otherwise
            head = table.metadata.refs.get(self._audit_branch)
            known = None if head is None else head.snapshot_id
            asserted.append(AssertRefSnapshotId(ref=self._audit_branch, snapshot_id=known))
        self._candidates += 1
        self._catalog.commit_table(
            table,
            tuple(asserted),
            (
                AddSnapshotUpdate(snapshot=snapshot),
                set_branch(self._audit_branch, snapshot.snapshot_id),
            ),
        )
        return snapshot, change

    def _made(
        self, table: Table, view: TableView, receipts: Sequence[WriteReceipt]
    ) -> tuple[Change, SnapshotWriter, Placement] | None:
        """What the run makes of main, by its write mode."""
        metadata, spec_id = table.metadata, self._target.spec_id
        held = gathered(view, self._marker)
        self._has_parked = held is not None
        parked = [] if held is None else [*files_of(table, metadata.snapshot_by_id(held))]
        fresh = data_files_of(table, self._target, receipts)
        brought = [*parked, *fresh]
        if self._mode is WriteMode.OVERWRITE:
            placement = place(view, self._marker, shows_each=False)
            base = None if held is not None else placement.parent
            writer = SnapshotWriter(table, fresh, spec_id)
        else:
            placement = Placement(view.main, to_main=True, replaces=False)
            base = view.main
            writer = SnapshotWriter(table, brought, spec_id)
        change = Change(
            base=None if base is None else metadata.snapshot_by_id(base),
            brought=brought,
            added=brought,
            removed=(),
            rows=self._marker.rows_total,
        )
        if self._target.merge is None:
            return change, writer, placement
        self._merge = self._merge or Merge(self._target.merge, brought, self._workforce)
        if not self._is_planned(table, view, writer):
            return None
        assert self._planned is not None  # noqa: S101 - it has just been planned
        planned = self._planned[1]
        writer.replace(planned.added, planned.removed)
        removed = [file for file, _ in planned.removed.values()]
        return replace(change, added=planned.added, removed=removed), writer, placement

    def _is_audited(
        self, table: Table, view: TableView, snapshot: Snapshot, change: Change
    ) -> bool:
        """Audit a candidate; False if what it was made from has gone meanwhile."""
        try:
            with mapped(f"audit run {self._marker.run_id}", self._config):
                found = failures(table, snapshot, change, self._finalize)
        except SinkError:
            if view_of(self._load(), self._stream).main != view.main:
                return False  # and an expiry has taken what main was before
            raise
        if not found:
            return True
        name = ".".join(self._target.identifier)
        raise AuditFailedError(
            f"run {self._marker.run_id} was not published to table {name}: {'; '.join(found)}. "
            f"Readers do not see its rows; they are on branch {self._audit_branch} until the next "
            "run of the unit. Correct the source, or what finalize declares, and start a new run",
            table=name,
            branch=self._audit_branch,
            failed="; ".join(found),
        )

    def _publish(self, table: Table, view: TableView, passed: _Passed) -> None:
        """Move main to the candidate, with the marker."""
        asserted = AssertRefSnapshotId(ref=self._audit_branch, snapshot_id=passed.snapshot_id)
        changes: list[TableUpdate] = [
            set_branch(MAIN_BRANCH, passed.snapshot_id),
            RemoveSnapshotRefUpdate(ref_name=self._audit_branch),
            SetPropertiesUpdate(updates=marker_properties(self._stream, view, self._marker)),
        ]
        if view.branch is not None:
            changes.append(RemoveSnapshotRefUpdate(ref_name=self._branch))
        if self._tag is not None:
            changes.append(set_tag(self._tag, passed.snapshot_id))
        self._catalog.commit_table(
            table, (*requirements(table, view, self._branch), asserted), tuple(changes)
        )
