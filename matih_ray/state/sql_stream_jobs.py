"""Streaming jobs in SQL; see `MetadataStore` for what each method promises."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select, update

from matih_ray.errors import MatihError, NotFoundError, StateConflictError
from matih_ray.model.ids import TenantId
from matih_ray.model.stream_job import StreamJob
from matih_ray.state.names import check_page
from matih_ray.state.sql_part import SqlPart, stored_value
from matih_ray.state.tables import stream_jobs

_COLUMNS = {"tenant_id", "job_id", "created_at", "due_at", "version"}


class SqlStreamJobs(SqlPart):
    """Streaming jobs of tenants."""

    def put_stream_job(self, job: StreamJob) -> StreamJob:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version."""
        after = job.version + 1
        values = {
            "due_at": job.due_at,
            "document": job.model_dump_json(by_alias=True, exclude=_COLUMNS),
            "version": after,
        }
        with self._database.write("store the job", violated=lambda: _changed(job)) as connection:
            if job.version == 0:
                connection.execute(
                    insert(stream_jobs).values(
                        tenant_id=job.tenant_id,
                        job_id=job.job_id,
                        created_at=job.created_at,
                        **values,
                    )
                )
            else:
                changed = connection.execute(
                    update(stream_jobs)
                    .where(*_is(job.tenant_id, job.job_id), stream_jobs.c.version == job.version)
                    .values(**values)
                )
                if changed.rowcount == 0:
                    raise _changed(job)
        return job.model_copy(update={"version": after})

    def get_stream_job(self, tenant_id: TenantId, job_id: str) -> StreamJob:
        """Raises `NotFoundError`."""
        query = select(stream_jobs).where(*_is(tenant_id, job_id))
        with self._database.read("read the job") as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"no job {job_id}", job_id=job_id)
        return _job(row)

    def list_stream_jobs(
        self, tenant_id: TenantId, *, offset: int = 0, limit: int = 100
    ) -> list[StreamJob]:
        """A page of jobs, newest first."""
        check_page(offset, limit)
        query = (
            select(stream_jobs)
            .where(stream_jobs.c.tenant_id == tenant_id)
            .order_by(stream_jobs.c.created_at.desc(), stream_jobs.c.job_id)
        )
        with self._database.read("list the jobs") as connection:
            return [_job(row) for row in connection.execute(query.offset(offset).limit(limit))]

    def find_due_stream_jobs(self, at: datetime, limit: int = 100) -> list[StreamJob]:
        """Jobs of all tenants that must be looked after, longest due first."""
        check_page(0, limit)
        query = (
            select(stream_jobs)
            .where(stream_jobs.c.due_at <= at)
            .order_by(stream_jobs.c.due_at, stream_jobs.c.job_id)
            .limit(limit)
        )
        with self._database.read("find jobs that are due") as connection:
            return [_job(row) for row in connection.execute(query)]


def _is(tenant_id: TenantId, job_id: str) -> tuple[Any, Any]:
    return (stream_jobs.c.tenant_id == tenant_id, stream_jobs.c.job_id == job_id)


def _changed(job: StreamJob) -> MatihError:
    return StateConflictError(
        f"job {job.job_id} was changed by somebody else, or it is gone; read it again",
        job_id=job.job_id,
        version=job.version,
    )


def _job(row: Row[Any]) -> StreamJob:
    columns = {name: getattr(row, name) for name in _COLUMNS}
    return stored_value(StreamJob, row.document, **columns)
