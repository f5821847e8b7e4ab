"""Streaming jobs: one INSERT of a script, worked on until somebody stops it."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from pydantic import Field

from matih_ray.model.ids import TenantId
from matih_ray.model.run import RunError
from matih_ray.model.value import Value

# Savepoints that a record lists; the files of older ones stay.
MAX_SAVEPOINTS = 20
# As many as there are key groups: a task beyond would have no keys.
MAX_PARALLELISM = 128


class StreamJobState(str, Enum):
    """How a job is, in Flink's words."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    RESTARTING = "RESTARTING"  # lost its process or met an error that may pass
    FINISHED = "FINISHED"  # its input ended, or it was stopped
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_active(self) -> bool:
        """Whether somebody works on it, or will."""
        return self in (StreamJobState.CREATED, StreamJobState.RUNNING, StreamJobState.RESTARTING)


class SavepointState(str, Enum):
    """How far a savepoint got."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Savepoint(Value):
    """A checkpoint that was asked for. With `stop` the job ends behind it."""

    savepoint_id: str
    directory: str
    stop: bool = False
    state: SavepointState = SavepointState.IN_PROGRESS
    path: str | None = None
    error: str | None = None
    requested_at: datetime


class StreamProgress(Value):
    """What the owner last told. `watermark_holder` is the partition that windows wait for.
    `changed_rows` are updates and deletes where rows can only be appended. `rejected_rows` are
    those of the side table: late, unreadable and changed ones. `state_bytes` is the size of
    the last checkpoint; what open windows take now is `state_memory_bytes` and `state_disk_bytes`.
    `slot_lag_bytes` is how much of its log a database keeps for the job."""

    rows_in: int = 0
    rows_out: int = 0
    late_rows: int = 0
    bad_rows: int = 0
    changed_rows: int = 0
    rejected_rows: int = 0
    watermark: datetime | None = None
    watermark_holder: str | None = None
    checkpoints: int = 0
    checkpoint_s: float = 0.0
    state_bytes: int = 0
    state_memory_bytes: int = 0
    state_disk_bytes: int = 0
    slot_lag_bytes: int | None = None


class StreamJob(Value):
    """A job. `script` and `options` hold no secrets: those are variables, `${NAME}`.

    `statement` is the INSERT's place among those of the script, from 0. `epoch` grows with every
    owner. `due_at` is when the supervisor looks after the job, None when nobody needs to.
    """

    tenant_id: TenantId
    job_id: str
    name: Annotated[str, Field(max_length=255)]
    script: str
    statement: int = 0
    target: str = ""
    options: dict[str, str] = {}
    checkpoint_interval_s: Annotated[float, Field(gt=0)] = 60.0
    parallelism: Annotated[int, Field(ge=1, le=MAX_PARALLELISM)] = 1
    savepoint_path: str | None = None
    allow_other_query: bool = False
    state: StreamJobState = StreamJobState.CREATED
    cancel_requested: bool = False
    savepoints: tuple[Savepoint, ...] = ()
    epoch: int = 0
    restarts: int = 0
    error: RunError | None = None
    progress: StreamProgress = StreamProgress()
    created_by: str
    created_at: datetime
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    version: int = 0
