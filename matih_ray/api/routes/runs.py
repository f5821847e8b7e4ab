"""Runs: start, watch, pause, resume, cancel."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from matih_ray.api.limits import Limits
from matih_ray.api.requests import PageOf, PrincipalOf, RunPath, RuntimeOf, TenantPath, page_body
from matih_ray.api.routes.units import LOAD_EXAMPLES
from matih_ray.api.wire import PageBody, RunBody
from matih_ray.control import runs as use
from matih_ray.control.loads import LoadRequest
from matih_ray.control.rollback import rollback_run as use_rollback
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.run import RunState, SliceRecord

router = APIRouter(prefix="/tenants/{tenantId}/runs", tags=["runs"])

LONG_POLL_S = Limits().long_poll_s


@router.post("", status_code=201, summary="Start a run")
def start_run(
    tenant_id: TenantPath,
    load: Annotated[LoadRequest, Body(openapi_examples=LOAD_EXAMPLES)],
    response: Response,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    idempotency_key: Annotated[
        str | None, Header(description="The same key and body return the same run")
    ] = None,
) -> RunBody:
    """Queues a run and returns at once. One run at a time per endpoint, unit and sink."""
    run = use.start_run(principal, runtime.ports, tenant_id, load, idempotency_key=idempotency_key)
    response.headers["Location"] = f"runs/{run.run_id}"
    return RunBody.of(run)


@router.get("", summary="List runs")
def list_runs(
    tenant_id: TenantPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    endpoint_id: Annotated[EndpointId | None, Query(alias="endpointId")] = None,
    unit_id: Annotated[UnitId | None, Query(alias="unitId")] = None,
    state: Annotated[tuple[RunState, ...], Query(description="Repeat it for several states")] = (),
) -> PageBody[RunBody]:
    """Newest first."""
    found = use.list_runs(
        principal,
        runtime.ports,
        tenant_id,
        endpoint_id=endpoint_id,
        unit_id=unit_id,
        states=state,
        offset=page.offset,
        limit=page.limit,
    )
    return page_body(request, found, RunBody.of)


@router.get("/{runId}", summary="Show a run")
async def get_run(
    tenant_id: TenantPath,
    run_id: RunPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    wait_s: Annotated[
        float, Query(alias="waitS", ge=0, le=LONG_POLL_S, description="Longest wait for a change")
    ] = 0.0,
    since_version: Annotated[
        int | None, Query(alias="sinceVersion", ge=0, description="The version the caller has")
    ] = None,
) -> RunBody:
    """Counts, state, error and progress. With `waitS` and `sinceVersion` the answer comes when
    the run has changed since that version, or after `waitS` seconds as it is."""
    ports, limits = runtime.ports, runtime.limits
    run = await run_in_threadpool(use.get_run, principal, ports, tenant_id, run_id)
    if since_version is None or run.version > since_version or run.state.is_terminal:
        return RunBody.of(run)
    left_s = min(wait_s, limits.long_poll_s)
    while left_s > 0:
        nap_s = min(limits.poll_every_s, left_s)
        await asyncio.sleep(nap_s)
        left_s -= nap_s
        version = await run_in_threadpool(use.run_version, principal, ports, tenant_id, run)
        if version > since_version:
            run = await run_in_threadpool(use.get_run, principal, ports, tenant_id, run_id)
            break
    return RunBody.of(run)


@router.get("/{runId}/slices", summary="List a run's slices")
def list_slices(
    tenant_id: TenantPath,
    run_id: RunPath,
    request: Request,
    page: PageOf,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> PageBody[SliceRecord]:
    """Statistics of each slice, in commit order, as far as they were worked on."""
    found = use.list_slices(
        principal, runtime.ports, tenant_id, run_id, offset=page.offset, limit=page.limit
    )
    return page_body(request, found, lambda slice_: slice_)


@router.post("/{runId}/pause", status_code=202, summary="Pause a run")
def pause_run(
    tenant_id: TenantPath,
    run_id: RunPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> RunBody:
    """Asks the run to stop behind its last committed slice; it can be resumed from there."""
    return RunBody.of(use.pause_run(principal, runtime.ports, tenant_id, run_id))


@router.post("/{runId}/resume", status_code=202, summary="Resume a run")
def resume_run(
    tenant_id: TenantPath,
    run_id: RunPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> RunBody:
    """Queues a paused or failed run again. Only slices that were not committed are read."""
    return RunBody.of(use.resume_run(principal, runtime.ports, tenant_id, run_id))


@router.post("/{runId}/cancel", status_code=202, summary="Cancel a run")
def cancel_run(
    tenant_id: TenantPath,
    run_id: RunPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> RunBody:
    """Asks the run to end for good. What it has committed stays."""
    return RunBody.of(use.cancel_run(principal, runtime.ports, tenant_id, run_id))


@router.post("/{runId}/rollback", summary="Take a run back")
def rollback_run(
    tenant_id: TenantPath,
    run_id: RunPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> RunBody:
    """Readers see what they saw before the run, and the next run starts where this one did. Only
    the newest run of a unit, and only while nobody else has committed to the table since."""
    return RunBody.of(use_rollback(principal, runtime.ports, tenant_id, run_id))
