"""Streaming jobs: scripts of Flink SQL that go on until somebody stops them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Request

from matih_ray.api.requests import PageOf, PrincipalOf, RuntimeOf, TenantPath, page_body
from matih_ray.api.wire import PageBody
from matih_ray.control import stream_jobs as use
from matih_ray.control.stream_jobs import JobDraft, SavepointDraft
from matih_ray.model.stream_job import StreamJob

router = APIRouter(prefix="/tenants/{tenantId}/jobs", tags=["jobs"])

JobPath = Annotated[str, Path(alias="jobId", min_length=1, max_length=64)]

_DRAFT = {
    "agents": {
        "summary": "Aggregate a topic into an Iceberg table",
        "value": {
            "name": "agent-performance",
            "script": "CREATE TEMPORARY TABLE agent_traces_source (…); INSERT INTO …",
            "options": {"agent_traces_source.properties.bootstrap.servers": "kafka:9092"},
            "checkpointIntervalS": 10,
            "parallelism": 4,
        },
    }
}
_SAVEPOINT = {"default": {"summary": "In the operator's directory", "value": {}}}


@router.post("", status_code=201, summary="Submit a script")
def submit_jobs(
    tenant_id: TenantPath,
    draft: Annotated[JobDraft, Body(openapi_examples=_DRAFT)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> list[StreamJob]:
    """Each INSERT becomes a job, and declared catalog tables are created. Secrets are variables,
    `${NAME}`, never text."""
    return use.submit_jobs(principal, runtime.ports, runtime.scripts, tenant_id, draft)


@router.get("", summary="List jobs")
def list_jobs(
    tenant_id: TenantPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> PageBody[StreamJob]:
    """Newest first."""
    found = use.list_jobs(principal, runtime.ports, tenant_id, offset=page.offset, limit=page.limit)
    return page_body(request, found, lambda job: job)


@router.get("/{jobId}", summary="Show a job")
def get_job(
    tenant_id: TenantPath, job_id: JobPath, principal: PrincipalOf, runtime: RuntimeOf
) -> StreamJob:
    """Its state, its progress, and which partition its windows wait for."""
    return use.get_job(principal, runtime.ports, tenant_id, job_id)


@router.post("/{jobId}/cancel", status_code=202, summary="Cancel a job")
def cancel_job(
    tenant_id: TenantPath, job_id: JobPath, principal: PrincipalOf, runtime: RuntimeOf
) -> StreamJob:
    """It ends without another checkpoint; what it has committed stays."""
    return use.cancel_job(principal, runtime.ports, tenant_id, job_id)


@router.post("/{jobId}/stop", status_code=202, summary="Stop a job with a savepoint")
def stop_job(
    tenant_id: TenantPath,
    job_id: JobPath,
    draft: Annotated[SavepointDraft, Body(openapi_examples=_SAVEPOINT)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> StreamJob:
    """It commits what it has read, saves its state, and ends FINISHED."""
    return use.request_savepoint(
        principal, runtime.ports, runtime.scripts, tenant_id, job_id, draft, stop=True
    )


@router.post("/{jobId}/savepoints", status_code=202, summary="Save a job's state")
def save_job(
    tenant_id: TenantPath,
    job_id: JobPath,
    draft: Annotated[SavepointDraft, Body(openapi_examples=_SAVEPOINT)],
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> StreamJob:
    """The last of `savepoints` tells when it is there, and where."""
    return use.request_savepoint(
        principal, runtime.ports, runtime.scripts, tenant_id, job_id, draft, stop=False
    )
