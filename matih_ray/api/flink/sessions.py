"""Flink's SQL Gateway: sessions, statements, operations, results.

Protocol: https://nightlies.apache.org/flink/flink-docs-release-2.0/docs/dev/table/sql-gateway/rest/
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.concurrency import run_in_threadpool

from matih_ray import __version__
from matih_ray.api.flink.boundary import Handle, Version, VersionPath, flink_router
from matih_ray.api.flink.results import results_page
from matih_ray.api.requests import PrincipalOf, RuntimeOf
from matih_ray.control import sql_sessions as use
from matih_ray.control.stream_jobs import MAX_SCRIPT_CHARS, JobDraft, submit_jobs
from matih_ray.errors import ValidationError
from matih_ray.model.value import JsonValue

router = flink_router()

Text = Annotated[str, Field(min_length=1, max_length=MAX_SCRIPT_CHARS)]
Answer = dict[str, JsonValue]


class _Sent(BaseModel):
    """What Flink's clients send; fields that only Flink knows are passed over."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class SessionRequest(_Sent):
    """To open a session."""

    session_name: str | None = Field(None, max_length=200)
    properties: dict[str, str] | None = None


class StatementRequest(_Sent):
    """To execute a statement."""

    statement: Text
    execution_config: dict[str, str] | None = None


@router.get("/api_versions")
def api_versions() -> Answer:
    """Versions of the protocol."""
    return {"versions": [version.name for version in Version]}


@router.get("/{version}/api_versions")
def api_versions_of(version: VersionPath) -> Answer:
    """The same, where Flink's clients ask as well."""
    del version
    return api_versions()


@router.get("/{version}/info")
def info(version: VersionPath) -> Answer:
    """Whom a client talks to."""
    del version
    return {"productName": "MATIH Ray", "version": __version__}


@router.post("/{version}/sessions")
def open_session(
    version: VersionPath,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    sent: Annotated[SessionRequest | None, Body()] = None,
) -> Answer:
    """Open a session of the token's tenant and subject."""
    del version
    wanted = sent or SessionRequest(session_name=None)
    session = use.open_session(
        principal, runtime.ports, wanted.session_name, wanted.properties or {}
    )
    return {"sessionHandle": session.session_id}


@router.get("/{version}/sessions/{session}")
def get_session(
    version: VersionPath, session: Handle, principal: PrincipalOf, runtime: RuntimeOf
) -> Answer:
    """A session's options."""
    del version
    return {"properties": dict(use.get_session(principal, runtime.ports, session).properties)}


@router.delete("/{version}/sessions/{session}")
def close_session(
    version: VersionPath, session: Handle, principal: PrincipalOf, runtime: RuntimeOf
) -> Answer:
    """End a session; its jobs go on."""
    del version
    use.close_session(principal, runtime.ports, session)
    return {"status": "CLOSED"}


@router.post("/{version}/sessions/{session}/heartbeat")
def heartbeat(
    version: VersionPath, session: Handle, principal: PrincipalOf, runtime: RuntimeOf
) -> Answer:
    """Keep a session from being idle."""
    del version
    use.get_session(principal, runtime.ports, session)
    return {}


@router.post("/{version}/sessions/{session}/configure-session")
def configure_session(
    version: VersionPath,
    session: Handle,
    sent: StatementRequest,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> Answer:
    """Execute a statement that only changes the session."""
    del version
    use.execute(principal, runtime.ports, runtime.scripts, session, sent.statement, {})
    return {}


@router.post("/{version}/sessions/{session}/statements")
def execute_statement(
    version: VersionPath,
    session: Handle,
    sent: StatementRequest,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> Answer:
    """Execute a statement; it has been executed when this is answered."""
    del version
    operation = use.execute(
        principal,
        runtime.ports,
        runtime.scripts,
        session,
        sent.statement,
        sent.execution_config or {},
    )
    return {"operationHandle": operation.operation_id}


@router.get("/{version}/sessions/{session}/operations/{operation}/status")
def operation_status(
    version: VersionPath,
    session: Handle,
    operation: Handle,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> Answer:
    """An operation is finished as soon as it exists."""
    del version
    use.get_operation(principal, runtime.ports, session, operation)
    return {"status": "FINISHED"}


@router.post("/{version}/sessions/{session}/operations/{operation}/cancel")
def cancel_operation(
    version: VersionPath,
    session: Handle,
    operation: Handle,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> Answer:
    """There is nothing left to cancel; a job that it started is cancelled as a job."""
    return operation_status(version, session, operation, principal, runtime)


@router.delete("/{version}/sessions/{session}/operations/{operation}/close")
def close_operation(
    version: VersionPath,
    session: Handle,
    operation: Handle,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> Answer:
    """Forget an answer."""
    del version
    use.close_operation(principal, runtime.ports, session, operation)
    return {"status": "CLOSED"}


@router.get("/{version}/sessions/{session}/operations/{operation}/result/{token}")
def fetch_results(
    version: VersionPath,
    session: Handle,
    operation: Handle,
    token: int,
    principal: PrincipalOf,
    runtime: RuntimeOf,
    row_format: Annotated[str, Query(alias="rowFormat")] = "JSON",
) -> Answer:
    """A page of an answer."""
    if row_format != "JSON":
        raise ValidationError("rows come as JSON only: ?rowFormat=JSON", field="rowFormat")
    if token < 0:
        raise ValidationError("tokens count from 0", field="token")
    found = use.get_operation(principal, runtime.ports, session, operation)
    return results_page(version, session, found, token)


@router.post("/{version}/statements")
async def submit_script(
    version: VersionPath, request: Request, principal: PrincipalOf, runtime: RuntimeOf
) -> Answer:
    """A whole script as the body, without a session: each INSERT becomes a job. Flink has no such
    path; people send scripts to it all the same."""
    del version
    text = (await request.body()).decode("utf-8", "replace").strip()
    draft = JobDraft.from_json({"name": "script", "script": text})
    jobs = await run_in_threadpool(
        submit_jobs, principal, runtime.ports, runtime.scripts, principal.tenant_id, draft
    )
    return {"jobs": [{"id": job.job_id, "target": job.target} for job in jobs]}
