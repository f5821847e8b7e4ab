"""The contract of schedules."""

from __future__ import annotations

from datetime import timedelta

import pytest

from matih_ray.errors import ConflictError, NotFoundError, StateConflictError
from matih_ray.model.ids import EndpointId, SinkId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.schedule import Schedule, Timing
from matih_ray.state.base import EndpointRecord, MetadataStore
from matih_ray.testing.contracts.state_samples import NOON, endpoint, new_tenant


def _schedule(record: EndpointRecord, name: str, **changes: object) -> Schedule:
    values: dict[str, object] = {
        "schedule_id": f"{record.endpoint_id}-{name}",
        "tenant_id": record.tenant_id,
        "endpoint_id": record.endpoint_id,
        "unit_id": UnitId(f"public.{name}"),
        "sink_id": SinkId("iceberg"),
        "timing": Timing(every_s=600),
        "policy": IngestionPolicy(target_slice_rows=123),
        "created_by": "ann",
        "created_at": NOON,
        "updated_at": NOON,
        "due_at": NOON,
    }
    return Schedule.model_validate({**values, **changes})


class ScheduleContract:
    """Schedules of streams."""

    def test_a_schedule_comes_back_and_changes_by_its_version(
        self, metadata: MetadataStore
    ) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        made = metadata.put_schedule(_schedule(record, "a"))
        assert made.version == 1
        assert metadata.get_schedule(record.tenant_id, made.schedule_id) == made
        later = metadata.put_schedule(made.model_copy(update={"due_at": None}))
        assert metadata.get_schedule(record.tenant_id, made.schedule_id) == later
        for stale in (made, _schedule(record, "a")):
            with pytest.raises(StateConflictError):
                metadata.put_schedule(stale)
        with pytest.raises(NotFoundError):
            metadata.get_schedule(new_tenant(), made.schedule_id)

    def test_a_stream_has_one_schedule(self, metadata: MetadataStore) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        metadata.put_schedule(_schedule(record, "a"))
        with pytest.raises(ConflictError, match="has the schedule"):
            metadata.put_schedule(_schedule(record, "a", schedule_id=f"{record.endpoint_id}-z"))
        other_sink = _schedule(
            record, "a", schedule_id=f"{record.endpoint_id}-s", sink_id=SinkId("other")
        )
        metadata.put_schedule(other_sink)

    def test_schedules_go_with_their_endpoint(self, metadata: MetadataStore) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        made = metadata.put_schedule(_schedule(record, "a"))
        metadata.delete_endpoint(record.tenant_id, record.endpoint_id)
        assert metadata.list_schedules(record.tenant_id) == []
        with pytest.raises(StateConflictError):
            metadata.put_schedule(made)
        with pytest.raises(NotFoundError):
            metadata.put_schedule(_schedule(record, "b"))

    def test_schedules_are_listed_by_stream_and_deleted_once(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        records = [metadata.put_endpoint(endpoint(tenant, name)) for name in ("one", "two")]
        made = [metadata.put_schedule(_schedule(r, name)) for r in records for name in ("b", "a")]
        ordered = sorted(made, key=lambda found: (found.endpoint_id, found.unit_id))
        assert metadata.list_schedules(tenant) == ordered
        assert metadata.list_schedules(tenant, offset=1, limit=2) == ordered[1:3]
        mine = [found for found in ordered if found.endpoint_id == records[0].endpoint_id]
        assert metadata.list_schedules(tenant, endpoint_id=records[0].endpoint_id) == mine
        assert metadata.list_schedules(tenant, endpoint_id=EndpointId("none")) == []
        metadata.delete_schedule(tenant, made[0].schedule_id)
        with pytest.raises(NotFoundError):
            metadata.delete_schedule(tenant, made[0].schedule_id)
        assert len(metadata.list_schedules(tenant)) == 3

    def test_due_schedules_are_found_longest_due_first(self, metadata: MetadataStore) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        # years before every other test's, so that they come first
        start = NOON - timedelta(days=36_500)
        moments = {"late": 5, "early": 0, "future": 60}
        for name, seconds in moments.items():
            due_at = start + timedelta(seconds=seconds)
            metadata.put_schedule(_schedule(record, name, due_at=due_at))
        metadata.put_schedule(_schedule(record, "disabled", due_at=None))
        found = metadata.find_due_schedules(start + timedelta(seconds=30))
        assert [schedule.unit_id for schedule in found] == ["public.early", "public.late"]
        assert metadata.find_due_schedules(start, limit=1) == found[:1]
        metadata.delete_endpoint(record.tenant_id, record.endpoint_id)
