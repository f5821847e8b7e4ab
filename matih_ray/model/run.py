"""Runs: one execution of a unit, its states and the only transitions between them."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from matih_ray.errors import ConflictError, MatihError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import RunId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.value import JsonValue, Value


class RunState(str, Enum):
    """Where a run is in its life."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """No transition leaves this state, except resuming a failed run."""
        return self in _TERMINAL

    @property
    def is_active(self) -> bool:
        """The run holds its stream: no second run of it may start."""
        return self in (RunState.QUEUED, RunState.RUNNING)


_TERMINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})
_ALLOWED: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset(
        {RunState.RUNNING, RunState.PAUSED, RunState.CANCELLED, RunState.FAILED}
    ),
    RunState.RUNNING: frozenset(
        {RunState.PAUSED, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.QUEUED}
    ),
    RunState.PAUSED: frozenset({RunState.QUEUED, RunState.CANCELLED}),
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.COMPLETED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


def check_transition(run_id: RunId, before: RunState, after: RunState) -> None:
    """Raise `ConflictError` unless a run may go from one state to the other."""
    if after not in _ALLOWED[before]:
        raise ConflictError(
            f"run {run_id} is {before.value} and cannot become {after.value}",
            run_id=run_id,
            state=before.value,
            requested=after.value,
        )


class RunRequest(str, Enum):
    """What somebody asked a running run to do; the planner obeys at its next step."""

    PAUSE = "PAUSE"
    CANCEL = "CANCEL"


class RunError(Value):
    """Why a run failed or a slice was retried."""

    code: str
    message: str
    recovery: str
    context: dict[str, JsonValue] = {}

    @classmethod
    def of(cls, error: MatihError) -> RunError:
        """The stored form of a typed error."""
        context: dict[str, JsonValue] = dict(error.context)
        return cls(
            code=error.code,
            message=error.message,
            recovery=error.recovery.value,
            context=context,
        )


class SliceState(str, Enum):
    """How far a slice got, as far as anything durable knows."""

    PENDING = "PENDING"
    WRITTEN = "WRITTEN"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"


class SliceRecord(Value):
    """Statistics of one slice of a run."""

    sequence: int
    key: str
    state: SliceState
    attempts: int = 0
    rows: int = 0
    bytes: int = 0
    read_s: float = 0.0
    write_s: float = 0.0
    error: RunError | None = None


class RunRecord(Value):
    """One run as the ledger keeps it. `version` grows with every write (compare-and-set).

    `epoch` counts planners that have owned the run; `heartbeat_at` is when the owner last said it
    is alive; `lost_planners` counts owners that died since the last commit. `target` is the sink's
    prepared target, as plain data. `through` is the number of committed slices, a contiguous
    prefix of the plan.
    """

    run_id: RunId
    stream: StreamKey
    state: RunState
    policy: IngestionPolicy
    staging_provider_id: str = "object_store"
    requested: RunRequest | None = None
    plan: IngestionPlan | None = None
    target: dict[str, JsonValue] | None = None
    epoch: int = 0
    lost_planners: int = 0
    commit_sequence: int = 0
    through: int = 0
    rows: int = 0
    bytes: int = 0
    error: RunError | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    heartbeat_at: datetime | None = None
    statistics: dict[str, JsonValue] = {}
    version: int = 0

    @property
    def slices_total(self) -> int | None:
        """Number of slices, once planned."""
        return None if self.plan is None else len(self.plan.slices)


class UnreadPart(Value):
    """A slice that was left out of a run, because its part of the unit could not be read."""

    sequence: int
    key: str
    part: str | None = None
    error: RunError


# Where a run's statistics keep the checkpoint that its plan began from (None: there was none), and
# when it was taken back.
CHECKPOINT_BEFORE = "checkpointBefore"
ROLLED_BACK_AT = "rolledBackAt"
# Where a run's statistics name the parts that it could not read.
UNREAD = "unread"


def unread_parts(record: RunRecord) -> tuple[UnreadPart, ...]:
    """What a run could not read; a run with any is a partial result."""
    listed = record.statistics.get(UNREAD)
    return tuple(
        UnreadPart.model_validate(part) for part in (listed if isinstance(listed, list) else ())
    )


def unread_slices(record: RunRecord) -> frozenset[int]:
    """Sequences of the slices that a run could not read."""
    return frozenset(part.sequence for part in unread_parts(record))
