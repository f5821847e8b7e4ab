"""Flink's REST API of jobs: listings, savepoints, stopping, checkpoints, watermarks.

Shapes: https://nightlies.apache.org/flink/flink-docs-release-2.0/docs/ops/rest_api/, compared with
the answers of a running cluster. A job has one vertex here, since nobody divides it further.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from matih_ray.api.flink.boundary import flink_router
from matih_ray.api.flink.shapes import (
    VERTEX,
    Answer,
    checkpoint_counts,
    checkpointing,
    job_details,
    job_overview,
    savepoint_status,
    watermarks,
)
from matih_ray.api.requests import PrincipalOf, RuntimeOf
from matih_ray.control import stream_jobs as use
from matih_ray.control.pages import MAX_PAGE_ITEMS
from matih_ray.control.stream_jobs import SavepointDraft
from matih_ray.errors import NotFoundError, ValidationError
from matih_ray.model.stream_job import StreamJob

router = flink_router()

JobPath = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class SavepointRequest(BaseModel):
    """To save a job's state; what only Flink knows is passed over."""

    model_config = ConfigDict(extra="ignore")

    directory: str | None = Field(None, alias="target-directory")
    cancel: bool = Field(default=False, alias="cancel-job")


class StopRequest(BaseModel):
    """To stop a job with a savepoint."""

    model_config = ConfigDict(extra="ignore")

    directory: str | None = Field(None, alias="targetDirectory")
    drain: bool = False


@router.get("/jobs")
def list_jobs(principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """Jobs and their states, the newest ones."""
    return {
        "jobs": [{"id": job.job_id, "status": job.state.value} for job in _jobs(principal, runtime)]
    }


@router.get("/jobs/overview")
def jobs_overview(principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """Jobs with their times and tasks, the newest ones."""
    now = runtime.ports.clock()
    return {"jobs": [job_overview(job, now) for job in _jobs(principal, runtime)]}


@router.get("/jobs/{job}")
def get_job(job: JobPath, principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """A job and its vertex."""
    return job_details(_job(job, principal, runtime), runtime.ports.clock())


@router.get("/jobs/{job}/status")
def job_status(job: JobPath, principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """A job's state."""
    return {"status": _job(job, principal, runtime).state.value}


@router.get("/jobs/{job}/exceptions")
def job_exceptions(job: JobPath, principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """Why a job failed."""
    found = _job(job, principal, runtime)
    if found.error is None:
        return {"exceptionHistory": {"entries": [], "truncated": False}}
    at = found.ended_at or found.heartbeat_at or found.created_at
    entry: Answer = {
        "exceptionName": found.error.code,
        "stacktrace": found.error.message,
        "timestamp": int(at.timestamp() * 1000),
    }
    return {"exceptionHistory": {"entries": [entry], "truncated": False}}


@router.get("/jobs/{job}/checkpoints")
def job_checkpoints(job: JobPath, principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """How many there were, and the last of each kind."""
    return checkpoint_counts(_job(job, principal, runtime))


@router.get("/jobs/{job}/checkpoints/config")
def checkpoints_config(job: JobPath, principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """How often, and how."""
    return checkpointing(_job(job, principal, runtime))


@router.get("/jobs/{job}/vertices/{vertex}/watermarks")
def vertex_watermarks(
    job: JobPath, vertex: str, principal: PrincipalOf, runtime: RuntimeOf
) -> list[Answer]:
    """The watermark that a job's windows wait for, milliseconds since 1970."""
    if vertex != VERTEX:
        raise NotFoundError(f"job {job} has no vertex {vertex}; it has {VERTEX}")
    return watermarks(_job(job, principal, runtime))


@router.patch("/jobs/{job}", status_code=202)
def cancel_job(
    job: JobPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    mode: Annotated[Literal["cancel"], Query()] = "cancel",
) -> Answer:
    """End a job without another checkpoint."""
    del mode
    use.cancel_job(principal, runtime.ports, principal.tenant_id, job)
    return {}


@router.post("/jobs/{job}/savepoints", status_code=202)
def trigger_savepoint(
    job: JobPath, sent: SavepointRequest, principal: PrincipalOf, runtime: RuntimeOf
) -> Answer:
    """Ask for a savepoint; its answer names the request to look for."""
    return _requested(job, sent.directory, principal, runtime, stop=sent.cancel)


@router.post("/jobs/{job}/stop", status_code=202)
def stop_job(job: JobPath, sent: StopRequest, principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """Commit what was read, save the state, end."""
    if sent.drain:
        raise ValidationError(
            "drain would fire windows that are not complete; stop without it", field="drain"
        )
    return _requested(job, sent.directory, principal, runtime, stop=True)


@router.get("/jobs/{job}/savepoints/{request}")
def savepoint_of(job: JobPath, request: str, principal: PrincipalOf, runtime: RuntimeOf) -> Answer:
    """Whether a savepoint is there, and where, or why not."""
    for savepoint in _job(job, principal, runtime).savepoints:
        if savepoint.savepoint_id == request:
            return savepoint_status(savepoint)
    raise NotFoundError(f"job {job} was asked for no savepoint {request}, or long ago")


def _requested(
    job: str, directory: str | None, principal: PrincipalOf, runtime: RuntimeOf, *, stop: bool
) -> Answer:
    changed = use.request_savepoint(
        principal, runtime.ports, runtime.scripts, principal.tenant_id, job,
        SavepointDraft(directory=directory), stop=stop,
    )  # fmt: skip
    return {"request-id": changed.savepoints[-1].savepoint_id}


def _jobs(principal: PrincipalOf, runtime: RuntimeOf) -> list[StreamJob]:
    page = use.list_jobs(
        principal, runtime.ports, principal.tenant_id, offset=0, limit=MAX_PAGE_ITEMS
    )
    return list(page.items)


def _job(job: str, principal: PrincipalOf, runtime: RuntimeOf) -> StreamJob:
    return use.get_job(principal, runtime.ports, principal.tenant_id, job)
