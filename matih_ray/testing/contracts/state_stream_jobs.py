"""The contract of streaming jobs."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from matih_ray.errors import NotFoundError, StateConflictError
from matih_ray.model.ids import TenantId
from matih_ray.model.stream_job import Savepoint, StreamJob, StreamJobState
from matih_ray.state.base import MetadataStore
from matih_ray.testing.contracts.state_samples import NOON, new_tenant


def _job(tenant_id: TenantId, minutes: int = 0) -> StreamJob:
    return StreamJob(
        tenant_id=tenant_id,
        job_id=uuid.uuid4().hex,
        name="orders",
        script="INSERT INTO a SELECT 'ü' FROM b",
        options={"t.topic": "x"},
        savepoints=(Savepoint(savepoint_id="s", directory="s3://bucket/s", requested_at=NOON),),
        created_by="ann",
        created_at=NOON + timedelta(minutes=minutes),
        due_at=NOON + timedelta(minutes=minutes),
    )


class StreamJobContract:
    """Streaming jobs."""

    def test_a_job_comes_back_and_changes_by_its_version(self, metadata: MetadataStore) -> None:
        made = metadata.put_stream_job(_job(new_tenant()))
        assert made.version == 1
        assert metadata.get_stream_job(made.tenant_id, made.job_id) == made
        running = made.model_copy(update={"state": StreamJobState.RUNNING, "epoch": 3})
        later = metadata.put_stream_job(running)
        assert metadata.get_stream_job(made.tenant_id, made.job_id) == later
        for stale in (made, made.model_copy(update={"version": 0})):
            with pytest.raises(StateConflictError):
                metadata.put_stream_job(stale)

    def test_jobs_are_a_tenants_own(self, metadata: MetadataStore) -> None:
        made = metadata.put_stream_job(_job(new_tenant()))
        with pytest.raises(NotFoundError):
            metadata.get_stream_job(new_tenant(), made.job_id)
        assert metadata.list_stream_jobs(new_tenant()) == []

    def test_jobs_are_listed_newest_first(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        made = [metadata.put_stream_job(_job(tenant, minutes)) for minutes in range(3)]
        assert metadata.list_stream_jobs(tenant) == made[::-1]
        assert metadata.list_stream_jobs(tenant, offset=1, limit=1) == [made[1]]

    def test_jobs_are_found_when_they_are_due(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        made = [metadata.put_stream_job(_job(tenant, minutes)) for minutes in range(3)]
        ended = metadata.put_stream_job(made[0].model_copy(update={"due_at": None}))
        found = metadata.find_due_stream_jobs(NOON + timedelta(minutes=1))
        assert [job for job in found if job.tenant_id == tenant] == [made[1]]
        assert ended.due_at is None
