"""Our jobs in Flink's JSON. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from matih_ray.model.stream_job import (
    MAX_PARALLELISM,
    Savepoint,
    SavepointState,
    StreamJob,
    StreamJobState,
)
from matih_ray.model.value import JsonValue

Answer: TypeAlias = dict[str, JsonValue]

# The id of a job's only vertex: Flink's are 32 hexadecimal digits.
VERTEX = "0" * 31 + "1"
# How Flink says that there is no time, no number and no watermark.
NONE = -1
NO_WATERMARK = -(2**63)

_TASK_STATES = (
    "CREATED", "SCHEDULED", "DEPLOYING", "INITIALIZING", "RUNNING", "FINISHED", "CANCELING",
    "CANCELED", "FAILED", "RECONCILING",
)  # fmt: skip
# A vertex has no state RESTARTING.
_OF_VERTEX = {StreamJobState.RESTARTING: "CREATED"}


def job_overview(job: StreamJob, now: datetime) -> Answer:
    """An item of `/jobs/overview`."""
    return {
        "jid": job.job_id,
        "name": job.name,
        "start-time": _ms(job.started_at or job.created_at),
        "end-time": _ms(job.ended_at),
        "duration": _duration_ms(job, now),
        "state": job.state.value,
        "last-modification": _ms(job.ended_at or job.heartbeat_at or job.created_at),
        "tasks": _tasks(job, with_total=True),
    }


def job_details(job: StreamJob, now: datetime) -> Answer:
    """`/jobs/{id}`."""
    state = _OF_VERTEX.get(job.state, job.state.value)
    progress = job.progress
    vertex: Answer = {
        "id": VERTEX,
        "name": f"Source -> Windows -> Sink: {job.target}",
        "maxParallelism": MAX_PARALLELISM,
        "parallelism": job.parallelism,
        "status": state,
        "start-time": _ms(job.started_at),
        "end-time": _ms(job.ended_at),
        "duration": _duration_ms(job, now),
        "tasks": _tasks(job),
        "metrics": {
            "read-records": progress.rows_in,
            "read-records-complete": True,
            "write-records": progress.rows_out,
            "write-records-complete": True,
        },
    }
    return {
        "jid": job.job_id,
        "name": job.name,
        "isStoppable": False,  # Flink's word for an older way to stop
        "state": job.state.value,
        "job-type": "STREAMING",
        "start-time": _ms(job.started_at or job.created_at),
        "end-time": _ms(job.ended_at),
        "duration": _duration_ms(job, now),
        "maxParallelism": MAX_PARALLELISM,
        "now": _ms(now),
        "timestamps": {"CREATED": _ms(job.created_at), "RUNNING": _ms(job.started_at)},
        "vertices": [vertex],
        "status-counts": {name: int(name == state) for name in _TASK_STATES},
        "plan": {
            "jid": job.job_id,
            "name": job.name,
            "type": "STREAMING",
            "nodes": [
                {
                    "id": VERTEX,
                    "parallelism": job.parallelism,
                    "operator": "",
                    "operator_strategy": "",
                    "description": vertex["name"],
                    "optimizer_properties": {},
                }
            ],
        },
    }


def checkpoint_counts(job: StreamJob) -> Answer:
    """`/jobs/{id}/checkpoints`. Single checkpoints are not kept, but for the savepoints."""
    saved = [one for one in job.savepoints if one.state is SavepointState.COMPLETED]
    latest = saved[-1] if saved else None
    completed = job.progress.checkpoints
    return {
        "counts": {
            "restored": job.restarts,
            "total": completed,
            "in_progress": 0,
            "completed": completed,
            "failed": 0,
        },
        "summary": {
            "end_to_end_duration": _summary(int(job.progress.checkpoint_s * 1000)),
            "state_size": _summary(job.progress.state_bytes),
        },
        "latest": {
            "completed": None,
            "failed": None,
            "restored": None,
            "savepoint": None
            if latest is None
            else {
                "@class": "completed",
                "status": "COMPLETED",
                "is_savepoint": True,
                "savepointFormat": "CANONICAL",
                "trigger_timestamp": _ms(latest.requested_at),
                "external_path": latest.path,
            },
        },
        "history": [],
    }


def checkpointing(job: StreamJob) -> Answer:
    """`/jobs/{id}/checkpoints/config`."""
    return {
        "mode": "exactly_once",
        "interval": int(job.checkpoint_interval_s * 1000),
        "timeout": NONE,
        "min_pause": 0,
        "max_concurrent": 1,
        "externalization": {"enabled": True, "delete_on_cancellation": False},
        "unaligned_checkpoints": False,
        "tolerable_failed_checkpoints": 0,
    }


def watermarks(job: StreamJob) -> list[Answer]:
    """`/jobs/{id}/vertices/{vertex}/watermarks`."""
    at = job.progress.watermark
    value = NO_WATERMARK if at is None else _ms(at)
    return [{"id": "0.currentInputWatermark", "value": str(value)}]


def savepoint_status(savepoint: Savepoint) -> Answer:
    """`/jobs/{id}/savepoints/{request}`."""
    if savepoint.state is SavepointState.IN_PROGRESS:
        return {"status": {"id": "IN_PROGRESS"}}
    if savepoint.state is SavepointState.COMPLETED:
        return {"status": {"id": "COMPLETED"}, "operation": {"location": savepoint.path}}
    cause: JsonValue = {"class": "SavepointFailed", "stack-trace": savepoint.error}
    return {"status": {"id": "COMPLETED"}, "operation": {"failure-cause": cause}}


def _tasks(job: StreamJob, *, with_total: bool = False) -> Answer:
    state = _OF_VERTEX.get(job.state, job.state.value)
    counts: Answer = {
        name.lower(): job.parallelism if name == state else 0 for name in _TASK_STATES
    }
    return {"total": job.parallelism, **counts} if with_total else _upper(counts)


def _upper(counts: Answer) -> Answer:
    return {name.upper(): count for name, count in counts.items()}


def _summary(value: int) -> Answer:
    return {"min": value, "max": value, "avg": value}


def _ms(at: datetime | None) -> int:
    return NONE if at is None else int(at.timestamp() * 1000)


def _duration_ms(job: StreamJob, now: datetime) -> int:
    return _ms(job.ended_at or now) - _ms(job.started_at or job.created_at)
