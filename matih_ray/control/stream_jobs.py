"""Streaming jobs: submitted, looked at, stopped, saved. Who works on them is not said here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Protocol

from pydantic import Field

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.errors import ConflictError, NotFoundError, StateConflictError
from matih_ray.model.ids import TenantId
from matih_ray.model.sql_session import Interpreted, QueryTask
from matih_ray.model.stream_job import (
    MAX_PARALLELISM,
    MAX_SAVEPOINTS,
    Savepoint,
    SavepointState,
    StreamJob,
)
from matih_ray.model.value import JsonValue, Value

# Two that change a job at the same moment are one turn apart; its owner writes every other second.
MAX_ATTEMPTS = 20
MAX_SCRIPT_CHARS = 1_000_000
MAX_JOBS_PER_SCRIPT = 50


class JobDraft(Value):
    """What is submitted: a script, and overrides of its tables' options as `table.key`.

    Each INSERT becomes a job of its own; catalog tables that the script declares are created.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    script: Annotated[str, Field(min_length=1, max_length=MAX_SCRIPT_CHARS)]
    options: dict[str, str] = {}
    checkpoint_interval_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    parallelism: Annotated[
        int, Field(ge=1, le=MAX_PARALLELISM, description="Processes that share the work of a job")
    ] = 1
    savepoint_path: Annotated[
        str | None, Field(description="A savepoint to begin from; of a script with one INSERT")
    ] = None
    allow_other_query: bool = False


class SavepointDraft(Value):
    """Where a savepoint goes: a URI, below the operator's directory if there is none."""

    directory: str | None = None


Rows = tuple[tuple[JsonValue, ...], ...]


class Scripts(Protocol):
    """Whoever understands scripts."""

    def prepare(self, tenant_id: TenantId, draft: JobDraft) -> list[str]:
        """Check a script, create its catalog tables; the targets of its INSERTs.

        Raises:
            SqlInvalidError: A statement, an option or a name is wrong.
            SqlNotSupportedError: A statement is beyond what is there.
        """

    def interpret(self, tenant_id: TenantId, earlier: Sequence[str], text: str) -> Interpreted:
        """Understand a statement, by the declarations before it; a declared catalog table is made.

        Raises:
            SqlInvalidError: It is wrong, or it is several statements that are no statement set.
            SqlNotSupportedError: It is beyond what is there.
        """

    def start_query(self, task: QueryTask) -> None:
        """Run a query that was understood; how it goes is in the record of its operation. May
        return before it has ended."""

    def describe(self, tenant_id: TenantId, earlier: Sequence[str], name: str) -> Rows:
        """The columns of a declared table or view: name, type, whether it may be NULL, key, extras,
        watermark. Raises `SqlInvalidError`."""

    def rows(self, tenant_id: TenantId, operation_id: str, page: int) -> Rows:
        """A page of what a query found, from 0. Raises `NotFoundError`."""

    def forget_rows(self, tenant_id: TenantId, operation_id: str) -> None:
        """Remove what a query found, if there is anything."""

    def savepoint_directory(self, tenant_id: TenantId, wanted: str | None) -> str:
        """Where a tenant's savepoints go.

        Raises:
            ForbiddenError: It may not be there.
        """


class NoScripts:
    """Where nothing can be submitted."""

    def prepare(self, tenant_id: TenantId, draft: JobDraft) -> list[str]:
        """See `Scripts`."""
        del tenant_id, draft
        raise ConflictError("this runtime takes no streaming jobs")

    def interpret(self, tenant_id: TenantId, earlier: Sequence[str], text: str) -> Interpreted:
        """See `Scripts`."""
        del tenant_id, earlier, text
        raise ConflictError("this runtime takes no streaming jobs")

    def start_query(self, task: QueryTask) -> None:
        """See `Scripts`; nothing was understood."""

    def describe(self, tenant_id: TenantId, earlier: Sequence[str], name: str) -> Rows:
        """See `Scripts`."""
        del tenant_id, earlier
        raise ConflictError(f"this runtime knows no table {name}")

    def rows(self, tenant_id: TenantId, operation_id: str, page: int) -> Rows:
        """See `Scripts`."""
        del tenant_id
        raise NotFoundError(f"operation {operation_id} has no rows {page}")

    def forget_rows(self, tenant_id: TenantId, operation_id: str) -> None:
        """See `Scripts`; there are none."""

    def savepoint_directory(self, tenant_id: TenantId, wanted: str | None) -> str:
        """See `Scripts`."""
        del tenant_id, wanted
        raise ConflictError("this runtime takes no streaming jobs")


def submit_jobs(
    principal: Principal, ports: Ports, scripts: Scripts, tenant_id: TenantId, draft: JobDraft
) -> list[StreamJob]:
    """Start a job for each INSERT of a script.

    Raises:
        SqlInvalidError: See `Scripts.prepare`.
        ConflictError: A savepoint is of one INSERT, and the script has another number.
    """
    authorize(principal, Action.RUN, tenant_id)
    targets = scripts.prepare(tenant_id, draft)
    if len(targets) > MAX_JOBS_PER_SCRIPT:
        raise ConflictError(f"a script has at most {MAX_JOBS_PER_SCRIPT} INSERTs")
    if draft.savepoint_path is not None and len(targets) > 1:
        raise ConflictError("a savepoint is of one INSERT; submit the INSERTs one by one")
    now = ports.clock()
    jobs = [
        StreamJob(
            tenant_id=tenant_id,
            job_id=ports.new_id(),
            name=draft.name if len(targets) == 1 else f"{draft.name}-{number + 1}",
            script=draft.script,
            statement=number,
            target=target,
            options=draft.options,
            checkpoint_interval_s=draft.checkpoint_interval_s,
            parallelism=draft.parallelism,
            savepoint_path=draft.savepoint_path,
            allow_other_query=draft.allow_other_query,
            created_by=principal.subject,
            created_at=now,
            due_at=now,
        )
        for number, target in enumerate(targets)
    ]
    return [ports.metadata.put_stream_job(job) for job in jobs]


def list_jobs(
    principal: Principal, ports: Ports, tenant_id: TenantId, *, offset: int, limit: int
) -> Page[StreamJob]:
    """A page of the tenant's jobs, newest first."""
    authorize(principal, Action.READ, tenant_id)
    return page_of(
        lambda start, count: ports.metadata.list_stream_jobs(tenant_id, offset=start, limit=count),
        offset,
        limit,
    )


def get_job(principal: Principal, ports: Ports, tenant_id: TenantId, job_id: str) -> StreamJob:
    """One job. Raises `NotFoundError`."""
    authorize(principal, Action.READ, tenant_id)
    return ports.metadata.get_stream_job(tenant_id, job_id)


def cancel_job(principal: Principal, ports: Ports, tenant_id: TenantId, job_id: str) -> StreamJob:
    """Ask a job to end without another checkpoint; what it has committed stays.

    Raises:
        NotFoundError: No such job.
        ConflictError: It has ended.
    """
    authorize(principal, Action.RUN, tenant_id)
    return change_job(
        ports, tenant_id, job_id, lambda job: job.model_copy(update={"cancel_requested": True})
    )


def request_savepoint(
    principal: Principal,
    ports: Ports,
    scripts: Scripts,
    tenant_id: TenantId,
    job_id: str,
    draft: SavepointDraft,
    *,
    stop: bool,
) -> StreamJob:
    """Ask a job for a savepoint; the last of `savepoints` tells how that went.

    Raises:
        NotFoundError: No such job.
        ConflictError: It has ended.
        ForbiddenError: The directory is not for this tenant.
    """
    authorize(principal, Action.RUN, tenant_id)
    ports.metadata.get_stream_job(tenant_id, job_id)
    asked = Savepoint(
        savepoint_id=ports.new_id(),
        directory=scripts.savepoint_directory(tenant_id, draft.directory),
        stop=stop,
        requested_at=ports.clock(),
    )

    def added(job: StreamJob) -> StreamJob:
        if any(one.stop and one.state is SavepointState.IN_PROGRESS for one in job.savepoints):
            raise ConflictError(f"job {job_id} is being stopped", job_id=job_id)
        kept = (*job.savepoints, asked)[-MAX_SAVEPOINTS:]
        return job.model_copy(update={"savepoints": kept})

    return change_job(ports, tenant_id, job_id, added)


def change_job(
    ports: Ports, tenant_id: TenantId, job_id: str, change: Callable[[StreamJob], StreamJob]
) -> StreamJob:
    """Change an active job; again if somebody else changes it at the same moment.

    Raises:
        ConflictError: It has ended.
        StateConflictError: It was changed by others all the time.
    """
    for _ in range(MAX_ATTEMPTS):
        job = ports.metadata.get_stream_job(tenant_id, job_id)
        if not job.state.is_active:
            raise ConflictError(
                f"job {job_id} has ended: {job.state.value}", job_id=job_id, state=job.state.value
            )
        try:
            return ports.metadata.put_stream_job(change(job))
        except StateConflictError:
            continue
    raise StateConflictError(f"job {job_id} is changed by others all the time", job_id=job_id)
