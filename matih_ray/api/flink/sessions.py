"""Flink's SQL Gateway: sessions, statements, operations, results.

Protocol: https://nightlies.apache.org/flink/flink-docs-release-2.0/docs/dev/table/sql-gateway/rest/
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Body, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.concurrency import run_in_threadpool

from matih_ray import __version__
from matih_ray.api.flink.boundary import Handle, Version, VersionPath, flink_router
from matih_ray.api.flink.results import results_page
from matih_ray.api.requests import PrincipalOf, RuntimeOf
from matih_ray.control import sql_sessions as use
from matih_ray.control.sql_statements import execute, known_options
from matih_ray.control.stream_jobs import MAX_SCRIPT_CHARS, JobDraft, submit_jobs
from matih_ray.errors import ValidationError
from matih_ray.model.sql_session import SqlOperation
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


@dataclass(frozen=True)
class Asked:
    """Who asks what of which version of the protocol."""

    version: VersionPath
    principal: PrincipalOf
    runtime: RuntimeOf


@dataclass(frozen=True)
class AskedSession:
    """A request that is about a session."""

    asked: Annotated[Asked, Depends()]
    session: Handle

    def execute(self, sent: StatementRequest) -> SqlOperation:
        """Execute a statement."""
        asked, options = self.asked, sent.execution_config or {}
        return execute(
            asked.principal, asked.runtime.ports, asked.runtime.scripts,
            self.session, sent.statement, options,
        )  # fmt: skip


@dataclass(frozen=True)
class AskedOperation:
    """A request that is about an operation of a session."""

    within: Annotated[AskedSession, Depends()]
    operation: Handle

    @property
    def asked(self) -> Asked:
        """Who asks."""
        return self.within.asked

    def found(self) -> SqlOperation:
        """The operation. Raises `NotFoundError`."""
        asked = self.asked
        return use.get_operation(
            asked.principal, asked.runtime.ports, self.within.session, self.operation
        )


AnyOf = Annotated[Asked, Depends()]
SessionOf = Annotated[AskedSession, Depends()]
OperationOf = Annotated[AskedOperation, Depends()]


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
def open_session(asked: AnyOf, sent: Annotated[SessionRequest | None, Body()] = None) -> Answer:
    """Open a session of the token's tenant and subject."""
    wanted = sent or SessionRequest(session_name=None)
    session = use.open_session(
        asked.principal,
        asked.runtime.ports,
        asked.runtime.scripts,
        wanted.session_name,
        known_options(wanted.properties or {}),
    )
    return {"sessionHandle": session.session_id}


@router.get("/{version}/sessions/{session}")
def get_session(of: SessionOf) -> Answer:
    """A session's options."""
    found = use.get_session(of.asked.principal, of.asked.runtime.ports, of.session)
    return {"properties": dict(found.properties)}


@router.delete("/{version}/sessions/{session}")
def close_session(of: SessionOf) -> Answer:
    """End a session and its queries; its jobs go on."""
    runtime = of.asked.runtime
    use.close_session(of.asked.principal, runtime.ports, runtime.scripts, of.session)
    return {"status": "CLOSED"}


@router.post("/{version}/sessions/{session}/heartbeat")
def heartbeat(of: SessionOf) -> Answer:
    """Keep a session from being idle."""
    use.get_session(of.asked.principal, of.asked.runtime.ports, of.session)
    return {}


@router.post("/{version}/sessions/{session}/configure-session")
def configure_session(of: SessionOf, sent: StatementRequest) -> Answer:
    """Execute a statement that only changes the session."""
    of.execute(sent)
    return {}


@router.post("/{version}/sessions/{session}/statements")
def execute_statement(of: SessionOf, sent: StatementRequest) -> Answer:
    """Execute a statement; all but a query has been executed when this is answered."""
    return {"operationHandle": of.execute(sent).operation_id}


@router.get("/{version}/sessions/{session}/operations/{operation}/status")
def operation_status(of: OperationOf) -> Answer:
    """How far an operation is."""
    return {"status": of.found().state.value}


@router.post("/{version}/sessions/{session}/operations/{operation}/cancel")
def cancel_operation(of: OperationOf) -> Answer:
    """Let a query end; a job that a statement started is cancelled as a job."""
    asked = of.asked
    canceled = use.cancel_operation(
        asked.principal, asked.runtime.ports, of.within.session, of.operation
    )
    return {"status": canceled.state.value}


@router.delete("/{version}/sessions/{session}/operations/{operation}/close")
def close_operation(of: OperationOf) -> Answer:
    """Forget an answer; a query that runs ends."""
    asked = of.asked
    use.close_operation(
        asked.principal, asked.runtime.ports, asked.runtime.scripts, of.within.session, of.operation
    )
    return {"status": "CLOSED"}


@router.get("/{version}/sessions/{session}/operations/{operation}/result/{token}")
def fetch_results(
    of: OperationOf, token: int, row_format: Annotated[str, Query(alias="rowFormat")] = "JSON"
) -> Answer:
    """A page of an answer."""
    if row_format != "JSON":
        raise ValidationError("rows come as JSON only: ?rowFormat=JSON", field="rowFormat")
    if token < 0:
        raise ValidationError("tokens count from 0", field="token")
    found, asked = of.found(), of.asked
    path = f"/{asked.version.value}/sessions/{of.within.session}/operations/{of.operation}"
    return results_page(
        asked.version,
        f"{path}/result",
        found,
        token,
        partial(asked.runtime.scripts.rows, asked.principal.tenant_id, of.operation),
    )


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
