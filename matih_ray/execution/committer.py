"""The commit order, and recovery from having been interrupted anywhere in it. No Ray here.

1 write (done by sink actors: the receipts)   2 sink commit with its marker
3 checkpoint compare-and-set                  4 run record          5 release staging

Every step is idempotent, and each later step can be recomputed from an earlier one: the marker in
the sink says how many slices are committed, the plan says which cursor that means, the run record
repeats it for people. So recovery reads the marker and does 3 and 4 again.

Step 5 comes early here: a receipt means that the rows are in the sink's own files, so staged
batches are released as soon as a slice is written; the uncommitted receipts are what is kept.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from matih_ray.control.ports import Ports
from matih_ray.errors import (
    CommitRejectedError,
    CommitUnknownError,
    ConflictError,
    FencedError,
    SinkUnavailableError,
)
from matih_ray.execution.checkpoints import StoredCheckpoint
from matih_ray.execution.ledger import RunLedger
from matih_ray.execution.steps import Step, reached
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.run import unread_slices
from matih_ray.sinks.base import CommitOutcome, PreparedTarget, SinkEndpoint

# A commit is tried this often within one planner's life; waits grow from 0.2 to 5 s, which
# outlasts a catalog's restart (about 25 s in all).
COMMIT_ATTEMPTS = 8
COMMIT_BACKOFF_FIRST_S = 0.2
COMMIT_BACKOFF_MAX_S = 5.0


class Committer:
    """Commits contiguous prefixes of one run's slices, in order, each exactly once."""

    def __init__(
        self, ports: Ports, ledger: RunLedger, sink: SinkEndpoint, prepared: PreparedTarget
    ) -> None:
        self._ports = ports
        self._ledger = ledger
        self._sink = sink
        self._prepared = prepared
        self._marker: CommitMarker | None = None
        self._checkpoint = StoredCheckpoint(ports, ledger.record.stream)

    @property
    def through(self) -> int:
        """Number of slices that are committed, a contiguous prefix of the plan."""
        return 0 if self._marker is None else self._marker.through

    @property
    def visible(self) -> bool:
        """Readers of the sink see everything that was committed."""
        if self._marker is None:
            return self._prepared.shows_each_commit
        return self._marker.published

    def recover(self) -> int:
        """Ask the sink how far this run got, and repeat steps 3 and 4 for it.

        Returns:
            The number of slices that need not be read again.

        Raises:
            FencedError: A planner with a higher epoch has committed for this run.
            ConflictError: The run had committed slices, and the sink no longer knows of it.
        """
        record = self._ledger.record
        marker = self._sink.last_marker(self._prepared)
        if marker is not None and marker.run_id == record.run_id:
            if marker.epoch > record.epoch:
                raise self._fenced(marker)
            self._marker = marker
            self._save_checkpoint()
            self._record_progress(rows=marker.rows_total, bytes_added=0)
        elif record.through > 0:
            raise ConflictError(
                f"{self._prepared.display_name} was loaded by another run, or dropped, after run "
                f"{record.run_id} had committed {record.through} slices; going on would load rows "
                "twice, so start a new run",
                run_id=record.run_id,
                through=record.through,
            )
        return self.through

    def commit(self, receipts: Sequence[WriteReceipt], *, last: bool) -> None:
        """Steps 2 to 4 for the next receipts in sequence.

        Args:
            receipts: Receipts of slices `through`, `through + 1`, …; may be empty with `last`.
            last: These complete the plan, so an overwrite becomes visible.

        Raises:
            FencedError: Another planner owns the run.
            CommitUnknownError: The sink cannot be asked whether it has committed.
            SinkError: The sink refuses.
        """
        expected = range(self.through, self.through + len(receipts))
        assert [receipt.sequence for receipt in receipts] == list(expected)  # noqa: S101 our own invariant
        record = self._ledger.record
        previous = self._marker
        rows = sum(receipt.rows for receipt in receipts)
        marker = CommitMarker(
            run_id=record.run_id,
            epoch=record.epoch,
            sequence=(previous.sequence if previous else 0) + 1,
            through=self.through + len(receipts),
            published=last or self._prepared.shows_each_commit,
            rows_total=(previous.rows_total if previous else 0) + rows,
        )
        settings, run_id, reach = self._ports.settings, record.run_id, str(marker.through)
        reached(settings, Step.COMMITTING, run_id, reach)
        self._commit_to_sink(receipts, marker)
        self._marker = marker
        reached(settings, Step.COMMITTED, run_id, reach)
        self._save_checkpoint()
        reached(settings, Step.CHECKPOINTED, run_id, reach)
        self._record_progress(marker.rows_total, sum(receipt.bytes for receipt in receipts))
        reached(settings, Step.RECORDED, run_id, reach)

    def _commit_to_sink(self, receipts: Sequence[WriteReceipt], marker: CommitMarker) -> None:
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                outcome = self._sink.commit(self._prepared, receipts, marker)
            except CommitUnknownError:
                if self._is_applied(marker):
                    return
            except (CommitRejectedError, SinkUnavailableError):
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise
            else:
                assert outcome in (CommitOutcome.APPLIED, CommitOutcome.ALREADY_APPLIED)  # noqa: S101
                return
            _back_off(attempt)
        raise CommitRejectedError(
            f"commit {marker.sequence} of run {marker.run_id} was not applied in "
            f"{COMMIT_ATTEMPTS} attempts; resume the run when the sink is well",
            run_id=marker.run_id,
            sequence=marker.sequence,
        )

    def _is_applied(self, marker: CommitMarker) -> bool:
        """Reconcile an unknown outcome: the sink's marker is the truth."""
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                found = self._sink.last_marker(self._prepared)
            except SinkUnavailableError:
                _back_off(attempt)
                continue
            if found == marker:
                return True
            if found == self._marker or (found is not None and found.run_id != marker.run_id):
                return False
            if found is None:
                return False
            raise self._fenced(found)
        raise CommitUnknownError(
            f"commit {marker.sequence} of run {marker.run_id} may have been applied, and the sink "
            "does not answer; resume the run when it does, nothing is lost or doubled",
            run_id=marker.run_id,
            sequence=marker.sequence,
        )

    def _save_checkpoint(self) -> None:
        plan = self._ledger.record.plan
        if plan is not None and self._marker is not None:
            record = self._ledger.record
            unread = unread_slices(record)
            self._checkpoint.advance(record.run_id, plan, self._marker, unread)

    def _record_progress(self, rows: int, bytes_added: int) -> None:
        record = self._ledger.record
        self._ledger.update(
            through=self.through,
            lost_planners=0,
            commit_sequence=self._marker.sequence if self._marker else 0,
            rows=rows,
            bytes=record.bytes + bytes_added,
        )

    def _fenced(self, marker: CommitMarker) -> FencedError:
        return FencedError(
            f"run {marker.run_id} was committed by epoch {marker.epoch}; "
            f"this planner has epoch {self._ledger.record.epoch}",
            run_id=marker.run_id,
            epoch=marker.epoch,
        )


def _back_off(attempt: int) -> None:
    wait_s = min(COMMIT_BACKOFF_FIRST_S * 2**attempt, COMMIT_BACKOFF_MAX_S)
    time.sleep(wait_s * random.uniform(0.7, 1.3))  # noqa: S311 jitter, not a secret
