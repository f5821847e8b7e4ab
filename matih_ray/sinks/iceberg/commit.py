"""The commit loop: refresh, look for our marker, commit, on conflict repeat.

A commit has three outcomes. *Applied* and *rejected* are certain. *Unknown* is settled here as far
as it can be: the table is loaded again and searched for the marker. If it is not there the loop
goes on, because a commit that is still under way and this one assert the same heads of the table,
so that at most one of them is ever applied; and once a head has moved the older one never will be.
Only when the catalog cannot be asked is the outcome left unknown.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from matih_ray.errors import CommitRejectedError, MatihError, SinkError, SinkUnavailableError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.sinks.base import CommitOutcome, Workforce
from matih_ray.sinks.fencing import already_applied
from matih_ray.sinks.iceberg.boundary import (
    COMMIT_ERRORS,
    CommitAnswer,
    answer_of,
    mapped,
    translated,
    unknown,
)
from matih_ray.sinks.iceberg.catalog import CatalogConfig
from matih_ray.sinks.iceberg.data_files import from_payload
from matih_ray.sinks.iceberg.merge_plan import Merge, Replacement, delete_files
from matih_ray.sinks.iceberg.naming import load_branch, stream_digest
from matih_ray.sinks.iceberg.snapshots import (
    BEFORE_SUMMARY,
    MARKER_SUMMARY,
    STREAM_SUMMARY,
    SnapshotWriter,
    TableView,
    marker_properties,
    place,
    requirements,
    updates,
    view_of,
)
from matih_ray.sinks.iceberg.target import IcebergTarget

# Conflicts come from other writers of the same table. Each attempt takes some 20 ms, so this many
# outlast dozens of writers that commit at the same moment.
MAX_ATTEMPTS = 20
FIRST_BACKOFF_S = 0.01
MAX_BACKOFF_S = 0.5
# In the payload of receipts: their rows only say which keys are to be removed.
GONE = "gone"


@dataclass(frozen=True)
class _Doubt:
    """An attempt whose outcome nobody told us: what it asserted, and what went wrong."""

    refs: tuple[int | None, int | None]
    error: Exception


class MarkedCommit:
    """One commit of receipts with their marker."""

    def __init__(
        self,
        catalog: Catalog,
        config: CatalogConfig,
        stream: StreamKey,
        target: IcebergTarget,
        mode: WriteMode,
        marker: CommitMarker,
        workforce: Workforce,
    ) -> None:
        self._catalog = catalog
        self._config = config
        self._target = target
        self._mode = mode
        self._marker = marker
        self._stream = stream
        self._branch = load_branch(stream)
        self._summary = {MARKER_SUMMARY: marker.to_json(), STREAM_SUMMARY: stream_digest(stream)}
        self._what = f"commit {marker.sequence} of run {marker.run_id}"
        self._writer: SnapshotWriter | None = None
        self._doubt: _Doubt | None = None
        self._ever_in_doubt = False
        self._workforce = workforce
        self._merge: Merge | None = None
        self._planned: tuple[int | None, Replacement] | None = None
        self._shows_each = mode.shows_each_commit and target.finalize is None

    def run(self, receipts: Sequence[WriteReceipt]) -> CommitOutcome:
        """Apply the commit, or find that it was; see `SinkEndpoint.commit` for what is raised."""
        try:
            for attempt in range(MAX_ATTEMPTS):
                if attempt:
                    time.sleep(_backoff_s(attempt))
                outcome = self._attempt(receipts)
                if outcome is not None:
                    self._tidy()
                    return outcome
            raise self._exhausted()
        except MatihError:
            self._clean_up()
            raise

    def _attempt(self, receipts: Sequence[WriteReceipt]) -> CommitOutcome | None:
        """One turn of the loop; None means that it must turn again."""
        table = self._load()
        view = view_of(table, self._stream)
        if self._landed(table):
            return CommitOutcome.APPLIED
        if already_applied(view.marker, self._target.predecessor, view.earlier_runs, self._marker):
            return CommitOutcome.ALREADY_APPLIED
        if self._doubt is not None and self._doubt.refs != view.refs:
            self._doubt = None  # what it asserted is no longer so: it can never be applied
        return self._try(table, view, receipts)

    def _try(
        self, table: Table, view: TableView, receipts: Sequence[WriteReceipt]
    ) -> CommitOutcome | None:
        """Send the commit; None if it was not applied, or nobody knows."""
        writer = self._snapshots(table, receipts)
        if not self._is_planned(table, view, writer):
            return None
        try:
            self._commit(table, view, writer)
        except COMMIT_ERRORS as error:
            self._judge(error, table, view)
            return None
        return CommitOutcome.APPLIED

    def _judge(self, error: Exception, table: Table, view: TableView) -> None:
        """Return if the loop may turn again after this exception, else raise."""
        answer = answer_of(error)
        if answer is CommitAnswer.UNKNOWN:
            self._doubt = _Doubt(view.refs, error)
            self._ever_in_doubt = True
        elif answer is CommitAnswer.REFUSED and not self._outnumbered(table):
            raise translated(self._what, error, self._config) from None

    def _outnumbered(self, table: Table) -> bool:
        """Whether another commit has taken our snapshot's sequence number.

        It may be on a branch that we do not assert, for instance another stream's load; catalogs
        refuse our number then without calling it a conflict.
        """
        now = self._load().metadata
        return now.next_sequence_number() != table.metadata.next_sequence_number()

    def _load(self) -> Table:
        try:
            with mapped(self._what, self._config):
                table = self._catalog.load_table(self._target.identifier)
        except SinkUnavailableError as error:
            if self._doubt is not None:
                raise unknown(self._what, self._doubt.error, self._config) from None
            raise CommitRejectedError(f"{error.message}; nothing was sent") from None
        self._target.check_is(table)
        return table

    def _landed(self, table: Table) -> bool:
        """Whether an attempt of ours was applied, even if other commits have followed it."""
        if self._writer is None:
            return False
        return table.metadata.snapshot_by_id(self._writer.snapshot_id) is not None

    def _snapshots(self, table: Table, receipts: Sequence[WriteReceipt]) -> SnapshotWriter:
        if self._writer is None:
            spec_id = self._target.spec_id
            files = data_files_of(table, self._target, receipts)
            self._writer = SnapshotWriter(table, files, spec_id)
            if self._target.merge is not None and self._shows_each:
                gone = frozenset(
                    str(payload["path"])
                    for receipt in receipts
                    if receipt.payload.get(GONE)
                    for payload in file_payloads(receipt)
                )
                self._merge = Merge(self._target.merge, files, self._workforce, gone)
        return self._writer

    def _is_planned(self, table: Table, view: TableView, writer: SnapshotWriter) -> bool:
        """Plan a merge for the head of main; False if that has moved meanwhile, files and all."""
        if self._merge is None or (self._planned is not None and self._planned[0] == view.main):
            return True
        try:
            with mapped(self._what, self._config):
                planned = self._merge.plan(table, view.main)
        except SinkError:
            if view_of(self._load(), self._stream).main != view.main:
                return False  # a compaction, perhaps, that took away what was to be read
            raise
        self._planned = (view.main, planned)
        writer.replace(planned.added, planned.removed)
        return True

    def _commit(self, table: Table, view: TableView, writer: SnapshotWriter) -> None:
        placement = place(view, self._marker, shows_each=self._shows_each)
        if not self._ever_in_doubt:
            writer.drop_lists(table.io)
        snapshots = []
        if not table.metadata.snapshots and not placement.to_main:
            # a branch of a table without snapshots could not be asserted: give main an empty one
            snapshots.append(writer.empty_snapshot(table))
        summary = {**self._summary, BEFORE_SUMMARY: str(view.main or "none")}
        snapshots.append(writer.snapshot(table, placement, summary, len(snapshots) + 1))
        properties = marker_properties(self._stream, view, self._marker)
        self._catalog.commit_table(
            table,
            requirements(table, view, self._branch),
            updates(snapshots, placement, view, self._branch, properties),
        )

    def _exhausted(self) -> MatihError:
        if self._doubt is not None:
            return unknown(self._what, self._doubt.error, self._config)
        return CommitRejectedError(
            f"{self._what} met other commits to the same table {MAX_ATTEMPTS} times in a row; "
            "try again",
            attempts=MAX_ATTEMPTS,
        )

    def _clean_up(self) -> None:
        """Delete the metadata files of a commit that certainly was not applied."""
        if self._writer is not None and not self._ever_in_doubt:
            with contextlib.suppress(MatihError):
                io = self._load().io
                self._writer.drop_all(io)
                if self._merge is not None:
                    delete_files(io, self._merge.unused(None))

    def _tidy(self) -> None:
        """Delete what an applied merge has no use for: staged files that it wrote again without
        some rows, and files of plans that conflicts made obsolete. Not after doubts: which of
        several plans was applied is then only known to the table."""
        if self._merge is None or self._planned is None or self._ever_in_doubt:
            return
        with contextlib.suppress(MatihError):
            delete_files(self._load().io, self._merge.unused(self._planned[1]))


def data_files_of(
    table: Table, target: IcebergTarget, receipts: Sequence[WriteReceipt]
) -> list[DataFile]:
    """The files of receipts, in the order of their slices."""
    spec, schema = table.specs()[target.spec_id], table.schemas()[target.schema_id]
    return [
        from_payload(payload, spec, schema)
        for receipt in sorted(receipts, key=lambda one: one.sequence)
        for payload in file_payloads(receipt)
    ]


def as_removals(receipt: WriteReceipt) -> WriteReceipt:
    """A receipt whose rows are none for the table: a merge removes those that have their keys."""
    return receipt.model_copy(update={"payload": {**receipt.payload, GONE: True}})


def file_payloads(receipt: WriteReceipt) -> list[dict[str, object]]:
    """The data files of a receipt in their JSON form."""
    return receipt.payload.get("files", [])  # type: ignore[return-value] # written by the writer


def _backoff_s(attempt: int) -> float:
    longest: float = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**attempt)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
