"""Step 3 of the commit order: the checkpoint of a stream, and making it true after a bad end.

The sink's marker is the truth and the checkpoint a cache of it: a run that ended badly may have
committed rows without moving the checkpoint. Planning from the old one would load those rows
twice, so the next run of the stream asks the sink first.
"""

from __future__ import annotations

from collections.abc import Collection

from matih_ray.control.building import build_sink
from matih_ray.control.ports import Ports
from matih_ray.errors import FencedError, NotFoundError, StateConflictError
from matih_ray.model.checkpoint import Checkpoint, StreamKey
from matih_ray.model.ids import RunId
from matih_ray.model.plan import IngestionPlan, cursor_through
from matih_ray.model.receipt import CommitMarker
from matih_ray.model.run import RunRecord, RunState, unread_slices
from matih_ray.sinks.base import PreparedTarget

# Runs looked through for the last good end; more bad runs in a row than this do not happen
# without somebody resetting the checkpoint.
RUNS_LOOKED_BACK = 50


class StoredCheckpoint:
    """The checkpoint of one stream, read once and then replaced by compare-and-set only."""

    def __init__(self, ports: Ports, stream: StreamKey) -> None:
        self._ports = ports
        self._stream = stream
        stored = ports.kv.get(stream.tenant_id, stream.kv_key())
        self._version = 0 if stored is None else stored.version
        self.value: Checkpoint | None = None
        if stored is not None:
            assert isinstance(stored.value, dict)  # noqa: S101 only this class writes the key
            self.value = Checkpoint.from_json(stored.value)

    def advance(
        self,
        run_id: RunId,
        plan: IngestionPlan,
        marker: CommitMarker,
        unread: Collection[int] = (),
    ) -> None:
        """Store what a commit means for the next run; repeating it changes nothing.

        Args:
            run_id: The run that has committed.
            plan: Its plan.
            marker: Its commit.
            unread: Sequences of slices that could not be read.

        Raises:
            FencedError: Somebody else has written the checkpoint since it was read.
        """
        if not marker.published:
            return  # rows that nobody sees must not move the cursor
        after = checkpoint_after(plan, marker.through, self.value, run_id, unread)
        if after == self.value:
            return
        try:
            self._version = self._ports.kv.compare_and_set(
                self._stream.tenant_id, self._stream.kv_key(), after.to_dict(), self._version
            )
        except StateConflictError:
            raise FencedError(
                f"the checkpoint of {self._stream.unit_id} was written by somebody else than run "
                f"{run_id}",
                run_id=run_id,
            ) from None
        self.value = after


def checkpoint_after(
    plan: IngestionPlan,
    through: int,
    before: Checkpoint | None,
    run_id: RunId,
    unread: Collection[int] = (),
) -> Checkpoint:
    """The checkpoint once the first `through` slices of a plan are committed. Pure.

    The cursor never runs ahead: it is what the prefix makes of it (see `cursor_through`), and going
    through the prefix again changes nothing. A plan without a cursor column leaves none, since the
    table then holds rows that no cursor describes. A plan that replaces the table begins with
    none: what an earlier run had read of other projects is not there any more.
    """
    begun = before.cursor if before is not None and not plan.replaces else None
    cursor = cursor_through(begun, plan.slices[:through], unread)
    details = plan.statistics.get("checkpointDetails")
    return Checkpoint(
        cursor=cursor if plan.cursor_column is not None else None,
        cursor_column=plan.cursor_column,
        run_id=run_id,
        through=through,
        details=details if isinstance(details, dict) else (before.details if before else {}),
    )


def reconcile_previous_run(ports: Ports, record: RunRecord) -> None:
    """Bring the checkpoint up to the sink's last commit if the previous run ended badly.

    Raises:
        SinkUnavailableError: The sink cannot be asked; planning must wait.
    """
    target = _target_of_bad_end(ports, record)
    if target is None:
        return
    stream = record.stream
    sink = build_sink(ports, stream.tenant_id, stream.sink_id)
    try:
        marker = sink.last_marker(target)
    finally:
        sink.close()
    if marker is None:
        return
    try:
        committed = ports.metadata.get_run(stream.tenant_id, marker.run_id)
    except NotFoundError:
        return  # written by a runtime with another metadata store
    if committed.plan is not None:
        unread = unread_slices(committed)
        StoredCheckpoint(ports, stream).advance(marker.run_id, committed.plan, marker, unread)


def _target_of_bad_end(ports: Ports, record: RunRecord) -> PreparedTarget | None:
    """The target of the newest earlier run of the stream that did not complete, if there is one."""
    stream = record.stream
    earlier = ports.metadata.list_runs(
        stream.tenant_id,
        endpoint_id=stream.endpoint_id,
        unit_id=stream.unit_id,
        limit=RUNS_LOOKED_BACK,
    )
    for run in earlier:
        if run.run_id == record.run_id or run.stream != stream:
            continue
        if run.state is RunState.COMPLETED:
            return None
        if run.target is not None:
            return PreparedTarget.from_json(run.target)
    return None
